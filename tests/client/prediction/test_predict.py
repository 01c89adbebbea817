"""``consilium-site predict`` from the outside: who is scored, who is not and why, and what is left behind."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import torch
import yaml
from click.testing import Result
from pydicom import dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.cohort.picture import COLOURS
from client.ledger.audit_log import Kind
from client.ledger.records import open_records
from client.prediction import worklist
from client.prediction.model import CheckedModel
from client.prediction.predict import ScoredImage
from client.prediction.structured_report import report_of
from client.reading.dicom import read_frame
from client.reading.segments import is_segmentation
from client.site import load, secret
from client.sources.labels.reports import labels_of_reports
from client.sources.settings import ReportLabels
from tasks import task as tasks
from tasks.models import registry
from tasks.task import PhantomHospital
from tests.client.prediction.handed_over import (
    OUTLINE_SPEC,
    SPEC,
    TASK,
    head,
    model,
    provision_hospital,
    weights,
    write_model,
)
from tests.drawn import draw


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with a catalog and a model, which tests only read; the audit log grows."""
    folder = tmp_path_factory.mktemp("hospital")
    provision_hospital(folder)
    write_model(folder / "m.safetensors")
    assert CliRunner().invoke(app, ["ingest", "--site", str(folder / "site.yaml")]).exit_code == 0
    return folder


def _predict(hospital: Path, out: Path, *more: object, digest: str = "") -> Result:
    path = hospital / "m.safetensors"
    typed = digest or write_model(hospital / "same.bin")
    words = ["predict", path, "--sha256", typed, "--out", out, "--site", hospital / "site.yaml", *more]
    return CliRunner().invoke(app, [str(word) for word in words])


def _facts(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output + str(result.exception)
    return json.loads(result.stdout)


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "scores.csv").open(newline="", encoding="utf-8") as file:
        assert "NOT FOR CLINICAL USE" in file.readline()
        return list(csv.DictReader(file))


def _events(hospital: Path) -> list[Any]:
    settings = load(hospital / "site.yaml")
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        assert records.verify() == []
        assert list(records.ledger.entries()) == [], "nothing is charged"
        assert records.audit_log.receipts() == [], "nothing leaves"
        return records.audit_log.events(Kind.PREDICTION)


