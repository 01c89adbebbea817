"""Reports on their way into an archive: a real C-STORE provider on loopback. ``tests/e2e/pacs`` asks Orthanc."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, SegmentationStorage
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from typer.testing import CliRunner

from client.cli.main import app
from client.errors import ArchiveRefused, ArchiveUnreachable, SiteMisconfigured, Stopped
from client.ledger.audit_log import Kind
from client.ledger.records import open_records
from client.oversight import halt
from client.prediction import store
from client.prediction.predict import ScoredImage
from client.prediction.store import target_of
from client.prediction.structured_report import report_of
from client.prediction.worklist import of_folder
from client.site import SiteSettings, load, secret
from client.sources.pacs.association import RemoteArchive
from client.sources.settings import DimseSource
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import TASK, model

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return load(handed_over.provision_hospital(tmp_path_factory.mktemp("hospital"), patients=2))


@pytest.fixture
def reports(site: SiteSettings, tmp_path: Path) -> list[Path]:
    folder = site.sources[0].path
    work = of_folder(site, TASK, folder, "", lambda *told: None)
    paths = []
    for number, image in enumerate(work.images[:2]):
        paths.append(tmp_path / f"{number}.dcm")
        report_of(model(tmp_path), [ScoredImage(image, 0.5, b"")]).save_as(paths[-1], enforce_file_format=True)
    return paths


@contextmanager
def _provider(
    answers: Callable[[int], int] = lambda number: 0, sop_class: str = ENHANCED_SR, syntax: str = ExplicitVRLittleEndian
) -> Iterator[tuple[RemoteArchive, list[Dataset]]]:
    """A provider that answers the n-th report, from 1, with a status."""
    asked, stored = [0], list[Dataset]()

    def take(event: Event) -> int:
        asked[0] += 1
        status = answers(asked[0])
        if status in (0, 0xB000):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            stored.append(dataset)
        return status

    entity = AE("PACS")
    entity.require_called_aet = True
    entity.add_supported_context(sop_class, syntax)
    entity.add_supported_context(Verification)
    handlers: list[Any] = [(evt.EVT_C_STORE, take)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield RemoteArchive("127.0.0.1", server.server_address[1], "PACS"), stored
    finally:
        server.shutdown()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FIRST_WAIT_S", 0.01)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_report_arrives_as_it_was_written(site: SiteSettings, reports: list[Path], syntax: str) -> None:
    told: list[tuple[str, int, int]] = []
    with _provider(syntax=syntax) as (peer, stored):
        assert store.store(site, peer, reports, lambda *one: told.append(one)) == 2
    assert stored == [dcmread(path) for path in reports]
    assert told == [("storing", 1, 2), ("storing", 2, 2)]


def test_outlines_are_stored_as_reports_are(site: SiteSettings) -> None:
    paths = [path for path in sorted(site.sources[0].path.rglob("*.dcm")) if dcmread(path).Modality == "SEG"]
    with _provider(sop_class=SegmentationStorage) as (peer, stored):
        assert store.store(site, peer, paths, lambda *one: None) == len(paths) > 0
    assert stored == [dcmread(path) for path in paths]


def test_an_archive_that_is_short_of_resources_is_asked_again(site: SiteSettings, reports: list[Path]) -> None:
    with _provider(lambda number: 0xA700 if number == 1 else 0xB000) as (peer, stored):
        assert store.store(site, peer, reports, lambda *told: None) == 2
    assert len(stored) == 2
    with (
        _provider(lambda number: 0 if number == 1 else 0xA700) as (peer, stored),
        pytest.raises(ArchiveUnreachable, match=r"failed 4 times.*0xA700.*1 of 2 files are stored"),
    ):
        store.store(site, peer, reports, lambda *told: None)


def test_a_refusal_is_named(site: SiteSettings, reports: list[Path]) -> None:
    with _provider(lambda number: 0xA900) as (peer, _), pytest.raises(ArchiveRefused, match="0xA900"):
        store.store(site, peer, reports, lambda *told: None)
    with (
        _provider(sop_class="1.2.840.10008.5.1.4.1.1.6.1") as (peer, _),
        pytest.raises(ArchiveRefused, match="does not accept Enhanced SR Storage"),
    ):
        store.store(site, peer, reports, lambda *told: None)
    with pytest.raises(ArchiveUnreachable, match="no connection"):
        store.store(site, RemoteArchive("127.0.0.1", 1, "PACS"), reports, lambda *told: None)


def test_the_kill_switch_is_asked_before_each_report(site: SiteSettings, reports: list[Path]) -> None:
    def stop(*told: object) -> None:
        halt.stop(site.stop_file, "drill")

    try:
        with _provider() as (peer, stored), pytest.raises(Stopped):
            store.store(site, peer, reports, stop)
        assert len(stored) == 1
    finally:
        halt.resume(site.stop_file)


def test_the_audit_log_notes_how_many_were_stored(site: SiteSettings, tmp_path: Path) -> None:
    digest = handed_over.write_model(tmp_path / "m.safetensors")
    with _provider(lambda number: 0 if number == 1 else 0xA900) as (peer, stored):
        words = ["predict", tmp_path / "m.safetensors", "--sha256", digest, "--out", tmp_path / "out"]
        words += ["--path", site.sources[0].path, "--store-to", f"PACS@127.0.0.1:{peer.port}"]
        result = CliRunner().invoke(app, [*map(str, words), "--site", str(site.key.parent / "site.yaml")])
    assert result.exit_code == 2
    assert "0xA900" in result.stderr
    with open_records(site.ledger, site.audit_log, secret(site)) as records:
        (event,) = records.audit_log.events(Kind.PREDICTION)
    assert (event.facts["reports"], event.facts["stored"], len(stored)) == (2, 1, 1)


def test_where_to_is_a_source_or_an_address(site: SiteSettings, tmp_path: Path) -> None:
    common = {"task": TASK.name, "issuer": "x", "path": tmp_path, "labels": tmp_path / "l.csv"}
    common |= {"scope": {"modalities": ["US"]}}
    dimse = DimseSource.model_validate(
        {"kind": "dimse", "host": "pacs.example.org", "port": 11112, "called_ae": "PACS", "tls": True} | common
    )
    with_archive = site.model_copy(update={"sources": [*site.sources, dimse]})
    assert target_of(with_archive, TASK) is dimse
    assert target_of(with_archive, TASK, "PACS@pacs.example.org:11112") is dimse, (
        "with the TLS that the source asks for"
    )
    assert target_of(with_archive, TASK, "PACS@other.example.org:104") == RemoteArchive(
        "other.example.org", 104, "PACS"
    )
    with pytest.raises(SiteMisconfigured, match="0 sources"):
        target_of(site, TASK)
    with pytest.raises(SiteMisconfigured, match="2 sources"):
        target_of(site.model_copy(update={"sources": [dimse, dimse]}), TASK)
    for wrong in ("PACS", "@host:1", "PACS@host", "PACS@host:0", "PACS@host:65536", "P@h:1@x", "A" * 17 + "@h:1"):
        with pytest.raises(SiteMisconfigured, match="AET@host:port"):
            target_of(site, TASK, wrong)
