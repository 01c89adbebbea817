"""An Orthanc that corrects, deletes, limits and replaces: nothing is written, learned or lost wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydicom import Dataset, dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.cohort import index
from client.cohort.intake import patient_under
from client.ledger.audit_log import AuditLog, Kind
from client.site import load, secret
from tests.client.prediction import handed_over
from tests.e2e.pacs.servers import Orthanc, orthanc

PATIENTS = 6
WAYS = ("dimse", "dicomweb")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    handed_over.provision_hospital(folder, PATIENTS)
    return folder


@pytest.fixture
def archive(tmp_path: Path, drawn: Path, own_network: None) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc", _files(drawn)) as one:
        yield one


def _files(drawn: Path) -> list[Path]:
    return sorted((drawn / "dicom").rglob("*.dcm"))


def _of(drawn: Path, patient: str) -> list[Path]:
    return [path for path in _files(drawn) if str(dcmread(path, stop_before_pixels=True).PatientID) == patient]


def _names(drawn: Path) -> list[str]:
    return sorted({str(dcmread(path, stop_before_pixels=True).PatientID) for path in _files(drawn)})


def _hospital(way: str, archive: Orthanc, drawn: Path, folder: Path, **changes: Any) -> Path:
    where: dict[str, Any] = {"kind": way, "url": archive.url}
    if way == "dimse":
        where = {"kind": way, "host": "127.0.0.1", "port": archive.dicom, "called_ae": "ORTHANC"}
    source = where | {"task": handed_over.TASK.name, "issuer": "alder", "path": str(folder / "spool")}
    source |= {"labels": str(folder / "labels.csv"), "scope": {"modalities": ["US", "SEG"]}, "first_wait_seconds": 0.1}
    file = handed_over.provision_hospital(folder, 1)
    uids = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in _files(drawn)]
    rows = [f"{uid},{number % 2}" for number, uid in enumerate(uids)]
    (folder / "labels.csv").write_text("\n".join(["SOPInstanceUID,label", *rows, ""]), "utf-8")
    values = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump(values | {"sources": [source]} | changes), "utf-8")
    return file


def _run(*words: object, code: int = 0) -> Any:
    command, site, *rest = words
    result = CliRunner().invoke(app, [str(word) for word in (command, *rest, "--site", site, "--json")])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _changed(archive: Orthanc, drawn: Path, folder: Path, patient: str, change: Callable[[Dataset], None]) -> None:
    """The archive changes a patient's files, and keeps all their UIDs."""
    archive.delete(PatientID=patient)
    folder.mkdir()
    for path in _of(drawn, patient):
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(folder / path.name, enforce_file_format=True)
    archive.load(sorted(folder.iterdir()))


