"""Phantom chest X-rays in both grey scales, and the form in which they meet PneumoniaMNIST."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.reading.dicom import read_frame
from tasks.pneumonia_xray import TASK
from tasks.task import PhantomHospital, Picture

ALDER = PhantomHospital("alder", patients=4, prevalence=0.5)  # its detector stores MONOCHROME2
BIRCH = replace(ALDER, name="birch")  # and this one MONOCHROME1


@pytest.mark.parametrize(("hospital", "photometric"), [(ALDER, "MONOCHROME2"), (BIRCH, "MONOCHROME1")])
def test_bone_is_bright_whatever_the_detector_stores(
    tmp_path: Path, hospital: PhantomHospital, photometric: str
) -> None:
    TASK.draw_phantom(tmp_path, hospital, 0)
    for path in (tmp_path / "dicom").glob("*/*.dcm"):
        header = dcmread(path)
        assert header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.1.1"
        assert (header.PhotometricInterpretation, header.BitsAllocated, header.BitsStored) == (photometric, 16, 12)
        pixels = read_frame(path).pixels
        rows, columns = pixels.shape
        spine = pixels[rows // 3 : rows // 2, columns // 2]
        lung = pixels[rows // 3 : rows // 2, columns // 4]
        assert spine.mean() > lung.mean() + 0.1


def test_an_image_of_pneumoniamnist_passes_unchanged() -> None:
    pixels = np.random.default_rng(0).random((28, 28), dtype=np.float32)
    np.testing.assert_allclose(TASK.read_example(Picture(pixels))[0], pixels, atol=1e-6)
