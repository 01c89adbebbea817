"""Phantom chest X-rays: valid files in both grey scales, and something to learn in them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.dicom import read_frame
from tasks import task
from tasks.pneumonia_xray import TASK
from tasks.task import PhantomHospital, Picture

ALDER = PhantomHospital("alder", patients=4, prevalence=0.5)  # its detector stores MONOCHROME2
BIRCH = replace(ALDER, name="birch")  # and this one MONOCHROME1


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_task_is_found_by_name() -> None:
    assert task.get("pneumonia_xray") is TASK


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


def test_the_same_hospital_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        TASK.draw_phantom(tmp_path / name, BIRCH, 5)
    one, two = (
        {str(p.relative_to(tmp_path / n)): p.read_bytes() for p in (tmp_path / n).rglob("*.*") if p.is_file()}
        for n in ("one", "two")
    )
    assert one == two
    assert len(one) > 4


def test_an_image_of_pneumoniamnist_passes_unchanged() -> None:
    pixels = np.random.default_rng(0).random((28, 28), dtype=np.float32)
    np.testing.assert_allclose(TASK.read_example(Picture(pixels))[0], pixels, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (127, 64), (500, 500)])
def test_any_size_gives_an_example(shape: tuple[int, int]) -> None:
    example = TASK.read_example(Picture(np.random.default_rng(0).random(shape, dtype=np.float32)))
    assert example.shape == TASK.example_shape
    assert example.dtype == np.float32
    assert example.min() >= 0
    assert example.max() <= 1


def test_there_is_something_to_learn_but_not_everything(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, replace(ALDER, patients=300, images_per_patient=(1, 1)), 0)
    rows = _rows(tmp_path)
    paths = [tmp_path / "dicom" / r["PatientID"] / "1.dcm" for r in rows]
    features = np.stack([TASK.read_example(read_frame(path)).ravel() for path in paths])
    labels = np.array([r["label"] == TASK.classes[1] for r in rows])
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(features[:180], labels[:180])
    assert 0.65 < roc_auc_score(labels[180:], reader.decision_function(features[180:])) < 0.98