def _renamed(new: str) -> Callable[[Dataset], None]:
    return lambda dataset: setattr(dataset, "PatientID", new)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_written_under_a_stale_identity(way: str, archive: Orthanc, drawn: Path, tmp_path: Path) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital")
    _run("ingest", file)
    merged, deleted, *others = _names(drawn)
    _changed(archive, drawn, tmp_path / "changed", merged, _renamed("NEW-1"))
    archive.delete(PatientID=deleted)
    digest = handed_over.write_model(tmp_path / "m.safetensors")
    model = (tmp_path / "m.safetensors", "--sha256", digest, "--store")
    facts = _run("predict", file, *model, "--out", tmp_path / "one", code=1)
    assert (facts["stored"], len(facts["withheld"])) == (len(others), 2)
    assert {one["patient"] for one in facts["withheld"]} == {merged, deleted}
    assert archive.told("patients", "PatientID") == sorted([*others, "NEW-1"]), "nobody was revived"
    assert len(archive.told("studies", "StudyInstanceUID")) == len(set(archive.told("studies", "StudyInstanceUID")))

    assert "--accept-shrink" in _run("ingest", file, code=1)["message"], "one of few patients is gone"
    _run("ingest", file, "--accept-shrink")
    facts = _run("predict", file, *model, "--out", tmp_path / "two")
    assert (facts["stored"], facts["already_stored"], facts["withheld"]) == (1, len(others), [])
    assert len(archive.told("patients", "PatientID")) == PATIENTS - 1
    again = _run("predict", file, *model, "--out", tmp_path / "three")
    assert (again["stored"], again["already_stored"]) == (0, PATIENTS - 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_newer_model_stands_after_the_older_and_neither_is_downloaded(
    way: str, archive: Orthanc, drawn: Path, tmp_path: Path
) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital")
    _run("ingest", file)
    before = len(list((tmp_path / "hospital" / "spool" / "images").rglob("*.dcm")))
    spec = handed_over.OUTLINE_SPEC
    for study in ("demo-1", "demo-2"):
        weights = handed_over.weights(spec=spec)
        digest = handed_over.write_model(tmp_path / f"{study}.st", weights, spec=spec, study=study)
        words = (tmp_path / f"{study}.st", "--sha256", digest, "--out", tmp_path / study, "--store")
        _run("predict", file, *words)
    for path in (tmp_path / "demo-2" / "reports").iterdir():
        report = dcmread(path)
        (series,) = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        assert len(series.ReferencedSOPSequence) == 1
    report = _run("ingest", file)[handed_over.TASK.name]
    assert report["left_out"]["SEGMENTATION_OF_CONSILIUM"] > 0
    assert len(list((tmp_path / "hospital" / "spool" / "images").rglob("*.dcm"))) == before


@pytest.mark.parametrize("way", WAYS)
def test_a_patient_keeps_side_and_withdrawal_under_a_new_number(
    way: str, archive: Orthanc, drawn: Path, tmp_path: Path
) -> None:
    withdrawals = tmp_path / "withdrawals"
    gone, *others = _names(drawn)
    withdrawals.write_text(f"{gone}\n", "utf-8")
    file = _hospital(way, archive, drawn, tmp_path / "hospital", withdrawals=str(withdrawals))
    before = _run("ingest", file)[handed_over.TASK.name]
    site = load(file)
    sides = {name: patient_under(secret(site), "alder", name).position < site.validation_fraction for name in others}
    moved = next(iter(others))
    candidates = (f"NEW-{number}" for number in range(100))
    other = next(
        n
        for n in candidates
        if (patient_under(secret(site), "alder", n).position < site.validation_fraction) != sides[moved]
    )
    _changed(archive, drawn, tmp_path / "a", gone, _renamed("NEW-GONE"))
    _changed(archive, drawn, tmp_path / "b", moved, _renamed(other))
    after = _run("ingest", file)[handed_over.TASK.name]
    assert (after["images"], after["patients"]) == (before["images"], before["patients"])
    assert after["left_out"]["WITHDRAWN"] == before["left_out"]["WITHDRAWN"]
    _forget(site.catalog, tmp_path / "hospital" / "spool")
    again = _run("ingest", file)[handed_over.TASK.name]
    assert (again["images"], again["patients"]) == (before["images"], before["patients"]), "also without any copy"
    with index.opened(site) as catalog:
        pseudonyms = {image.patient for image in catalog.images(handed_over.TASK.name, ["alder"])}
    assert pseudonyms == {patient_under(secret(site), "alder", name).pseudonym for name in others}
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        assert [event.facts["why"] for event in audit_log.events(Kind.IDENTITY)] == ["image"]


def _forget(*folders: Path) -> None:
    import shutil

    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_that_limits_its_answers_loses_nothing(way: str, drawn: Path, tmp_path: Path) -> None:
    files = []
    for number, name in enumerate(_names(drawn)):
        for path in _of(drawn, name):
            dataset = dcmread(path)
            dataset.StudyDate = f"2025{number + 1:02d}01"
            files.append(tmp_path / "dated" / f"{len(files)}.dcm")
            files[-1].parent.mkdir(exist_ok=True)
            dataset.save_as(files[-1], enforce_file_format=True)
    with orthanc(tmp_path / "whole", files) as archive:
        whole = _run("ingest", _hospital(way, archive, drawn, tmp_path / "a"))[handed_over.TASK.name]
    with orthanc(tmp_path / "limited", files, LimitFindResults=3) as archive:
        limited = _run("ingest", _hospital(way, archive, drawn, tmp_path / "b"))[handed_over.TASK.name]
    assert (limited["images"], limited["patients"]) == (whole["images"], whole["patients"])


@pytest.mark.parametrize("way", WAYS)
def test_replaced_pixels_are_found_by_verifying_and_journalled(
    way: str, archive: Orthanc, drawn: Path, tmp_path: Path
) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital")
    _run("ingest", file)

    def inverted(dataset: Dataset) -> None:
        if dataset.Modality == "US":
            dataset.PixelData = bytes(255 - value for value in dataset.PixelData)

    _changed(archive, drawn, tmp_path / "changed", _names(drawn)[0], inverted)
    report = _run("ingest", file, "--verify")[handed_over.TASK.name]
    assert any(warning.startswith("REPLACED") for warning in report["warnings"])
    site = load(file)
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        (event,) = audit_log.events(Kind.REPLACEMENT)
    assert (event.facts["patients"], event.facts["task"]) == (1, handed_over.TASK.name)


@pytest.mark.parametrize("way", WAYS)
def test_a_large_loss_waits_for_a_persons_word(way: str, archive: Orthanc, drawn: Path, tmp_path: Path) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital")
    before = _run("ingest", file)[handed_over.TASK.name]["images"]
    for name in _names(drawn)[:4]:
        archive.delete(PatientID=name)
    refused = _run("ingest", file, code=1)
    assert "--accept-shrink" in refused["message"]
    assert _run("ingest", file, "--accept-shrink")[handed_over.TASK.name]["images"] < before
