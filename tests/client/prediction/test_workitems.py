"""Workitems against a scripted UPS-RS service: what is sent, once, and what its answers mean."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydicom import Dataset

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.prediction import workitems
from client.prediction.predict import Predictions, ScoredImage, ScoredPatient
from client.prediction.structured_report import report_of
from client.prediction.workitems import enter, priorities, workitem_of
from client.prediction.worklist import of_folder
from client.site import SiteSettings, load, secret
from client.sources.settings import DicomwebSource
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import TASK, model

KEY = b"k" * 32


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return load(handed_over.provision_hospital(tmp_path_factory.mktemp("hospital"), patients=2))


@pytest.fixture
def scored(site: SiteSettings) -> list[ScoredImage]:
    work = of_folder(site, TASK, site.sources[0].path, "", lambda *told: None)
    one = {image.study: image for image in work.images}
    return [ScoredImage(image, 0.9 - 0.8 * number, b"") for number, image in enumerate(one.values())]


@pytest.fixture
def report(site: SiteSettings, scored: list[ScoredImage], tmp_path: Path) -> Dataset:
    return report_of(model(tmp_path), scored[:1], secret(site))


class Service:
    """A worklist; ``answers`` are the next statuses, before it does what it should."""

    def __init__(self) -> None:
        self.items: dict[str, Dataset] = {}
        self.answers: list[int] = []
        self.asked: list[tuple[str, str]] = []

    def post(self, path: str, kind: str, content: bytes) -> int:
        self.asked.append((urlsplit(path).path, kind))
        if self.answers:
            return self.answers.pop(0)
        uid = urlsplit(path).query
        if uid in self.items:
            return 409
        (item,) = json.loads(content)
        self.items[uid] = Dataset.from_json(item)
        return 201


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    own = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(own.post(self.path, self.headers["Content-Type"], content))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *told: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield own, f"http://127.0.0.1:{server.server_address[1]}/rs"
    server.shutdown()
    server.server_close()


def _source(tmp_path: Path, url: str) -> DicomwebSource:
    told = {"kind": "dicomweb", "task": TASK.name, "issuer": "x", "path": tmp_path, "labels": tmp_path / "l.csv"}
    return DicomwebSource.model_validate(told | {"scope": {"modalities": ["US"]}, "url": url, "workitems": True})


def test_an_examination_is_entered_once(tmp_path: Path, service: tuple[Service, str], report: Dataset) -> None:
    worklist, url = service
    assert enter(_source(tmp_path, url), KEY, report, "HIGH")
    assert not enter(_source(tmp_path, url), KEY, report, "LOW")
    (item,) = worklist.items.values()
    assert set(worklist.asked) == {("/rs/workitems", "application/dicom+json")}
    assert (item.PatientID, item.StudyInstanceUID) == (report.PatientID, report.StudyInstanceUID)
    assert (item.ProcedureStepState, item.ScheduledProcedureStepPriority) == ("SCHEDULED", "HIGH")
    assert "NOT FOR CLINICAL USE" in item.ProcedureStepLabel
    assert item.WorklistLabel == "NOT FOR CLINICAL USE"


def test_a_workitem_has_what_the_standard_requires(report: Dataset) -> None:
    """PS3.4 table CC.2.5-3, N-CREATE: type 1 with a value, type 2 at least there."""
    item = workitem_of(report, "LOW", datetime(2026, 1, 2, 3, 4, 5))
    for keyword in ("ScheduledProcedureStepPriority", "ProcedureStepLabel", "WorklistLabel", "InputReadinessState",
                    "ScheduledProcedureStepStartDateTime", "ScheduledWorkitemCodeSequence",
                    "ProcedureStepState", "StudyInstanceUID"):  # fmt: skip
        assert item[keyword].value, keyword
    for keyword in ("TransactionUID", "ScheduledStationNameCodeSequence", "ScheduledHumanPerformersSequence",
                    "ReferencedRequestSequence", "PatientBirthDate", "PatientSex",
                    "UnifiedProcedureStepPerformedProcedureSequence"):  # fmt: skip
        assert keyword in item
    assert item.ScheduledProcedureStepStartDateTime == "20260102030405"
    told = {r.ReferencedSOPInstanceUID for i in item.InputInformationSequence for r in i.ReferencedSOPSequence}
    assert report.SOPInstanceUID in told
    assert len(told) > 1, "the images as well"


def test_the_threshold_decides_the_priority(tmp_path: Path, scored: list[ScoredImage]) -> None:
    patients = [ScoredPatient(one.image.patient, (one,)) for one in scored]
    found = Predictions(patients, [])
    at = priorities(model(tmp_path, threshold=0.5), found)
    assert [at[one.image.study] for one in scored] == ["HIGH", "LOW"]
    assert set(priorities(model(tmp_path, threshold=None), found).values()) == {"MEDIUM"}


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_archive_without_a_worklist_is_named(
    tmp_path: Path, service: tuple[Service, str], report: Dataset, status: int
) -> None:
    service[0].answers = [status]
    with pytest.raises(ArchiveRefused, match="no worklist by UPS-RS"):
        enter(_source(tmp_path, service[1]), KEY, report, "HIGH")


def test_what_may_pass_is_tried_again(
    tmp_path: Path, service: tuple[Service, str], report: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workitems, "_FIRST_WAIT_S", 0.01)
    service[0].answers = [503, 503]
    assert enter(_source(tmp_path, service[1]), KEY, report, "HIGH")
    service[0].answers = [503] * 4
    with pytest.raises(ArchiveUnreachable, match="failed 4 times"):
        enter(_source(tmp_path, service[1]), KEY, report, "HIGH")
    service[0].answers = [400]
    with pytest.raises(ArchiveRefused, match="does not take the workitem"):
        enter(_source(tmp_path, service[1]), KEY, report, "HIGH")
