"""DICOMweb against a real service on loopback: what is found and fetched, and what happens when it fails."""

import ssl
import time
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from pydicom import dcmread

from client.errors import (
    ArchiveRefused,
    ArchiveUnreachable,
    EmptySource,
    LabelsMatchNothing,
    SiteMisconfigured,
    SpoolFull,
)
from client.sources.files.folder import list_folder
from client.sources.pacs.dicomweb import list_dicomweb
from client.sources.pacs.integrity import examine
from client.sources.record import Listing
from client.sources.settings import DicomwebSource, FolderSource
from tasks.breast_ultrasound import TASK
from tasks.phantoms.dicom_writer import write
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tests.client.sources import small_hospital
from tests.client.sources.pacs.certificates import Certificates
from tests.client.sources.pacs.dicomweb_server import Service, running

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(Service(small_hospital.fill(tmp_path))) as one:
        yield one


def _source(tmp_path: Path, url: str, **settings: Any) -> DicomwebSource:
    defaults: dict[str, Any] = {
        "kind": "dicomweb",
        "task": TASK.name,
        "issuer": "alder",
        "path": tmp_path / "spool",
        "labels": tmp_path / "labels.csv",
        "scope": {"modalities": ["US"]},
        "url": url,
        "attempts": 3,
        "first_wait_seconds": 0.01,
        "connect_seconds": 2,
        "silence_seconds": 10,
    }
    return DicomwebSource.model_validate(defaults | settings)


def _secret(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    return path


def _spooled(tmp_path: Path) -> dict[str, str]:
    """Pixel digests by UID, from the files themselves."""
    found = [examine(path) for path in (tmp_path / "spool" / "images").rglob("*.dcm")]
    return {evidence.sop_instance: evidence.pixel_sha256 for evidence in found}


def _originals(service: Service) -> dict[str, str]:
    return {e.sop_instance: e.pixel_sha256 for e in map(examine, service.files)}


def _pictures(listing: Listing) -> dict[str, Any]:
    return {record.image_id: record.read().pixels for record in listing.records}


def test_what_comes_is_what_the_folder_has(tmp_path: Path, service: Service) -> None:
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    folder = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=tmp_path / "dicom", labels=tmp_path / "labels.csv"
    )
    expected = list_folder(folder, TASK, NOBODY)
    assert _spooled(tmp_path) == _originals(service)
    assert {(r.image_id, r.patient_id, r.label) for r in listing.records} == {
        (r.image_id, r.patient_id, r.label) for r in expected.records
    }
    pictures, others = _pictures(listing), _pictures(expected)
    assert all(np.array_equal(pictures[uid], others[uid]) for uid in others)
    assert not listing.left_out
    assert not listing.warnings
    assert all(
        path.read_bytes() in {f.read_bytes() for f in service.files} for path in tmp_path.glob("spool/images/*/*")
    )


def test_every_page_is_asked_for(tmp_path: Path, service: Service) -> None:
    service.most = 2  # gives out fewer than it is asked for
    service.search.ignores = {"PatientID"}  # by which the labels are keyed
    listing = list_dicomweb(_source(tmp_path, service.url, page=3), TASK, NOBODY)
    assert len(listing.records) == 8
    pages = [int(parse_qs(path)["offset"][0]) for path, _ in service.requests if "/studies?StudyInstance" in path]
    assert pages == []
    everything = [path for path, _ in service.requests if "/studies?ModalitiesInStudy" in path and "Date=" not in path]
    assert [parse_qs(path)["offset"] for path in everything] == [["0"], ["2"], ["4"]]


def test_an_archive_that_cannot_page_does_not_answer_for_ever(tmp_path: Path, service: Service) -> None:
    service.honours_offset = False
    assert len(list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY).records) == 8


def test_scope_is_asked_for_and_checked(tmp_path: Path, service: Service) -> None:
    scope = {"modalities": ["US"], "body_parts": ["THYROID"], "since": date(2020, 1, 1), "until": date(2026, 12, 31)}
    with pytest.raises(EmptySource):
        list_dicomweb(_source(tmp_path, service.url, scope=scope), TASK, NOBODY)
    service.search.ignores = {"PatientID"}
    list_dicomweb(_source(tmp_path, service.url, scope=scope | {"body_parts": ["breast"]}), TASK, NOBODY)
    assert any("ModalitiesInStudy=US" in path and "Date=20200101-20261231" in path for path, _ in service.requests)
    listing = list_dicomweb(_source(tmp_path, service.url, scope=scope | {"body_parts": ["breast"]}), TASK, NOBODY)
    assert len(listing.records) == 8


