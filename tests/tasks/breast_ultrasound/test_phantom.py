"""Phantom breast ultrasound: valid files, the same every time, with something to learn in them."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from client.dicom import read_frame
from tasks import task
from tasks.breast_ultrasound import TASK
from tasks.task import PhantomHospital

ALDER = PhantomHospital("alder", patients=6, prevalence=0.5)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_task_is_found_by_name() -> None:
    assert task.get("breast_ultrasound") is TASK
    assert "phantoms" not in task.names()


def test_every_file_has_its_row_and_every_patient_one_label(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, ALDER, 0)
    paths = list((tmp_path / "dicom").glob("*/*.dcm"))
    headers = [dcmread(path) for path in paths]
    rows = _rows(tmp_path)
    assert {(h.PatientID, h.SOPInstanceUID) for h in headers} == {(r["PatientID"], r["SOPInstanceUID"]) for r in rows}
    assert len(rows) == len(paths)
    assert {r["label"] for r in rows} <= set(TASK.classes)
    assert len({(r["PatientID"], r["label"]) for r in rows}) == len({r["PatientID"] for r in rows}) == 6
    assert all(path.parent.name == h.PatientID for path, h in zip(paths, headers, strict=True))


def test_headers_say_what_the_standard_asks_for(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, ALDER, 0)
    path = tmp_path / "dicom" / "ALDER-0001" / "1.dcm"
    header = dcmread(path)
    assert header.file_meta.MediaStorageSOPClassUID == header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
    assert header.SOPInstanceUID.is_valid
    assert (header.Modality, header.IssuerOfPatientID, header.PatientIdentityRemoved) == ("US", "alder", "YES")
    assert header.ImageType[:2] == ["ORIGINAL", "PRIMARY"]
    assert header.LossyImageCompression == "00"
    region = header.SequenceOfUltrasoundRegions[0]
    picture = read_frame(path)
    _, _, right, bottom = picture.regions[0]
    assert (right, bottom) == (region.RegionLocationMaxX1 + 1, region.RegionLocationMaxY1 + 1)
    assert picture.spacing_mm == pytest.approx((region.PhysicalDeltaY * 10, region.PhysicalDeltaX * 10))


def test_marks_stand_outside_the_region_only(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, ALDER, 0)
    picture = read_frame(tmp_path / "dicom" / "ALDER-0001" / "1.dcm")
    left, top, right, bottom = picture.regions[0]
    outside = np.ones(picture.pixels.shape, dtype=bool)
    outside[top:bottom, left:right] = False
    assert 0 < (picture.pixels[outside] > 0.5).mean() < 0.2
    assert np.median(picture.pixels[outside]) == 0


def test_the_same_hospital_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for folder, seed in (("one", 3), ("two", 3), ("three", 4)):
        TASK.draw_phantom(tmp_path / folder, ALDER, seed)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")
    names = {r["SOPInstanceUID"] for r in _rows(tmp_path / "one")}
    assert names.isdisjoint(r["SOPInstanceUID"] for r in _rows(tmp_path / "three"))


def test_more_patients_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path / "few", ALDER, 0)
    TASK.draw_phantom(tmp_path / "more", replace(ALDER, patients=8), 0)
    few, more = _files(tmp_path / "few" / "dicom"), _files(tmp_path / "more" / "dicom")
    assert few.items() <= more.items()
    assert len(more) > len(few)


def test_a_complete_folder_is_left_alone_and_an_interrupted_one_redone(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, ALDER, 0)
    whole, path = _files(tmp_path), tmp_path / "dicom" / "ALDER-0001" / "1.dcm"
    drawn = path.stat().st_mtime_ns
    TASK.draw_phantom(tmp_path, ALDER, 0)
    assert path.stat().st_mtime_ns == drawn
    (tmp_path / "labels.csv").unlink()
    path.write_bytes(b"half a file")
    TASK.draw_phantom(tmp_path, ALDER, 0)
    assert _files(tmp_path) == whole
    TASK.draw_phantom(tmp_path, replace(ALDER, patients=2), 0)
    assert {r["PatientID"] for r in _rows(tmp_path)} == {"ALDER-0001", "ALDER-0002"}
    assert len(list((tmp_path / "dicom").iterdir())) == 2


def test_files_of_somebody_else_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "precious.dcm").write_bytes(b"")
    with pytest.raises(FileExistsError):
        TASK.draw_phantom(tmp_path, ALDER, 0)
    assert (tmp_path / "dicom" / "precious.dcm").exists()


def test_there_is_something_to_learn_but_not_everything(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, replace(ALDER, patients=240, images_per_patient=(1, 1)), 0)
    rows = _rows(tmp_path)
    pictures = [read_frame(tmp_path / "dicom" / r["PatientID"] / "1.dcm") for r in rows]
    features = np.stack([_coarse(TASK.read_example(p)[0]) for p in pictures])
    labels = np.array([r["label"] == TASK.classes[1] for r in rows])
    reader = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(features[:140], labels[:140])
    assert 0.65 < roc_auc_score(labels[140:], reader.decision_function(features[140:])) < 0.98


def _coarse(example: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(example.reshape(16, 8, 16, 8).mean(axis=(1, 3)).ravel())
