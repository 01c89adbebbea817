"""Scans to score: what an ingest would read of a folder is scored without labels, and what it would refuse is told."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.prediction.local_image import Worklist
from client.prediction.model import CheckedModel, open_model
from client.prediction.predict import predict
from client.prediction.worklist import of_folder
from client.site import load
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks import task as tasks
from tasks.task import Task
from tests.client.dicom_files import ROBUSTNESS, needs_robustness_set
from tests.client.prediction.handed_over import provision_scans, write_scan_model

LUNG, BRAIN = tasks.get("lung_ct"), tasks.get("brain_mr")
PATIENTS = {"lung_ct": 3, "brain_mr": 2}
FIRST = "ALDER-0001"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital of each task with a catalog and a model, which tests only read."""
    folder = tmp_path_factory.mktemp("hospitals")
    for task in (LUNG, BRAIN):
        site = provision_scans(folder / task.name, task, "alder", PATIENTS[task.name])
        write_scan_model(folder / task.name / "m.safetensors", task)
        assert CliRunner().invoke(app, ["ingest", "--site", str(site)]).exit_code == 0
    return folder


def _dicom(drawn: Path, task: Task) -> Path:
    return drawn / task.name / task.name / "dicom"


@pytest.fixture
def lung(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_dicom(drawn, LUNG), tmp_path / "lung"))


@pytest.fixture
def brain(drawn: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_dicom(drawn, BRAIN), tmp_path / "brain"))


def _model(drawn: Path, task: Task) -> CheckedModel:
    path = drawn / task.name / "m.safetensors"
    return open_model(path, write_scan_model(path, task))


def _predict(drawn: Path, task: Task, out: Path, *more: object) -> Result:
    home = drawn / task.name
    words = ["predict", home / "m.safetensors", "--sha256", write_scan_model(home / "same", task), "--out", out]
    return CliRunner().invoke(app, [str(word) for word in (*words, "--site", home / "site.yaml", "--json", *more)])


def _facts(result: Result) -> Any:
    assert result.exit_code == 0, result.output + str(result.exception)
    return json.loads(result.stdout)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        file.readline()
        return list(csv.DictReader(file))


def _listed(drawn: Path, task: Task, folder: Path) -> Worklist:
    return of_folder(load(drawn / task.name / "site.yaml"), task, folder, "", lambda *told: None)


def _reasons(work: Worklist) -> dict[str, int]:
    return dict(Counter(one.reason for one in work.left_out))


def _change(folder: Path, patient: str, chosen: Callable[[Dataset], bool], change: Callable[[Dataset], Any]) -> int:
    """Change the patient's files that are chosen; one for which the change says False is deleted."""
    changed = 0
    for path in sorted((folder / patient).glob("*.dcm")):
        dataset = dcmread(path)
        if not chosen(dataset):
            continue
        changed += 1
        if change(dataset) is False:
            path.unlink()
        else:
            dataset.save_as(path)
    return changed


def _is_segmentation(dataset: Dataset) -> bool:
    return bool(dataset.Modality == "SEG")


def _is_image(dataset: Dataset) -> bool:
    return not _is_segmentation(dataset)


def _is(sequence: str) -> Callable[[Dataset], bool]:
    def chosen(dataset: Dataset) -> bool:
        told = str(dataset.get("SeriesDescription", ""))
        return _is_image(dataset) and next(s.name for s in BRAIN.sequences if s.finds(told)) == sequence

    return chosen


def _nth(number: int, chosen: Callable[[Dataset], bool]) -> Callable[[Dataset], bool]:
    seen = [0]

    def nth(dataset: Dataset) -> bool:
        seen[0] += chosen(dataset)
        return chosen(dataset) and seen[0] == number

    return nth


def _delete(dataset: Dataset) -> bool:
    return False


@pytest.mark.parametrize("task", [LUNG, BRAIN], ids=lambda task: str(task.name))
def test_catalog_and_files_give_the_probabilities_of_what_an_ingest_reads(
    drawn: Path, tmp_path: Path, task: Task
) -> None:
    of_catalog = _facts(_predict(drawn, task, tmp_path / "a"))
    of_files = _facts(_predict(drawn, task, tmp_path / "b", "--path", _dicom(drawn, task)))
    assert of_catalog["left_out"] == of_files["left_out"] == {}
    assert len(of_catalog["patients"]) == of_catalog["reports"] == PATIENTS[task.name]
    source = FolderSource(
        kind="folder",
        task=task.name,
        issuer="alder",
        path=_dicom(drawn, task),
        labels=_dicom(drawn, task).parent / "labels.csv",
    )
    opened, expected = _model(drawn, task), {}
    for record in list_folder(source, task, frozenset()).records:
        assert record.read_scan is not None
        example = task.read_example(record.read_scan(None))
        expected[record.image_id] = float(torch.sigmoid(opened.network.logits(torch.from_numpy(example[None]))).item())
    assert len(set(expected.values())) == PATIENTS[task.name], "the model tells them apart"
    for out in ("a", "b"):
        rows = _rows(tmp_path / out)
        found = {row["StudyInstanceUID"]: float(row["probability of the image"]) for row in rows}
        assert found == pytest.approx(expected, abs=2e-6)
    assert {row["training side"] for row in _rows(tmp_path / "a")} <= {"", "yes"}