def test_a_series_of_unknown_body_part_is_counted(tmp_path: Path, service: Service) -> None:
    for path in service.files[:2]:
        dataset = dcmread(path)
        del dataset.BodyPartExamined
        dataset.BodyPartExamined = ""
        dataset.save_as(path)
    scope = {"modalities": ["US"], "body_parts": ["BREAST"]}
    listing = list_dicomweb(_source(tmp_path, service.url, scope=scope), TASK, NOBODY)
    assert listing.left_out["SERIES_OF_UNKNOWN_BODY_PART"] == 1
    assert len(listing.records) == 6
    kept = scope | {"body_part_unknown": "keep"}
    assert len(list_dicomweb(_source(tmp_path, service.url, scope=kept), TASK, NOBODY).records) == 8


def test_only_labelled_images_of_willing_patients_are_fetched(tmp_path: Path, service: Service) -> None:
    (tmp_path / "labels.csv").write_text("PatientID;label\nALDER-0001;0\nALDER-0002;1\nNOBODY;1\n", "utf-8")
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, frozenset({"ALDER-0002"}))
    assert {record.patient_id for record in listing.records} == {"ALDER-0001"}
    assert listing.left_out == {"WITHDRAWN": 2, "LABEL_WITHOUT_IMAGE": 1}
    assert sorted(service.sent) == ["1-1.dcm", "1-2.dcm"]


def test_segmentations_of_wanted_images_come_with_them(tmp_path: Path) -> None:
    files = small_hospital.fill(tmp_path)
    first, other, unlabelled = dcmread(files[0]), dcmread(files[2]), dcmread(files[4])
    masks = np.random.default_rng(0).random((1, first.Rows, first.Columns)) < 0.3
    for name, image in (("a", first), ("b", other), ("c", unlabelled)):
        plain = {element.keyword: element.value for element in image if element.keyword}
        path = tmp_path / "dicom" / f"{name}.dcm"
        write(path, segmentation_of([OutlinedImage(plain, masks)], TASK.structures))
        files.append(path)
    rows = f"SOPInstanceUID,label\n{first.SOPInstanceUID},1\n{other.SOPInstanceUID},0\n"
    (tmp_path / "labels.csv").write_text(rows, "utf-8")
    with running(Service(files)) as service:
        both = _source(tmp_path, service.url, scope={"modalities": ["US", "SEG"]})
        listing = list_dicomweb(both, TASK, NOBODY)
        assert len(listing.records) == 2
        for record in listing.records:
            assert record.read_masks is not None
            np.testing.assert_array_equal(record.read_masks(), masks)
        assert listing.left_out == {
            "IMAGE_WITHOUT_LABEL": 2,
            "STUDY_WITHOUT_LABEL": 2,
            "SEGMENTATION_WITHOUT_IMAGE": 1,
        }
        assert sorted(service.sent) == ["1-1.dcm", "2-1.dcm", "a.dcm", "b.dcm"]
        (record,) = list_dicomweb(both, TASK, frozenset({str(first.PatientID)})).records
        assert record.read_masks is not None
        assert len(_spooled(tmp_path)) == 2, "outlines go with their images"


def test_a_withdrawal_deletes_what_was_fetched(tmp_path: Path, service: Service) -> None:
    source = _source(tmp_path, service.url)
    list_dicomweb(source, TASK, NOBODY)
    listing = list_dicomweb(source, TASK, frozenset({"ALDER-0003"}))
    assert len(listing.records) == len(_spooled(tmp_path)) == 6
    assert listing.left_out == {"WITHDRAWN": 2}
    everybody = list_dicomweb(source, TASK, frozenset(small_hospital.PATIENTS))
    assert everybody.records == []
    assert everybody.left_out == {"WITHDRAWN": 8}
    assert _spooled(tmp_path) == {}


def test_labels_that_match_nothing_are_an_error(tmp_path: Path, service: Service) -> None:
    (tmp_path / "labels.csv").write_text("PatientID,label\n1,0\n", "utf-8")
    with pytest.raises(LabelsMatchNothing, match="ALDER-0001"):
        list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)


