"""Functional groups of enhanced multi-frame images: what holds for one frame or for all of them (PS3.3 C.7.6.16).

Tested in ``tests/client/reading/test_dicom.py``.
"""

from __future__ import annotations

from pydicom import Dataset

from client.pixels.refusal import Reason, guarded


def group_item(header: Dataset, frame: int, macro: str) -> Dataset | None:
    """The item of a functional group macro for a frame: its own, else the shared one, else ``None``.

    ``macro`` is the keyword of the macro's sequence, for instance "PixelMeasuresSequence".

    Raises:
        UnreadableDicom: IMPLAUSIBLE_HEADER, the sequences cannot be parsed.
    """

    def find() -> Dataset | None:
        own = header.get("PerFrameFunctionalGroupsSequence") or ()
        shared = header.get("SharedFunctionalGroupsSequence") or ()
        for groups in ([own[frame]] if frame < len(own) else [], shared[:1]):
            for group in groups:
                if items := group.get(macro):
                    item: Dataset = items[0]
                    return item
        return None

    return guarded(Reason.IMPLAUSIBLE_HEADER, find)