def test_the_page_shows_the_middle_slices_and_what_is_missing(drawn: Path, brain: Path, tmp_path: Path) -> None:
    _change(brain, FIRST, _is("T2"), _delete)
    _facts(_predict(drawn, BRAIN, tmp_path / "out", "--path", brain))
    page = (tmp_path / "out" / "triage.html").read_text("utf-8")
    assert "the middle slice of T1ce, FLAIR, T2, T1, row by row" in page
    assert page.count("<img class=large ") == 2
    without = {row["PatientID"]: row["read without"].split() for row in _rows(tmp_path / "out")}
    assert "T2" in without[FIRST]
    assert "T2" not in without["ALDER-0002"]
    assert f"read without {', '.join(without[FIRST])}" in page


def test_a_mark_is_an_input_and_without_it_a_nodule_is_not_scored(drawn: Path, lung: Path, tmp_path: Path) -> None:
    def move(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            position[0] = float(position[0]) + 5

    assert _change(lung, FIRST, _is_segmentation, _delete) == 1
    assert _change(lung, "ALDER-0002", _is_segmentation, move) == 1
    facts = _facts(_predict(drawn, LUNG, tmp_path / "out", "--path", lung))
    assert facts["left_out"] == {"NO_OUTLINE": 2, "SEGMENTATION_OFF_GRID": 1}
    assert [patient["patient"] for patient in facts["patients"]] == ["ALDER-0003"]
    told = {(row["PatientID"], row["not scored because"]) for row in _rows(tmp_path / "out")}
    assert told == {
        (FIRST, "NO_OUTLINE"),
        ("ALDER-0002", "NO_OUTLINE"),
        ("ALDER-0002", "SEGMENTATION_OFF_GRID"),
        ("ALDER-0003", ""),
    }
    assert "NO_OUTLINE" in (tmp_path / "out" / "triage.html").read_text("utf-8")


def test_a_catalog_whose_files_have_changed_is_told_scan_by_scan(tmp_path: Path) -> None:
    """One slice of one patient, the outline of another, a third whose label is gone."""
    site = provision_scans(tmp_path / "lung_ct", LUNG, "alder", 4)
    write_scan_model(tmp_path / "lung_ct" / "m.safetensors", LUNG)
    labels = tmp_path / "lung_ct" / "lung_ct" / "labels.csv"
    labels.write_text("".join(labels.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    assert CliRunner().invoke(app, ["ingest", "--site", str(site)]).exit_code == 0
    folder = _dicom(tmp_path, LUNG)
    _change(folder, FIRST, _nth(7, _is_image), lambda d: setattr(d, "PatientComments", "seen again"))
    _change(folder, "ALDER-0002", _is_segmentation, lambda d: setattr(d, "PatientComments", "seen again"))
    facts = _facts(_predict(tmp_path, LUNG, tmp_path / "out"))
    assert facts["left_out"] == {"CHANGED_SINCE_INGEST": 2, "NOT_IN_CATALOG": 1}
    assert len(facts["patients"]) == 1


def test_a_hole_costs_the_first_series_the_scan_and_another_itself(drawn: Path, brain: Path) -> None:
    _change(brain, FIRST, _nth(5, _is("T1ce")), _delete)
    _change(brain, "ALDER-0002", _nth(5, _is("T2")), _delete)
    work = _listed(drawn, BRAIN, brain)
    assert _reasons(work) == {"SLICES_MISSING": 1, "SERIES_SLICES_MISSING": 1}
    (image,) = work.images
    assert image.patient == "ALDER-0002"
    assert "T2" in image.without
    assert image.scan is not None
    assert set(image.scan.stacks) == {s.name for s in BRAIN.sequences} - set(image.without)


def test_who_cannot_be_named_or_breaks_the_contract_is_left_out(drawn: Path, lung: Path, tmp_path: Path) -> None:
    third = "ALDER-0003"
    _change(lung, FIRST, lambda d: True, lambda d: setattr(d, "PatientID", ""))
    _change(lung, "ALDER-0002", _nth(3, _is_image), lambda d: setattr(d, "PatientID", "SOMEBODY-ELSE"))
    _change(lung, third, _nth(3, _is_image), lambda d: setattr(d, "LossyImageCompression", "01"))
    (lung / "note.txt").write_text("no image at all")
    work = _listed(drawn, LUNG, lung)
    assert work.images == []
    assert _reasons(work) == {"NO_PATIENT_ID": 1, "STUDY_OF_SEVERAL_PATIENTS": 1, "no-lossy-history": 1}
    _change(lung, third, lambda d: True, lambda d: setattr(d, "StudyInstanceUID", ""))
    assert _reasons(_listed(drawn, LUNG, lung))["NO_UID"] == 1
    _change(lung, third, _is_image, lambda d: setattr(d, "Modality", "PT"))
    _change(lung, third, lambda d: True, lambda d: setattr(d, "StudyInstanceUID", "1.2.3"))
    assert _reasons(_listed(drawn, LUNG, lung))["NO_SERIES_OF_CT"] == 1


def test_who_has_withdrawn_is_neither_scored_nor_named(tmp_path: Path) -> None:
    (tmp_path / "unwilling.txt").write_text(f"{FIRST}\n")
    site = provision_scans(tmp_path / "lung_ct", LUNG, "alder", 2)
    site.write_text(f"{site.read_text('utf-8')}withdrawals: {tmp_path / 'unwilling.txt'}\n", "utf-8")
    work = _listed(tmp_path, LUNG, _dicom(tmp_path, LUNG))
    assert [image.patient for image in work.images] == ["ALDER-0002"]
    assert [(one.patient, one.reason) for one in work.left_out] == [("", "WITHDRAWN")]


def test_who_has_withdrawn_is_not_scored_under_a_new_number(tmp_path: Path) -> None:
    (tmp_path / "unwilling.txt").write_text(f"{FIRST}\n")
    site = provision_scans(tmp_path / "lung_ct", LUNG, "alder", 2)
    site.write_text(f"{site.read_text('utf-8')}withdrawals: {tmp_path / 'unwilling.txt'}\n", "utf-8")
    assert CliRunner().invoke(app, ["ingest", "--site", str(site)]).exit_code == 0
    _change(_dicom(tmp_path, LUNG), FIRST, lambda d: True, lambda d: setattr(d, "PatientID", "NEW-9"))
    work = _listed(tmp_path, LUNG, _dicom(tmp_path, LUNG))
    assert [image.patient for image in work.images] == ["ALDER-0002"]
    assert [(one.patient, one.reason) for one in work.left_out] == [("", "WITHDRAWN")]


def test_a_slice_or_an_outline_that_cannot_be_decoded_costs_the_scan(drawn: Path, lung: Path) -> None:
    for patient, chosen in ((FIRST, _nth(4, _is_image)), ("ALDER-0002", _is_segmentation)):
        (path,) = [path for path in sorted((lung / patient).glob("*.dcm")) if chosen(dcmread(path))]
        path.write_bytes(path.read_bytes()[:-2000])
    found = predict(_model(drawn, LUNG), _listed(drawn, LUNG, lung), lambda *told: None)
    assert {one.patient: one.reason for one in found.left_out} == {
        FIRST: "TRUNCATED",
        "ALDER-0002": "SEGMENTATION_UNREADABLE",
    }
    assert [patient.patient for patient in found.patients] == ["ALDER-0003"]


def test_scans_are_scored_a_few_at_a_time_and_each_by_itself(drawn: Path) -> None:
    """More than go through the network at once."""
    work = _listed(drawn, LUNG, _dicom(drawn, LUNG))
    opened = _model(drawn, LUNG)
    found = predict(opened, Worklist(work.images * 2), lambda *told: None)
    assert found.images == 6
    for patient in found.patients:
        first, second = (scored.score for scored in patient.images)
        np.testing.assert_allclose(first, second, atol=1e-6)


@needs_robustness_set
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [LUNG, BRAIN], ids=lambda task: str(task.name))
def test_files_of_any_kind_are_left_out_by_a_reason(drawn: Path, task: Task) -> None:
    """The real set: old, broken and hostile files, none of which is a chest CT or a brain MR of a glioma."""
    work = _listed(drawn, task, ROBUSTNESS)
    assert len(work.left_out) > 50, "examinations, not files"
    assert all(one.reason for one in work.left_out)
    found = predict(_model(drawn, task), work, lambda *told: None)
    assert found.patients == []