def test_what_is_spooled_is_not_fetched_again(tmp_path: Path, service: Service) -> None:
    source = _source(tmp_path, service.url)
    list_dicomweb(source, TASK, NOBODY)
    victim = next((tmp_path / "spool" / "images").rglob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[:-7])
    service.sent.clear()
    list_dicomweb(source, TASK, NOBODY)
    assert len(service.sent) == 1
    assert _spooled(tmp_path) == _originals(service)


def test_what_left_the_archive_leaves_the_spool(tmp_path: Path, service: Service) -> None:
    source = _source(tmp_path, service.url)
    list_dicomweb(source, TASK, NOBODY)
    gone = service.files.pop()
    assert len(list_dicomweb(source, TASK, NOBODY).records) == 7
    assert examine(gone).sop_instance not in _spooled(tmp_path)


class _First:
    """Trouble for the first so many requests whose path has a word in it."""

    def __init__(self, times: int, trouble: Any, word: str = "") -> None:
        self.left, self.trouble, self.word = times, trouble, word

    def __call__(self, handler: BaseHTTPRequestHandler) -> bool:
        if self.left == 0 or self.word not in handler.path:
            return False
        self.left -= 1
        self.trouble(handler)
        return True


def _status(code: int) -> Any:
    return lambda handler: handler.send_error(code)


def _hang_up(handler: Any) -> None:
    handler.connection.close()
    handler.close_connection = True


@pytest.mark.parametrize("word", ["/studies?", "/series?", "/instances/"])
@pytest.mark.parametrize("trouble", [_status(503), _status(500), _status(429), _hang_up])
def test_a_passing_failure_passes(tmp_path: Path, service: Service, trouble: Any, word: str) -> None:
    service.trouble = _First(2, trouble, word)
    assert len(list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY).records) == 8
    assert _spooled(tmp_path) == _originals(service)


@pytest.mark.parametrize("missing", [6, 30, 300])
@pytest.mark.parametrize("length", [True, False])
def test_a_cut_answer_is_asked_for_again(tmp_path: Path, service: Service, missing: int, length: bool) -> None:
    cut = service.files[0].read_bytes()
    service.trouble = _First(2, lambda handler: handler.multipart(cut, missing, length=length), "/instances/")
    list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert _spooled(tmp_path) == _originals(service)


def test_an_archive_that_stays_away_is_named(tmp_path: Path, service: Service) -> None:
    service.trouble = _First(1000, _status(503))
    with pytest.raises(ArchiveUnreachable, match="failed 3 times, last with: HTTP 503"):
        list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert len(service.requests) == 3


def test_an_archive_that_goes_away_leaves_what_was_fetched(tmp_path: Path, service: Service) -> None:
    seen = []

    def after_three(handler: BaseHTTPRequestHandler) -> bool:
        seen.append(handler.path)
        if sum("/instances/" in path for path in seen) > 3:
            _hang_up(handler)
            return True
        return False

    service.trouble = after_three
    source = _source(tmp_path, service.url)
    with pytest.raises(ArchiveUnreachable, match="the next ingest resumes from there"):
        list_dicomweb(source, TASK, NOBODY)
    assert len(_spooled(tmp_path)) == 3
    service.trouble = lambda handler: False
    service.sent.clear()
    assert len(list_dicomweb(source, TASK, NOBODY).records) == 8
    assert len(service.sent) == 5


@pytest.mark.parametrize(("code", "remedy"), [(401, "check `token`"), (403, "read access")])
def test_a_refusal_is_not_tried_again(tmp_path: Path, service: Service, code: int, remedy: str) -> None:
    service.trouble = _First(1000, _status(code))
    with pytest.raises(ArchiveRefused, match=remedy):
        list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("code", "reason"), [(404, "GONE_FROM_ARCHIVE"), (406, "ARCHIVE_FAILED"), (500, "ARCHIVE_FAILED")]
)
def test_one_bad_image_costs_one_image(tmp_path: Path, service: Service, code: int, reason: str) -> None:
    uid = examine(service.files[3]).sop_instance
    service.trouble = _First(1000, _status(code), f"/instances/{uid}")
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert len(listing.records) == 7
    assert listing.left_out == {"GONE_FROM_ARCHIVE" if code == 404 else "ARCHIVE_FAILED": 1}


