"""Coded concepts of DICOM.

Tested in ``tests/tasks/test_every_task.py``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8), such as ``Code("SCT", "76752008", "Breast structure")``."""

    scheme: str
    value: str
    meaning: str