def _copy(hospital: Path, to: Path) -> list[Path]:
    """Copies of the hospital's images, without the outlines beside them."""
    to.mkdir()
    for path in sorted((hospital / "dicom").rglob("*.dcm")):
        if not is_segmentation(dcmread(path, stop_before_pixels=True)):
            (to / f"{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    return sorted(to.iterdir())


def test_the_catalog_and_its_files_give_the_same_probabilities(hospital: Path, tmp_path: Path) -> None:
    of_catalog = _facts(_predict(hospital, tmp_path / "a", "--json"))
    of_folder = _facts(_predict(hospital, tmp_path / "b", "--json", "--path", hospital / "dicom"))
    assert of_catalog["patients"] == of_folder["patients"]
    assert len(of_catalog["patients"]) == 6
    told = [patient["probability"] for patient in of_catalog["patients"]]
    assert told == sorted(told, reverse=True)
    opened = model(tmp_path)
    for row in _rows(tmp_path / "a"):
        example = TASK.read_example(read_frame(Path(row["file"]), int(row["frame"]) - 1))
        alone = float(torch.sigmoid(opened.network.logits(torch.from_numpy(example[None]))).item())
        assert float(row["probability of the image"]) == pytest.approx(alone, abs=1e-5)
    for patient in of_catalog["patients"]:
        mine = [row for row in _rows(tmp_path / "a") if row["PatientID"] == patient["patient"]]
        images = [float(row["probability of the image"]) for row in mine]
        assert patient["probability"] == pytest.approx(np.mean(images), abs=1e-5)
        assert {row["at or above threshold"] for row in mine} == {"yes" if np.mean(images) >= 0.43 else "no"}


def test_what_a_model_outlines_is_drawn_and_measured(hospital: Path, tmp_path: Path) -> None:
    outlining = {"arrays": weights(spec=OUTLINE_SPEC), "spec": OUTLINE_SPEC}
    digest = write_model(tmp_path / "outlining.safetensors", **outlining)
    words = ["predict", tmp_path / "outlining.safetensors", "--sha256", digest, "--out", tmp_path / "out"]
    told = CliRunner().invoke(app, [str(word) for word in (*words, "--site", hospital / "site.yaml")])
    assert told.exit_code == 0, told.output
    network = model(tmp_path, **outlining).network
    rows = _rows(tmp_path / "out")
    for row in rows:
        example = TASK.read_example(read_frame(Path(row["file"]), int(row["frame"]) - 1))
        marked = network.outputs(torch.from_numpy(example[None]))[0, TASK.form.outputs :] > 0
        expected = pytest.approx(100 * float(marked.float().mean()), abs=0.05)
        assert float(row["lesion, percent of the image"]) == expected
    assert len({row["lesion, percent of the image"] for row in rows}) > 1
    page = (tmp_path / "out" / "triage.html").read_text("utf-8")
    assert f"<span class=legend><i style='background:{COLOURS[0]}'></i>lesion</span>" in page
    assert page.count("<img class=large ") == len(rows)


def test_what_is_written_is_for_its_owner_alone(hospital: Path, tmp_path: Path) -> None:
    facts = _facts(_predict(hospital, tmp_path / "out", "--json"))
    assert facts["reports"] == len(list((tmp_path / "out" / "reports").glob("*.dcm"))) == 6
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"reports", "triage.html", "scores.csv"}
    for path in ((tmp_path / "out"), *(tmp_path / "out").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    again = _predict(hospital, tmp_path / "out")
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_the_audit_log_notes_counts_and_the_digest_and_nobody(hospital: Path, tmp_path: Path) -> None:
    before = len(_events(hospital))
    _predict(hospital, tmp_path / "out")
    events = _events(hospital)
    assert len(events) == before + 1
    facts = dict(events[-1].facts)
    assert facts["model"] == write_model(tmp_path / "m")
    assert (facts["patients"], facts["reports"], facts["left_out"], facts["stored"]) == (6, 6, 0, 0)
    assert "ALDER" not in json.dumps(facts)
    assert not re.search(r"\d\.\d+\.\d", json.dumps(facts))


def test_patients_of_the_training_side_are_told(hospital: Path, tmp_path: Path) -> None:
    result = _predict(hospital, tmp_path / "out", "--path", hospital / "dicom")
    rows = _rows(tmp_path / "out")
    trained = {row["PatientID"] for row in rows if row["training side"] == "yes"}
    assert 0 < len(trained) < 6
    shown = " ".join(result.stdout.split())
    assert f"{len(trained)} of 6 patients are on the training side" in shown
    assert shown.startswith("NOT FOR CLINICAL USE")


def test_who_is_not_scored_is_listed_with_the_reason(hospital: Path, tmp_path: Path) -> None:
    files = _copy(hospital, tmp_path / "dicom")
    changes = {"LossyImageCompression": "01", "PatientID": None, "BodyPartExamined": "CHEST", "PixelData": b"\0" * 8}
    for path, (keyword, value) in zip(files, changes.items(), strict=False):
        dataset = dcmread(path)
        setattr(dataset, keyword, value)
        dataset.save_as(path)
    (tmp_path / "dicom" / "twin.dcm").write_bytes(files[-1].read_bytes())
    (tmp_path / "dicom" / "note.txt").write_text("no image at all")
    facts = _facts(_predict(hospital, tmp_path / "out", "--json", "--path", tmp_path / "dicom"))
    assert facts["left_out"] == dict.fromkeys(
        ["no-lossy-history", "NO_PATIENT_ID", "organ", "TRUNCATED", "DUPLICATE_INSTANCE"], 1
    )
    rows = [row for row in _rows(tmp_path / "out") if row["not scored because"]]
    assert len(rows) == 5
    assert all(row["probability of the image"] == "" for row in rows)
    page = (tmp_path / "out" / "triage.html").read_text("utf-8")
    assert all(reason in page for reason in facts["left_out"])


def test_an_organ_is_declared_for_one_folder_at_a_time(hospital: Path, tmp_path: Path) -> None:
    for path in _copy(hospital, tmp_path / "dicom"):
        dataset = dcmread(path)
        dataset.BodyPartExamined = ""
        dataset.save_as(path)
    words = ("--json", "--path", tmp_path / "dicom")
    assert _facts(_predict(hospital, tmp_path / "a", *words))["left_out"].keys() == {"organ"}
    assert _facts(_predict(hospital, tmp_path / "b", *words, "--organ", "breast"))["left_out"] == {}


def test_a_file_that_has_changed_since_its_ingest_is_not_scored(tmp_path: Path) -> None:
    provision_hospital(tmp_path, patients=3)
    site = ["--site", str(tmp_path / "site.yaml")]
    write_model(tmp_path / "m.safetensors")
    early = _predict(tmp_path, tmp_path / "early")
    assert early.exit_code == 1
    assert "consilium-site ingest" in " ".join(early.stderr.split())
    assert CliRunner().invoke(app, ["ingest", *site]).exit_code == 0
    files = sorted((tmp_path / "dicom").rglob("*.dcm"))
    dataset = dcmread(files[0])
    dataset.ImageComments = "changed"
    dataset.save_as(files[0])
    dataset.SOPInstanceUID = "2.25.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    dataset.save_as(files[0].with_name("new.dcm"))
    facts = _facts(_predict(tmp_path, tmp_path / "out", "--json"))
    assert facts["left_out"] == {"CHANGED_SINCE_INGEST": 1, "NOT_IN_CATALOG": 1}


def test_who_has_withdrawn_is_not_scored(tmp_path: Path) -> None:
    (tmp_path / "unwilling.txt").write_text("ALDER-0001\n")
    provision_hospital(tmp_path, patients=3, withdrawals=str(tmp_path / "unwilling.txt"))
    write_model(tmp_path / "m.safetensors")
    facts = _facts(_predict(tmp_path, tmp_path / "out", "--json", "--path", tmp_path / "dicom"))
    assert {patient["patient"] for patient in facts["patients"]} == {"ALDER-0002", "ALDER-0003"}
    assert facts["left_out"].keys() == {"WITHDRAWN"}
    for name in ("triage.html", "scores.csv"):
        assert "ALDER-0001," not in (tmp_path / "out" / name).read_text("utf-8")


def test_who_has_withdrawn_is_not_scored_under_a_new_number(tmp_path: Path) -> None:
    """The files come back from elsewhere, some corrected; one is a new image in an examination that is known."""
    (tmp_path / "unwilling.txt").write_text("ALDER-0001\n")
    site = str(provision_hospital(tmp_path, patients=3, withdrawals=str(tmp_path / "unwilling.txt")))
    assert CliRunner().invoke(app, ["ingest", "--site", site]).exit_code == 0
    other = tmp_path / "corrected"
    other.mkdir()
    for number, path in enumerate(sorted((tmp_path / "dicom").rglob("*.dcm"))):
        dataset = dcmread(path)
        if dataset.PatientID == "ALDER-0001":
            dataset.PatientID = "NEW-9"
            if number % 2:
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number}"
        dataset.save_as(other / f"{number}.dcm", enforce_file_format=True)
    write_model(tmp_path / "m.safetensors")
    facts = _facts(_predict(tmp_path, tmp_path / "out", "--json", "--path", other))
    assert {patient["patient"] for patient in facts["patients"]} == {"ALDER-0002", "ALDER-0003"}
    assert facts["left_out"].keys() == {"WITHDRAWN"}