def test_a_broken_or_another_image_is_not_taken(tmp_path: Path, service: Service) -> None:
    first, second = service.files[0], service.files[2]
    wrong = {first: first.read_bytes()[:-20], second: service.files[4].read_bytes()}
    service.substitute = lambda path: wrong.get(path) or path.read_bytes()
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert listing.left_out == {"BROKEN_IN_ARCHIVE": 1, "ARCHIVE_FAILED": 1}
    assert len(listing.records) == 6


def test_silence_and_dripping_have_an_end(tmp_path: Path, service: Service) -> None:
    impatient = _source(tmp_path, service.url, silence_seconds=0.2, attempts=1)
    service.trouble = _First(1, lambda handler: time.sleep(1))
    with pytest.raises(ArchiveUnreachable, match="ReadTimeout"):
        list_dicomweb(impatient, TASK, NOBODY)
    source = _source(tmp_path, service.url, silence_seconds=10, request_seconds=2, attempts=1)
    drop = service.files[0].read_bytes()
    service.trouble = _First(1, lambda handler: handler.multipart(drop, pause=0.05), "/instances/")
    started = time.monotonic()
    listing = list_dicomweb(source, TASK, NOBODY)
    assert listing.left_out == {"ARCHIVE_FAILED": 1}
    assert time.monotonic() - started < 30, "all of it would drip for minutes"


def _decompressed(path: Path) -> bytes:
    dataset = dcmread(path)
    dataset.decompress(generate_instance_uid=False)
    copy = path.with_suffix(".plain")
    dataset.save_as(copy)
    return copy.read_bytes()


@pytest.mark.parametrize("by_metadata", [False, True])
def test_a_decompressed_image_is_named_and_not_used(tmp_path: Path, service: Service, by_metadata: bool) -> None:
    service.tells_syntax, service.metadata_tells_syntax = not by_metadata, by_metadata
    service.substitute = lambda path: _decompressed(path) if path.stem.endswith("-2") else path.read_bytes()
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert listing.left_out == {"TRANSCODED": 4}
    assert len(listing.records) == 4
    assert any(warning.startswith("TRANSCODED: 4 image(s)") for warning in listing.warnings)


def test_an_archive_that_tells_nothing_proves_nothing(tmp_path: Path, service: Service) -> None:
    service.tells_syntax = False
    listing = list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert len(listing.records) == 8
    assert any(warning.startswith("UNPROVEN") for warning in listing.warnings)
    assert sum("/metadata" in path for path, _ in service.requests) == 1
    only_rle = _source(tmp_path, service.url, holds=["1.2.840.10008.1.2.5"])
    again = list_dicomweb(only_rle, TASK, NOBODY)  # what is spooled is judged anew
    assert again.left_out == {"TRANSCODED": 4}
    assert len(again.records) == 4


def test_the_spool_has_a_limit(tmp_path: Path, service: Service) -> None:
    whole = sum(path.stat().st_size for path in service.files)
    with pytest.raises(SpoolFull, match="raise max_gigabytes"):
        list_dicomweb(_source(tmp_path, service.url, max_gigabytes=whole / 2 / 1e9), TASK, NOBODY)
    assert 0 < len(_spooled(tmp_path)) < 8
    assert len(list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY).records) == 8


def test_a_spool_belongs_to_one_source(tmp_path: Path, service: Service) -> None:
    list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    with pytest.raises(SiteMisconfigured, match="give each source its own path"):
        list_dicomweb(_source(tmp_path, service.url, issuer="birch"), TASK, NOBODY)


def test_credentials_are_read_from_files_that_nobody_else_reads(tmp_path: Path, service: Service) -> None:
    token = _secret(tmp_path / "token", "a-token\n")
    list_dicomweb(_source(tmp_path, service.url, token=token), TASK, NOBODY)
    assert {authorization for _, authorization in service.requests} == {"Bearer a-token"}
    service.requests.clear()
    password = _secret(tmp_path / "password", "grün\n")
    list_dicomweb(_source(tmp_path, service.url, user="fl", password=password), TASK, NOBODY)
    assert {authorization for _, authorization in service.requests} == {"Basic Zmw6Z3LDvG4="}
    token.chmod(0o640)
    with pytest.raises(SiteMisconfigured, match="chmod 600") as refusal:
        list_dicomweb(_source(tmp_path, service.url, token=token), TASK, NOBODY)
    assert "a-token" not in str(refusal.value)
    with pytest.raises(SiteMisconfigured, match="missing"):
        list_dicomweb(_source(tmp_path, service.url, token=tmp_path / "none"), TASK, NOBODY)


