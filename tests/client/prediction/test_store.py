"""Reports on their way into an archive: a real provider of C-FIND and C-STORE on loopback.

``tests/e2e/pacs`` asks Orthanc."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from typer.testing import CliRunner

from client.cli.main import app
from client.errors import ArchiveRefused, ArchiveUnreachable, SiteMisconfigured, Stopped
from client.ledger.audit_log import Kind
from client.ledger.records import open_records
from client.oversight import halt
from client.prediction import store
from client.prediction.destination import DimseTransport, origins, target_of
from client.prediction.predict import ScoredImage
from client.prediction.store import Delivery
from client.prediction.structured_report import report_of
from client.prediction.worklist import of_folder
from client.site import SiteSettings, load, secret
from client.sources.pacs.association import RemoteArchive
from client.sources.settings import DimseSource
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import TASK, model
from tests.client.prediction.test_commitment import Keeper
from tests.client.prediction.test_commitment import running as commitments
from tests.client.prediction.toy_pacs import KINDS, ToyPacs, running
from tests.client.sources.pacs.test_move import free_port


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    return load(handed_over.provision_hospital(tmp_path_factory.mktemp("hospital"), patients=2))


def _headers(site: SiteSettings) -> list[Dataset]:
    paths = sorted(site.sources[0].path.rglob("*.dcm"))
    return [dcmread(path, stop_before_pixels=True) for path in paths]


def _reports(site: SiteSettings, folder: Path, **changes: Any) -> list[Path]:
    """One report of each of two examinations, of a model."""
    folder.mkdir(exist_ok=True)
    work = of_folder(site, TASK, site.sources[0].path, "", lambda *told: None)
    images = {image.study: image for image in work.images}
    paths = []
    for number, image in enumerate(images.values()):
        paths.append(folder / f"{number}.dcm")
        report = report_of(model(folder, **changes), [ScoredImage(image, 0.5, b"")], secret(site))
        report.save_as(paths[-1], enforce_file_format=True)
    assert len(paths) == 2
    return paths


@pytest.fixture
def reports(site: SiteSettings, tmp_path: Path) -> list[Path]:
    return _reports(site, tmp_path / "reports")


@pytest.fixture
def pacs(site: SiteSettings) -> Iterator[ToyPacs]:
    with running(ToyPacs(_headers(site))) as one:
        yield one


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_FIRST_WAIT_S", 0.01)


def _store(site: SiteSettings, pacs: ToyPacs, files: list[Path], **more: Any) -> Delivery:
    delivery = Delivery()
    store.store(site, pacs.peer, files, lambda *told: None, delivery, **more)
    return delivery


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_every_report_arrives_as_it_was_written(site: SiteSettings, reports: list[Path], syntax: str) -> None:
    told: list[tuple[str, int, int]] = []
    delivery = Delivery()
    with running(ToyPacs(_headers(site)), syntax=syntax) as pacs:
        store.store(site, pacs.peer, reports, lambda *one: told.append(one), delivery)
    assert (delivery.stored, delivery.present, delivery.withheld) == (2, 0, [])
    assert pacs.stored == [dcmread(path) for path in reports]
    assert told == [("storing", 1, 2), ("storing", 2, 2)]
    assert pacs.associations == 2, "one to ask, one to store"


def _patient(keyword: str, value: str) -> Callable[[ToyPacs], None]:
    def change(pacs: ToyPacs) -> None:
        patient = pacs.headers[0].PatientID
        for header in [one for one in pacs.headers if one.PatientID == patient]:
            setattr(header, keyword, value)

    return change


def _deleted(pacs: ToyPacs) -> None:
    study = pacs.headers[0].StudyInstanceUID
    pacs.headers[:] = [one for one in pacs.headers if one.StudyInstanceUID != study]


def _without_image(pacs: ToyPacs) -> None:
    study = pacs.headers[0].StudyInstanceUID
    for header in [one for one in pacs.headers if one.StudyInstanceUID == study and one.Modality == "US"]:
        header.SOPInstanceUID = f"{str(header.SOPInstanceUID)[:-3]}.77"


def _in_another_series(pacs: ToyPacs) -> None:
    study = pacs.headers[0].StudyInstanceUID
    for header in [one for one in pacs.headers if one.StudyInstanceUID == study]:
        header.SeriesInstanceUID = f"{str(header.SeriesInstanceUID)[:-3]}.77"


def _also_of_another(pacs: ToyPacs) -> None:
    from copy import deepcopy

    other = deepcopy(pacs.headers[0])
    other.PatientID = "OTHER"
    pacs.search.doubled = [other]


_CHANGES: dict[str, tuple[Callable[[ToyPacs], None], str]] = {
    "PatientID": (_patient("PatientID", "NEW-1"), "under PatientID 'NEW-1'"),
    "PatientName": (_patient("PatientName", "Wrong^Person"), "another PatientName"),
    "name removed": (_patient("PatientName", ""), "another PatientName"),
    "birth date": (_patient("PatientBirthDate", "19010101"), "another PatientBirthDate"),
    "issuer": (_patient("IssuerOfPatientID", "other"), "another IssuerOfPatientID"),
    "deleted": (_deleted, "has no such examination"),
    "other images": (_without_image, "images are not in their series any more"),
    "other series": (_in_another_series, "series are not in this examination any more"),
    "two patients": (_also_of_another, "under several patients"),
}


@pytest.mark.parametrize("name", _CHANGES)
def test_nothing_is_written_on_somebody_whom_the_archive_does_not_have_so(
    site: SiteSettings, reports: list[Path], pacs: ToyPacs, name: str
) -> None:
    change, why = _CHANGES[name]
    changed = str(pacs.headers[0].PatientID)
    if name in ("issuer", "birth date"):  # which the phantoms do not have
        for path in reports:
            report = dcmread(path)
            report.IssuerOfPatientID, report.PatientBirthDate = "alder", "19500101"
            report.save_as(path)
    change(pacs)
    delivery = _store(site, pacs, reports)
    (withheld,) = delivery.withheld
    assert why in withheld.why
    assert withheld.patient == changed
    assert withheld.files == ("0.dcm",)
    assert (delivery.stored, [str(one.PatientID) for one in pacs.stored]) == (1, [dcmread(reports[1]).PatientID])
    if name != "deleted":  # which an archive of results has never had
        again = _store(site, pacs, reports, unchecked=True)
        assert len(again.withheld) == 1, "a contradiction is nothing that a word could waive"


def test_names_are_compared_as_far_as_both_have_them(site: SiteSettings, reports: list[Path], pacs: ToyPacs) -> None:
    for header in pacs.headers:
        header.PatientName = f"{str(header.PatientName).upper()}^^="
    assert _store(site, pacs, reports).stored == 2


def test_a_peer_that_knows_nothing_of_it_gets_it_only_by_a_persons_word(
    site: SiteSettings, reports: list[Path]
) -> None:
    with running(ToyPacs([])) as results:
        delivery = _store(site, results, reports)
        assert (delivery.stored, len(delivery.withheld)) == (0, 2)
        assert "--unchecked" in delivery.withheld[0].why
        assert _store(site, results, reports, unchecked=True).stored == 2
    with running(ToyPacs([]), searches=False) as router:
        delivery = _store(site, router, reports)
        assert (delivery.stored, len(delivery.withheld)) == (0, 2)
        assert "cannot be asked" in delivery.withheld[0].why
        assert _store(site, router, reports, unchecked=True).stored == 2


def test_the_archive_that_the_images_come_from_is_asked_as_well(
    site: SiteSettings, reports: list[Path], pacs: ToyPacs
) -> None:
    with running(ToyPacs(_headers(site))) as other:
        _patient("PatientID", "NEW-1")(pacs)
        delivery = _store(site, other, reports, asked=[pacs.peer], unchecked=True)
        assert (delivery.stored, len(delivery.withheld)) == (1, 1)
        pacs.headers.clear()
        delivery = _store(site, other, reports, asked=[pacs.peer], unchecked=True)
        assert ["has no such examination any more" in one.why for one in delivery.withheld] == [True, True]


def test_a_second_run_finds_what_the_first_has_stored(site: SiteSettings, tmp_path: Path, pacs: ToyPacs) -> None:
    assert _store(site, pacs, _reports(site, tmp_path / "a")).stored == 2
    again = _store(site, pacs, _reports(site, tmp_path / "b"))
    assert (again.stored, again.present, len(pacs.stored)) == (0, 2, 2)


@pytest.mark.parametrize("earlier", ["replace", "beside"])
def test_a_newer_models_report_names_the_earlier_ones(
    site: SiteSettings, tmp_path: Path, pacs: ToyPacs, earlier: str
) -> None:
    chosen = site.model_copy(update={"earlier_reports": earlier})
    _store(chosen, pacs, _reports(site, tmp_path / "a"))
    newer = _reports(site, tmp_path / "b", study="demo-2")
    assert _store(chosen, pacs, newer).stored == 2
    first, second = pacs.stored[:2], pacs.stored[2:]
    assert second == [dcmread(path) for path in newer], "the folder has what was sent"
    for old, new in zip(first, second, strict=True):
        assert old.SeriesInstanceUID != new.SeriesInstanceUID
        if earlier == "beside":
            assert "PredecessorDocumentsSequence" not in new
            continue
        (item,) = new.PredecessorDocumentsSequence
        (series,) = item.ReferencedSeriesSequence
        (reference,) = series.ReferencedSOPSequence
        assert item.StudyInstanceUID == old.StudyInstanceUID
        assert series.SeriesInstanceUID == old.SeriesInstanceUID
        assert reference.ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert reference.ReferencedSOPClassUID == old.SOPClassUID


def test_outlines_are_stored_as_reports_are(site: SiteSettings, pacs: ToyPacs) -> None:
    paths = [path for path in sorted(site.sources[0].path.rglob("*.dcm")) if dcmread(path).Modality == "SEG"]
    assert _store(site, pacs, paths).stored == len(paths) > 0
    assert pacs.stored == [dcmread(path) for path in paths]


def test_an_archive_that_is_short_of_resources_is_asked_again(
    site: SiteSettings, reports: list[Path], pacs: ToyPacs
) -> None:
    pacs.answers = lambda number: 0xA700 if number == 1 else 0xB000
    assert _store(site, pacs, reports).stored == 2
    pacs.headers[:], pacs.asked = _headers(site), 0
    pacs.answers = lambda number: 0 if number == 1 else 0xA700
    with pytest.raises(ArchiveUnreachable, match=r"failed 4 times.*0xA700.*1 files are stored"):
        _store(site, pacs, reports)


def test_a_refusal_is_named(site: SiteSettings, reports: list[Path], pacs: ToyPacs) -> None:
    pacs.answers = lambda number: 0xA900
    with pytest.raises(ArchiveRefused, match="0xA900"):
        _store(site, pacs, reports)
    with (
        running(ToyPacs(_headers(site)), kinds=KINDS[1:]) as other,
        pytest.raises(ArchiveRefused, match="does not accept Enhanced SR Storage"),
    ):
        _store(site, other, reports)
    nobody = ToyPacs([], peer=RemoteArchive("127.0.0.1", 1, "PACS", first_wait_seconds=0.01))
    with pytest.raises(ArchiveUnreachable, match="no connection"):
        _store(site, nobody, reports)


def test_the_kill_switch_is_asked_before_each_report(site: SiteSettings, reports: list[Path], pacs: ToyPacs) -> None:
    try:
        with pytest.raises(Stopped):
            store.store(site, pacs.peer, reports, lambda *told: halt.stop(site.stop_file, "drill"), Delivery())
        assert len(pacs.stored) == 1
    finally:
        halt.resume(site.stop_file)


def test_what_was_not_written_is_said_noted_and_no_success(site: SiteSettings, tmp_path: Path, pacs: ToyPacs) -> None:
    digest = handed_over.write_model(tmp_path / "m.safetensors")
    words = ["predict", tmp_path / "m.safetensors", "--sha256", digest, "--path", site.sources[0].path]
    words += ["--store-to", f"PACS@127.0.0.1:{pacs.peer.port}", "--site", site.key.parent / "site.yaml"]
    _patient("PatientID", "NEW-1")(pacs)
    result = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 1
    facts = json.loads(result.stdout)
    assert (facts["stored"], facts["already_stored"]) == (1, 0)
    assert "NEW-1" in facts["withheld"][0]["why"]
    shown = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "again")])
    assert shown.exit_code == 1
    assert "NOT written to the archive" in shown.stdout
    assert "1 it had already" in " ".join(shown.stdout.split())
    pacs.headers[:], pacs.answers = _headers(site), lambda number: 0xA900
    failed = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "failed")])
    assert failed.exit_code == 2
    assert "0xA900" in failed.stderr
    with open_records(site.ledger, site.audit_log, secret(site)) as records:
        events = [event.facts for event in records.audit_log.events(Kind.PREDICTION)]
    counts = [(f["reports"], f["stored"], f["already_stored"], f["withheld"]) for f in events]
    assert counts == [(2, 1, 0, 1), (2, 0, 1, 1), (2, 0, 0, 0)]


def test_what_is_stored_is_committed_where_the_source_says_so(
    site: SiteSettings, reports: list[Path], pacs: ToyPacs, tmp_path: Path
) -> None:
    """The archive has no Storage Commitment: what was stored stays, and the second run asks for it again."""
    told = {"kind": "dimse", "task": TASK.name, "issuer": "x", "path": tmp_path, "labels": tmp_path / "l.csv"}
    told |= {"scope": {"modalities": ["US"]}, "host": "127.0.0.1", "port": pacs.peer.port, "called_ae": "PACS"}
    source = DimseSource.model_validate(
        told | {"storage_commitment": True, "receive_at": f"127.0.0.1:{free_port()}", "commitment_seconds": 5}
    )
    for stored, present in ((2, 0), (0, 2)):
        delivery = Delivery()
        with pytest.raises(ArchiveRefused, match="offers no Storage Commitment"):
            store.store(site, source, reports, lambda *one: None, delivery)
        assert (delivery.stored, delivery.present) == (stored, present)
    with commitments(Keeper(fails={str(dcmread(reports[1]).SOPInstanceUID): 0x0112})) as keeper:
        failed = source.model_copy(
            update={"port": keeper.port, "called_ae": "ARCHIVE", "receive_at": f"127.0.0.1:{keeper.receiver}"}
        )
        (told_of,) = store._uncommitted(failed, reports)
    assert (told_of.patient, told_of.files) == (str(dcmread(reports[1]).PatientID), ("1.dcm",))
    assert "no such object" in told_of.why


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
    elsewhere, insecure = "PACS@other.example.org:104", DimseTransport(insecure=True)
    assert target_of(with_archive, TASK, elsewhere, insecure) == RemoteArchive("other.example.org", 104, "PACS")
    secure = DimseTransport(tls=True, authority=tmp_path / "ca.pem")
    peer = target_of(with_archive, TASK, elsewhere, secure)
    assert isinstance(peer, RemoteArchive)
    assert (peer.tls, peer.authority) == (True, tmp_path / "ca.pem")
    assert target_of(with_archive, TASK, "PACS@127.0.0.1:104") == RemoteArchive("127.0.0.1", 104, "PACS")
    for way, problem in (
        (DimseTransport(), "add --tls"),
        (DimseTransport(authority=tmp_path / "ca.pem"), "need --tls"),
        (DimseTransport(tls=True, insecure=True), "contradict"),
        (DimseTransport(tls=True, certificate=tmp_path / "a.pem"), "belong together"),
    ):
        with pytest.raises(SiteMisconfigured, match=problem):
            target_of(with_archive, TASK, elsewhere, way)
    with pytest.raises(SiteMisconfigured, match=r"dialled as site\.yaml says"):
        target_of(with_archive, TASK, "PACS@pacs.example.org:11112", insecure)
    with pytest.raises(SiteMisconfigured, match="need --store-to"):
        target_of(with_archive, TASK, "", insecure)
    assert origins(with_archive, TASK) == [], "some images are in a folder"
    assert origins(site.model_copy(update={"sources": [dimse]}), TASK) == [dimse]
    with pytest.raises(SiteMisconfigured, match="0 sources"):
        target_of(site, TASK)
    with pytest.raises(SiteMisconfigured, match="2 sources"):
        target_of(site.model_copy(update={"sources": [dimse, dimse]}), TASK)
    for wrong in ("PACS", "@host:1", "PACS@host", "PACS@host:0", "PACS@host:65536", "P@h:1@x", "A" * 17 + "@h:1"):
        with pytest.raises(SiteMisconfigured, match="AET@host:port"):
            target_of(site, TASK, wrong)