def test_the_kill_switch_stops_what_is_sent_and_not_what_stays(hospital: Path, tmp_path: Path) -> None:
    stop = ["stop", "--reason", "drill", "--site", str(hospital / "site.yaml")]
    assert CliRunner().invoke(app, stop).exit_code == 0
    try:
        assert _predict(hospital, tmp_path / "a").exit_code == 0
        sent = _predict(hospital, tmp_path / "b", "--store-to", "PACS@127.0.0.1:1")
        assert sent.exit_code == 1
        assert "Stopped" in sent.stderr
        assert len(list((tmp_path / "b" / "reports").iterdir())) == 6
    finally:
        CliRunner().invoke(app, ["resume", "--site", str(hospital / "site.yaml")])


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--path", "/nowhere"], 2, "there is no such folder"),
        (["--store"], 2, "0 sources of breast_ultrasound are archives"),
        (["--store-to", "PACS"], 2, "AET@host:port"),
        (["--store-to", "PACS@host:99999"], 2, "AET@host:port"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    hospital: Path, tmp_path: Path, words: list[str], code: int, why: str
) -> None:
    result = _predict(hospital, tmp_path / "out", *words)
    assert result.exit_code == code
    assert why in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists() or words[0] == "--path"


def test_a_folder_without_images_is_an_error(hospital: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = _predict(hospital, tmp_path / "out", "--path", tmp_path / "empty")
    assert result.exit_code == 2
    assert "no DICOM file" in result.stderr
    again = _predict(hospital, tmp_path / "out", "--path", hospital / "dicom")
    assert again.exit_code == 0, "a failure leaves a folder that can be used"


def test_sources_without_headers_are_named(tmp_path: Path) -> None:
    file = provision_hospital(tmp_path, patients=2)
    values = yaml.safe_load(file.read_text("utf-8"))
    manifest = {"kind": "manifest", "task": TASK.name, "issuer": "x", "path": str(tmp_path)}
    file.write_text(yaml.safe_dump(values | {"sources": [manifest]}), "utf-8")
    write_model(tmp_path / "m.safetensors")
    result = _predict(tmp_path, tmp_path / "out")
    assert result.exit_code == 2
    assert "it has: manifest" in " ".join(result.stderr.split())


def test_no_model_learns_from_these_reports(hospital: Path, tmp_path: Path) -> None:
    _predict(hospital, tmp_path / "out")
    source = ReportLabels(
        kind="sr", path=tmp_path, concept="finding", positive=["SCT:86049000"], negative=["SCT:3898006"]
    )
    left_out: Counter[str] = Counter()
    reports = sorted((tmp_path / "out" / "reports").iterdir())
    assert list(labels_of_reports(source, reports, left_out)) == []
    assert left_out == {"REPORT_OF_CONSILIUM": 6}


def test_frames_of_a_clip_are_images_of_one_patient(tmp_path: Path) -> None:
    """The catalog's files and any folder's give the same, and the report names each frame."""
    file = provision_hospital(tmp_path, patients=1)
    lung = tasks.get("lung_ultrasound")
    draw(lung, tmp_path / "lung", PhantomHospital("alder", 3, prevalence=0.5, images_per_patient=(2, 2)), 5)
    values = yaml.safe_load(file.read_text("utf-8"))
    source = {"kind": "folder", "task": lung.name, "issuer": "alder", "path": str(tmp_path / "lung" / "dicom")}
    source |= {"labels": str(tmp_path / "lung" / "labels.csv")}
    policy = values["policy"] | {"tasks": [lung.name]}
    file.write_text(yaml.safe_dump(values | {"sources": [source], "policy": policy}), "utf-8")
    assert CliRunner().invoke(app, ["ingest", "--site", str(file)]).exit_code == 0
    of_catalog = worklist.of_catalog(load(file), lung, lambda *told: None)
    assert of_catalog.left_out == []
    of_folder = worklist.of_folder(load(file), lung, tmp_path / "lung" / "dicom", "", lambda *told: None)
    frames = {(image.uid, image.frame) for image in of_catalog.images}
    assert frames == {(image.uid, image.frame) for image in of_folder.images}
    assert all(image.example is not None and image.example.is_file() for image in of_catalog.images)
    clip = next(image for image in of_folder.images if image.frames > 1)
    mine = [image for image in of_folder.images if image.uid == clip.uid]
    assert len(mine) == lung.frames_per_clip > 1
    network = registry.build(SPEC, lung.form)
    opened = CheckedModel(head(task=lung.name), "a" * 64, lung, network)
    report = report_of(opened, [ScoredImage(image, 0.5, b"") for image in mine], b"k" * 32)
    (evidence,) = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert [item.ReferencedSOPInstanceUID for item in evidence.ReferencedSOPSequence] == [clip.uid]
    report.save_as(tmp_path / "sr.dcm", enforce_file_format=True)
    groups = hd.sr.srread(tmp_path / "sr.dcm").content.get_image_measurement_groups()
    named = [groups[n].source_images[0].ReferencedSOPSequence[0].ReferencedFrameNumber for n in range(len(mine))]
    assert named == [image.frame + 1 for image in mine]
    assert len(groups[-1].source_images) == 1


def test_outlines_that_lie_beside_the_images_are_no_images(tmp_path: Path) -> None:
    file = provision_hospital(tmp_path, patients=1)
    breast = tasks.get("breast_ultrasound")
    draw(breast, tmp_path / "drawn", PhantomHospital("alder", 2, prevalence=0.5), 5)
    work = worklist.of_folder(load(file), breast, tmp_path / "drawn" / "dicom", "", lambda *told: None)
    rows = (tmp_path / "drawn" / "labels.csv").read_text("utf-8").splitlines()[1:]
    assert len(work.images) == len(rows)
    assert work.left_out == []


@pytest.mark.parametrize(("lang", "told"), [("de", "Nicht für den klinischen Gebrauch"), ("zh", "不得用于临床")])
def test_the_list_speaks_the_hospitals_language_and_objects_english(
    hospital: Path, tmp_path: Path, lang: str, told: str
) -> None:
    settings = hospital / "site.yaml"
    before = settings.read_text("utf-8")
    settings.write_text(f"{before}\nlang: {lang}\n", "utf-8")
    try:
        result = _predict(hospital, tmp_path / "out")
    finally:
        settings.write_text(before, "utf-8")
    assert result.exit_code == 0
    page = (tmp_path / "out" / "triage.html").read_text("utf-8")
    visible = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    assert told in visible
    assert re.findall(r"\b(?:the|of|is|which|study)\b", visible) == []
    assert not re.search(r"\b(?:patients|hospital)\b", result.stdout)
    assert (tmp_path / "out" / "scores.csv").read_text("utf-8").startswith("NOT FOR CLINICAL USE")
    report = dcmread(next((tmp_path / "out" / "reports").iterdir()))
    texts = " ".join(str(e.value) for e in report.iterall() if e.keyword in {"TextValue", "CodeMeaning"})
    assert "breast" in texts.lower()
    assert told not in texts
    assert not re.search("[\u4e00-\u9fff]|\\b(?:nicht|für|der|die)\\b", texts)
