"""Objects that Consilium itself created with a model. No model may learn from a model.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from pydicom import Dataset

MANUFACTURER = "Consilium"
"""Manufacturer and ManufacturerModelName of everything ``client/prediction`` writes."""


def is_own(header: Dataset) -> bool:
    """Whether Consilium created a report or a segmentation."""
    return {str(header.get(keyword, "")) for keyword in ("Manufacturer", "ManufacturerModelName")} == {MANUFACTURER}