def test_the_environment_changes_nothing(tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = _secret(tmp_path / "netrc", "machine 127.0.0.1 login other password other\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)
    assert {authorization for _, authorization in service.requests} == {""}


def test_a_redirect_is_not_followed(tmp_path: Path, service: Service) -> None:
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:9/")
        handler.end_headers()

    service.trouble = _First(1000, elsewhere)
    with pytest.raises(ArchiveRefused, match="final address"):
        list_dicomweb(_source(tmp_path, service.url), TASK, NOBODY)


def test_tls_to_a_plain_port_and_the_other_way_are_named(tmp_path: Path) -> None:
    files = small_hospital.fill(tmp_path)
    quick = {"attempts": 1, "connect_seconds": 2}
    with running(Service(files)) as service:
        url = service.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(ArchiveRefused, match="does not speak TLS at this port"):
            list_dicomweb(_source(tmp_path, url, **quick), TASK, NOBODY)
    own = Certificates(tmp_path / "tls")
    with (
        running(Service(files), tls=own.server(ask_for_client=False)) as service,
        pytest.raises(ArchiveUnreachable, match=r"does it require https\?"),
    ):
        list_dicomweb(_source(tmp_path, service.url, **quick), TASK, NOBODY)


def test_certificates_are_checked_both_ways(tmp_path: Path) -> None:
    files = small_hospital.fill(tmp_path)
    own = Certificates(tmp_path / "tls")
    with running(Service(files), tls=own.server(ask_for_client=True)) as service:
        url = service.url.replace("http://127.0.0.1", "https://localhost")
        with pytest.raises(ArchiveRefused, match="authority"):
            list_dicomweb(_source(tmp_path, url), TASK, NOBODY)
        client = {"certificate": own.path / "client.pem", "certificate_key": own.path / "client.key"}
        source = _source(tmp_path, url, authority=own.path / "ca.pem", **client)
        assert len(list_dicomweb(source, TASK, NOBODY).records) == 8
        (own.path / "client.key").chmod(0o644)
        with pytest.raises(SiteMisconfigured, match="chmod 600"):
            list_dicomweb(source, TASK, NOBODY)
    assert isinstance(own.server(ask_for_client=False), ssl.SSLContext)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"url": "http://pacs.example/dicom-web"}, "cross the network unencrypted"),
        ({"url": "ftp://pacs.example"}, "is not an http or https address"),
        ({"url": "https://me:secret@pacs.example"}, "contains a user or a password"),
        ({"user": "me"}, "set both or neither"),
        ({"certificate": "a.pem"}, "set both or neither"),
        ({"token": "t", "user": "me", "password": "p"}, "not both"),
        ({"scope": {"modalities": ["US"], "since": "2026-02-01", "until": "2026-01-01"}}, "no examination can match"),
        ({"scope": {"modalities": []}}, "at least 1 item"),
    ],
)
def test_unsafe_settings_are_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        _source(tmp_path, **({"url": "https://pacs.example/dicom-web"} | settings))


def test_http_to_another_machine_must_be_asked_for(tmp_path: Path) -> None:
    assert _source(tmp_path, "http://pacs.example/dicom-web", insecure_http=True).insecure_http
    assert _source(tmp_path, "http://[::1]:8042/dicom-web").url


def test_images_of_an_archive_are_labelled_by_masks_beside_it(tmp_path: Path, service: Service) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    marked, empty, *_ = (e.sop_instance for e in map(examine, service.files))
    for uid, value in ((marked, 255), (empty, 0)):
        Image.fromarray(np.full((24, 16), value, np.uint8)).save(masks / f"{uid}.png")
    source = _source(tmp_path, service.url, labels=None, annotations={"kind": "masks", "path": masks})
    listing = list_dicomweb(source, TASK, NOBODY)
    assert {record.image_id: record.label for record in listing.records} == {marked: 1, empty: 0}
    assert set(_spooled(tmp_path)) == {marked, empty}, "images without a label are not fetched"


def test_labels_or_annotations_are_due(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="set either `labels` or `annotations`"):
        _source(tmp_path, "https://pacs.invalid", labels=None)
