"""In what form tensors travel.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.constraints import Encoding, SettingsGroup


@dataclass
class Wire(SettingsGroup):
    """In what form tensors travel; ``tasks/protocol/encoding.py`` explains the forms."""

    up: Encoding = "float32"
    """Of updates: ``float32``, ``float16`` or ``int8``."""
    down: Encoding = "float32"
    """Of models; other than ``float32`` they travel as changes, and not at all when a hospital has them already."""
