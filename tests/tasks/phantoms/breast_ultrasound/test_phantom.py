"""Phantom breast ultrasound: what its header says of the image, and marks around it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from scipy.ndimage import binary_dilation

from client.reading.dicom import read_frame
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.breast_ultrasound import TASK
from tasks.breast_ultrasound.example import read_masks
from tasks.phantoms.breast_ultrasound.phantom import draw
from tasks.task import PhantomHospital

ALDER = PhantomHospital("alder", patients=2, prevalence=0.5)


def test_the_header_says_where_the_image_is_and_how_large(tmp_path: Path) -> None:
    draw(tmp_path, ALDER, 0)
    path = tmp_path / "dicom" / "ALDER-0001" / "1.dcm"
    header = dcmread(path)
    assert header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert (header.Modality, header.IssuerOfPatientID, header.ImageType[:2]) == ("US", "alder", ["ORIGINAL", "PRIMARY"])
    region = header.SequenceOfUltrasoundRegions[0]
    picture = read_frame(path)
    _, _, right, bottom = picture.regions[0]
    assert (right, bottom) == (region.RegionLocationMaxX1 + 1, region.RegionLocationMaxY1 + 1)
    assert picture.spacing_mm == pytest.approx((region.PhysicalDeltaY * 10, region.PhysicalDeltaX * 10))


def test_marks_stand_outside_the_region_only(tmp_path: Path) -> None:
    draw(tmp_path, ALDER, 0)
    picture = read_frame(tmp_path / "dicom" / "ALDER-0001" / "1.dcm")
    left, top, right, bottom = picture.regions[0]
    outside = np.ones(picture.pixels.shape, dtype=bool)
    outside[top:bottom, left:right] = False
    assert 0 < (picture.pixels[outside] > 0.5).mean() < 0.2
    assert np.median(picture.pixels[outside]) == 0


def test_every_image_has_the_lesions_outline(tmp_path: Path) -> None:
    draw(tmp_path, replace(ALDER, patients=6), 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=tmp_path / "dicom", labels=tmp_path / "labels.csv"
    )
    listing = list_folder(source, TASK, frozenset())
    assert not listing.left_out
    darker = []
    for record in listing.records:
        assert record.read_masks is not None
        picture = replace(record.read(), masks=record.read_masks())
        example, outline = TASK.read_example(picture)[0], read_masks(picture)[0]
        assert 0.002 < outline.mean() < 0.5
        around = binary_dilation(outline, iterations=8) & ~binary_dilation(outline, iterations=2)
        darker.append(example[outline].mean() < example[around].mean())
    assert np.mean(darker) > 0.8, "the outline lies on what looks like a lesion"
