"""One person under two issuers counts twice, so nobody uses such patients before somebody has signed that they are
two."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from client.cohort import catalog, identity, index, rows
from client.errors import SamePersonTwice
from client.ledger.audit_log import AuditLog, Kind
from client.oversight.signature import sign
from client.site import SiteSettings, secret
from tasks import task as tasks
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import ErrorCode, Refusal, TrainReport
from tests.client.hospital import PATIENTS, TASK, Archive, Hospital, draw_archive, train

BREAST = tasks.get(TASK)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


def _source(archive: Archive, issuer: str, folder: Path | None = None) -> dict[str, Any]:
    (own,) = archive.settings()["sources"]
    return {**own, "issuer": issuer, **({} if folder is None else {"path": str(folder)})}


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, archive: Archive) -> Hospital:
    """The archive, and a few of the same images as a research export under another issuer."""
    folder = tmp_path_factory.mktemp("doubled")
    for patient in sorted((archive.folder / "dicom").iterdir())[:4]:
        shutil.copytree(patient, folder / "export" / patient.name)
    sources = [_source(archive, "st-anne"), _source(archive, "research", folder / "export")]
    hospital = Hospital.provision(folder / "site", archive, sources=sources, catalog="catalog")
    hospital_report = catalog.ingest(hospital.settings, BREAST)
    assert any("look like one person" in warning for warning in hospital_report.warnings)
    return hospital


@pytest.fixture
def twice(doubled: Hospital, tmp_path: Path) -> Hospital:
    shutil.copytree(doubled.file.parent, tmp_path / "site")
    return Hospital(tmp_path / "site" / "site.yaml")


def _pairs(site: SiteSettings) -> list[rows.AlikePair]:
    with index.opened(site) as opened:
        return opened.alike(identity.issuers_to_compare(site))


def _sign(site: SiteSettings, pairs: list[rows.AlikePair]) -> None:
    """As ``consilium-site identities --sign`` does."""
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        sign(audit_log, Kind.IDENTITIES, "Ada", {"pairs": identity.SEPARATOR.join(p.pair for p in pairs), "number": 1})
    with index.opened(site) as opened:
        opened.tell_apart(pair.pair for pair in pairs)


def test_nobody_is_trained_on_before_somebody_has_signed(twice: Hospital, document: StudyDocument) -> None:
    twice.approve(document)
    reply = twice.ask(train(document))
    assert isinstance(reply, Refusal)
    assert reply.code == ErrorCode.NO_COHORT
    assert "look like one person, who would count twice" in twice.log()
    assert twice.entries() == []
    pairs = _pairs(twice.settings)
    assert {frozenset((pair.issuer, pair.other_issuer)) for pair in pairs} == {frozenset(("research", "st-anne"))}
    _sign(twice.settings, pairs)
    assert isinstance(twice.ask(train(document)), TrainReport)


def test_who_was_not_signed_for_still_waits(twice: Hospital) -> None:
    site = twice.settings
    first, *others = _pairs(site)
    assert others
    _sign(site, [first])
    with pytest.raises(SamePersonTwice, match=rf"{len(others)} pair\(s\)"):
        catalog.sides(site, BREAST)


def test_one_patientid_of_two_issuers_has_two_places_in_the_split(twice: Hospital) -> None:
    """It may be two people: who of them is scored and who is trained on must not hang together."""
    with closing(sqlite3.connect(twice.settings.catalog / "index.sqlite")) as opened:
        places = [position for (position,) in opened.execute("SELECT position FROM patients")]
    assert len(places) == len(set(places)) == PATIENTS + 4


def test_a_signature_outlives_the_catalog(twice: Hospital) -> None:
    site = twice.settings
    _sign(site, _pairs(site))
    shutil.rmtree(site.catalog)
    catalog.ingest(site, BREAST)
    assert _pairs(site) == []
    assert catalog.sides(site, BREAST)["train"]


def test_images_that_an_interrupted_ingest_has_not_compared_are_not_used(twice: Hospital) -> None:
    site = twice.settings
    _sign(site, _pairs(site))
    with index.opened(site) as opened:
        image = opened.usable_images(["research"])[0]
        owner = rows.Patient(image.patient, 0.9)
        assert image.fingerprint is not None
        opened.put([(owner, rows.Image(**{**image.__dict__, "fingerprint": image.fingerprint ^ 1}))])
    with pytest.raises(SamePersonTwice, match="have not all been compared"):
        catalog.sides(site, BREAST)
    catalog.ingest(site, BREAST)
    assert catalog.sides(site, BREAST)["train"]


def test_too_many_to_be_compared_are_refused_and_not_passed(twice: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    site = twice.settings
    shutil.rmtree(site.catalog)
    monkeypatch.setattr(identity, "_MOST_CANDIDATES", 2)
    assert any("have not all been compared" in w for w in catalog.ingest(site, BREAST).warnings)
    with pytest.raises(SamePersonTwice, match="give sources that number the same people one issuer"):
        catalog.sides(site, BREAST)


def test_an_issuer_of_another_task_is_compared_as_well(twice: Hospital) -> None:
    """The ledger's cohorts are all tasks': whoever is trained on in one may be scored in another."""
    site = twice.settings
    with index.opened(site) as opened:
        opened._connection.execute("UPDATE images SET task = 'chest_xray' WHERE issuer = 'research'")
        opened._connection.commit()
        assert not opened.are_compared(identity.issuers_to_compare(site))


def test_with_one_issuer_or_in_a_simulated_hospital_nothing_is_asked(twice: Hospital, archive: Archive) -> None:
    site = twice.settings
    one = site.model_copy(update={"sources": site.sources[:1]})
    assert identity.issuers_to_compare(one) == []
    assert catalog.sides(one, BREAST)["train"]
    assert identity.issuers_to_compare(site.model_copy(update={"simulated": True})) == []


def test_a_withdrawn_patient_is_nobodys_double(twice: Hospital) -> None:
    site = twice.settings
    pairs = _pairs(site)
    with index.opened(site) as opened:
        opened.forget(opened.of_patients([pair.one for pair in pairs]))
    assert _pairs(site) == []


def test_what_is_kept_and_shown_names_nobody(twice: Hospital, archive: Archive) -> None:
    shown = str(_pairs(twice.settings))
    names = {patient.name for patient in (archive.folder / "dicom").iterdir()}
    assert len(names) == 24
    assert not [name for name in names if name in shown]


def test_who_was_compared_among_other_issuers_is_compared_again(twice: Hospital) -> None:
    """An issuer that comes back was not compared with what the others have read in meanwhile."""
    with index.opened(twice.settings) as opened:
        assert opened.are_compared(["research", "st-anne"])
        assert not opened.are_compared(["another", "research", "st-anne"])
