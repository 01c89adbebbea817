"""A small archive's contents: eight ultrasound images of four patients, half of them RLE compressed, and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import RLELossless

from tasks.phantoms.dicom_writer import common_attributes, pixel_attributes, uid, write

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
PATIENTS = [f"ALDER-{number:04d}" for number in range(1, 5)]


def fill(folder: Path) -> list[Path]:
    """Write ``dicom/*.dcm`` and ``labels.csv``; returns the DICOM files."""
    paths = []
    for number in range(1, 5):
        for instance in (1, 2):
            path = folder / "dicom" / f"{number}-{instance}.dcm"
            pixels = np.random.default_rng([number, instance]).integers(0, 256, (24, 16), dtype=np.uint8)
            attributes = common_attributes("small", "alder", number, 0) | pixel_attributes(pixels, 8, "MONOCHROME2")
            attributes |= {"SOPClassUID": US_IMAGE, "SOPInstanceUID": uid("small", number, instance), "Modality": "US"}
            write(path, attributes | {"BodyPartExamined": "BREAST", "InstanceNumber": instance})
            if instance == 2:
                dataset = dcmread(path)
                dataset.compress(RLELossless, generate_instance_uid=False)
                dataset.save_as(path)
            paths.append(path)
    rows = [f"{patient},{index % 2}" for index, patient in enumerate(PATIENTS)]
    (folder / "labels.csv").write_text("\n".join(["PatientID,label", *rows, ""]), "utf-8")
    return paths


def datasets(paths: list[Path]) -> list[Dataset]:
    """The headers of these files."""
    return [dcmread(path, stop_before_pixels=True) for path in paths]
