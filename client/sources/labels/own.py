"""What Consilium itself has made of a hospital's images, by a model. No model may learn from a model."""

from __future__ import annotations

from pydicom import Dataset

MANUFACTURER = "Consilium"
"""Manufacturer and ManufacturerModelName of all that ``client/prediction`` writes."""


def is_own(header: Dataset) -> bool:
    """Whether a report or a segmentation is ours."""
    return {str(header.get(keyword, "")) for keyword in ("Manufacturer", "ManufacturerModelName")} == {MANUFACTURER}
