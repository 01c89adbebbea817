"""Real series of scanners through everything a hospital does: init, ingest, check, describe, baseline, a study of two
hospitals, and predict. Labels and outlines are the test's own; the pixels' noise is what makes a patient of a copy.

The series lie in ``real_series`` of the folder that CONSILIUM_DATA names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from safetensors.numpy import save_file
from typer.testing import CliRunner

from client.cli.main import app
from client.reading.dicom import read_header
from client.reading.slices import slices_of
from client.reading.stack import Unstackable
from client.reading.stacks import arrange
from server.results import export
from server.study.document import document_of
from tasks import task as tasks
from tasks.phantoms.dicom_writer import write
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.protocol.study import canonical
from tasks.task import PhantomHospital, Task
from tests.federation.embedded import configure, play

SERIES = Path(os.environ.get("CONSILIUM_DATA", "")) / "real_series"
pytestmark = pytest.mark.skipif(
    not (SERIES / "LICENSE").is_file(), reason="no real_series under the folder that CONSILIUM_DATA names"
)
PATIENTS = 10
BALL = 12.0
"""Radius of what is outlined, in millimetres."""


def _renamed(dataset: Dataset, patient: str, **changes: Any) -> Dataset:
    """As one of a patient's own, by UIDs that follow from the patient's name."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=[patient, str(dataset.get(keyword))]))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = patient
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    return dataset


