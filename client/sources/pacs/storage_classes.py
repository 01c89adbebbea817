"""Usual SOP classes of images, by modality, for archives whose C-FIND does not return them (PS3.4 table B.5-1).

Tested in ``tests/client/sources/pacs/test_dimse.py``.
"""

from __future__ import annotations

_ROOT = "1.2.840.10008.5.1.4.1.1."
_SECONDARY = ("7", "7.1", "7.2", "7.3", "7.4")
_BY_MODALITY = {
    "US": ("6.1", "3.1", "6", "3"),  # single and multi-frame; the last two are retired and in old archives
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.3", "4.4"),
    "CR": ("1",),
    "DX": ("1.1", "1.1.1"),
    "MG": ("1.2", "1.2.1", "13.1.3"),
    "IO": ("1.3", "1.3.1"),
    "XA": ("12.1", "12.1.1", "13.1.1"),
    "RF": ("12.2", "12.2.1"),
    "NM": ("20",),
    "PT": ("128", "130"),
    "ES": ("77.1.1", "77.1.1.1"),
    "GM": ("77.1.2", "77.1.2.1"),
    "SM": ("77.1.3", "77.1.6"),
    "XC": ("77.1.4", "77.1.4.1"),
    "OP": ("77.1.5.1", "77.1.5.2"),
    "OPT": ("77.1.5.4",),
    "SEG": ("66.4", "66.7"),
}


def usual_classes(modality: str) -> list[str]:
    """SOPClassUIDs to propose for a modality; for an unknown one, those of secondary captures."""
    return [_ROOT + ending for ending in _BY_MODALITY.get(modality.upper(), _SECONDARY)]


def all_classes() -> list[str]:
    """Those of every modality."""
    return sorted({_ROOT + ending for endings in (*_BY_MODALITY.values(), _SECONDARY) for ending in endings})