def _noised(dataset: Dataset, seed: Sequence[int], lesion: NDArray[np.bool_], brighter: int) -> Dataset:
    """Noise and, where the lesion is, something brighter; stored values stay within their bits."""
    stored = dataset.pixel_array.astype(np.int64)
    shift = np.random.default_rng(seed).integers(-12, 13, stored.shape)
    shift[lesion] += brighter
    low = -(1 << (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    high = low + (1 << dataset.BitsStored) - 1
    dataset.PixelData = (stored + shift).clip(low, high).astype(dataset.pixel_array.dtype).tobytes()
    return dataset


def _ball(place: NDArray[np.float64], shape: tuple[int, int], spacing: Sequence[float]) -> NDArray[np.bool_]:
    """A slice of a ball; ``place`` from its middle to the first pixel, in millimetres."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    across = (place[0] + columns * spacing[1]) ** 2 + (place[1] + rows * spacing[0]) ** 2
    return np.asarray(across + place[2] ** 2 <= BALL**2)


def _ct_patient(folder: Path, patient: str, seed: int, positive: bool) -> str:
    """The Philips head CT as if of a chest: what matters is that it is a CT of a scanner."""
    files = [dcmread(path) for path in sorted(SERIES.glob("philips_ct_tilted/I*"))]
    files = sorted(files, key=lambda one: float(one.ImagePositionPatient[2]))[6:20]
    middle = np.add([float(v) for v in files[7].ImagePositionPatient], [115.0, 115.0, 0.0])
    outlined = []
    for number, one in enumerate(files):
        place = np.array([float(v) for v in one.ImagePositionPatient]) - middle
        mask = _ball(place, (one.Rows, one.Columns), one.PixelSpacing)
        _noised(_renamed(one, patient, BodyPartExamined="CHEST", SliceThickness="2.5"), [seed, number], mask, 90)
        if not positive:
            one.PixelData = dcmread(one.filename).PixelData
            _noised(one, [seed, number], mask & False, 0)
        one.save_as(folder / f"{number}.dcm")
        outlined.append(OutlinedImage(_attributes(one), mask[None]))
    write(folder / "seg.dcm", segmentation_of(outlined, tasks.get("lung_ct").structures))
    return str(files[0].StudyInstanceUID)


def _attributes(one: Dataset) -> dict[str, Any]:
    """What a segmentation needs to know of its image."""
    wanted = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID", "Rows", "Columns")
    in_space = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
    known = {keyword: one.get(keyword) for keyword in (*wanted, *in_space, "FrameOfReferenceUID", "InstanceNumber")}
    return known | {"StudyDate": "20200101", "StudyTime": "120000", "Manufacturer": "Test"}


def _mr_patient(folder: Path, patient: str, seed: int, positive: bool) -> str:
    """The enhanced T1 of a Siemens XA30 as if after contrast agent."""
    one = dcmread(SERIES / "siemens_xa30_enhanced_t1" / "t1.dcm")
    lesion = np.zeros((int(one.NumberOfFrames), one.Rows, one.Columns), np.bool_)
    lesion[44:52, 44:56, 44:56] = positive
    _noised(_renamed(one, patient, SeriesDescription="T1 MPRAGE +C"), [seed], lesion, 120)
    one.save_as(folder / "t1.dcm")
    return str(one.StudyInstanceUID)


def _draw(
    patient_of: Callable[[Path, str, int, bool], str], folder: Path, hospital: PhantomHospital, seed: int
) -> None:
    """As a task's phantom does: ``dicom`` and ``labels.csv``."""
    rows = ["StudyInstanceUID,label"]
    for number in range(hospital.patients):
        patient, positive = f"{hospital.name.upper()}-{number:03}", number % 2 == 0
        (folder / "dicom" / patient).mkdir(parents=True)
        study = patient_of(folder / "dicom" / patient, patient, seed * 1000 + number, positive)
        rows.append(f"{study},{int(positive)}")
    (folder / "labels.csv").write_text("\n".join([*rows, ""]), "utf-8")


def _run(site: Path, *words: object, code: int | None = 0) -> Any:
    command, *more = map(str, words)
    result = CliRunner().invoke(app, [command, "--site", str(site), *more, "--json"])
    assert code is None or result.exit_code == code, result.output
    return json.loads(result.stdout)


def _hospital(folder: Path, task: Task) -> Path:
    site = folder / "site.yaml"
    assert CliRunner().invoke(app, ["init", "--site", str(site), "--name", "alder"]).exit_code == 0
    values = yaml.safe_load(site.read_text("utf-8"))
    source = {"kind": "folder", "task": task.name, "issuer": "alder", "path": str(folder / "dicom")}
    policy = values["policy"] | {"tasks": [task.name], "min_patients": 4}
    values |= {"sources": [source | {"labels": str(folder / "labels.csv")}], "policy": policy, "public_size": 8}
    site.write_text(yaml.safe_dump(values), "utf-8")
    return site


@pytest.mark.parametrize(("name", "patient_of"), [("brain_mr", _mr_patient), ("lung_ct", _ct_patient)])
def test_a_real_series_goes_through_everything(
    name: str, patient_of: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tasks.get(name)
    _draw(patient_of, tmp_path / "alone", PhantomHospital("alder", PATIENTS), 1)
    site = _hospital(tmp_path / "alone", task)
    told = _run(site, "ingest")[name]
    assert told["images"] == PATIENTS
    assert [word for word in told["left_out"] if not word.startswith("NOTE:")] == []
    assert told["outlined"] == (PATIENTS if name == "lung_ct" else 0)
    rungs = {rung["name"]: rung["state"] for rung in _run(site, "check", code=None)[name]}
    assert (rungs["data readable"], rungs["contract"], rungs["labels joined"]) == ("ok", "ok", "ok")
    assert _run(site, "describe")[0]["images"]
    alone = _run(site, "baseline", "--rounds", 2)[name]
    assert alone["trained_on"] + alone["scored"] == PATIENTS

    def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
        _draw(patient_of, folder, hospital, seed)

    monkeypatch.setattr(f"tasks.phantoms.{name}.phantom.draw", draw)
    hospitals = [f"federation.hospitals.{one}={{patients: {PATIENTS}, prevalence: 0.5}}" for one in ("alder", "birch")]
    model = ["model=scatter_linear_3d_16", "model.L=3", "model.pool=2", "model.resolution=16", "model.J=2"]
    study = [f"task={name}", *model, *hospitals, "~federation.hospitals.cedar", "evaluation.arms=[]"]
    study += ["evaluation.bins=32"]
    ended = play(tmp_path / "study", f"real-{name}", *study)
    assert ended.results.dropped == {}
    document = document_of(configure(tmp_path / "study", f"real-{name}", study), "real", ended.sizes())
    (tmp_path / "study.json").write_text(canonical(document))
    save_file(dict(ended.state().weights), tmp_path / "weights.safetensors")
    compared = _run(site, "compare", tmp_path / "study.json", tmp_path / "weights.safetensors")
    assert compared["trained_on"] == alone["trained_on"]

    head, digest = export.export(str(ended.folder), "", tmp_path / "model.safetensors")
    assert head.task == name
    for words in ((), ("--path", tmp_path / "alone" / "dicom")):
        out = tmp_path / f"out{len(words)}"
        _run(site, "predict", tmp_path / "model.safetensors", "--sha256", digest, "--out", out, *words)
        assert len(list((out / "reports").glob("*.dcm"))) == PATIENTS


def test_a_real_head_ct_of_two_thicknesses_is_refused_whole() -> None:
    files = sorted((SERIES / "ge_head_ct").glob("*.dcm"))
    (stack,) = arrange(one for path in files for one in slices_of(path, read_header(path)))
    assert len(stack.slices) == 28
    assert stack.refusal is not None
    assert stack.refusal.reason is Unstackable.UNEVEN_SPACING


def test_a_real_enhanced_t1_lies_where_an_independent_converter_puts_it() -> None:
    nibabel = pytest.importorskip("nibabel")
    from client.reading.volume import read_volume

    path = SERIES / "siemens_xa30_enhanced_t1" / "t1.dcm"
    (stack,) = arrange(slices_of(path, read_header(path)))
    volume, reference = read_volume(stack), nibabel.load(path.with_name("reference.nii"))
    corner = np.array([*np.subtract(volume.values.shape, 1), 1.0])
    both = [volume.affine @ [0, 0, 0, 1], volume.affine @ corner]
    theirs = np.linalg.inv(reference.affine) @ (np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.array(both).T)
    np.testing.assert_allclose(theirs, np.rint(theirs), atol=0.01)
    values = np.asarray(reference.dataobj)
    for index, place in zip(([0, 0, 0], corner[:3].astype(int)), np.rint(theirs[:3].T).astype(int), strict=True):
        assert volume.values[tuple(index)] == values[tuple(place)]
    assert volume.values.sum(dtype=np.float64) == values.sum(dtype=np.float64)
