"""Attacks on what the accounting rests on, at a real hospital: each is refused with the remedy, or leaves a trace."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from client.cohort import catalog
from client.errors import NoCohort, SiteMisconfigured, TermsChanged
from client.ledger import database, records
from client.ledger.accounting import epsilon_of
from client.ledger.audit_log import Kind
from client.ledger.database import Outlives
from client.oversight import premises
from client.setup.provisioning import provision
from tasks import task as tasks
from tasks.machine.disk import write_secret
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import ErrorCode, EvaluateReport, Refusal, TrainOrder, TrainReport
from tests.client.hospital import TASK, Archive, Hospital, draw_archive, evaluate, train

LOST = "ab" * 32


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive, document: StudyDocument) -> Hospital:
    """It has trained in one round of two."""
    hospital = Hospital.provision(tmp_path / "site", archive)
    hospital.approve(document)
    assert isinstance(hospital.ask(train(document)), TrainReport)
    return hospital


def test_only_a_simulated_hospitals_books_need_not_outlive_a_power_failure(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order opens them as it should, and so does every command, which knows of no other way."""
    asked: list[Outlives] = []
    connect = database.connect

    def watched(path: Path, outlives: Outlives = Outlives.POWER_FAILURE) -> sqlite3.Connection:
        asked.append(outlives)
        return connect(path, outlives)

    monkeypatch.setattr(database, "connect", watched)
    records._OPEN_HANDLES.close()
    assert isinstance(hospital.ask(train(document, 2)), TrainReport)
    assert asked
    assert set(asked) == {Outlives.POWER_FAILURE}
    assert premises.outlives(hospital.settings.model_copy(update={"simulated": True})) is Outlives.KILL


def _refused(hospital: Hospital, order: TrainOrder, code: ErrorCode) -> None:
    reply = hospital.ask(order)
    assert isinstance(reply, Refusal)
    assert reply.code == code


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"validation_fraction": 0.9}, "validation_fraction is 0.4 in the ledger and 0.9 in site.yaml"),
        ({"policy": {"max_epsilon_life": 1e6}}, "max_epsilon_life is 20.0 in the ledger and 1000000.0 in site.yaml"),
        ({"policy": {"max_epsilon_study": 9.0}}, "max_epsilon_study is 8.0 in the ledger and 9.0"),
        ({"policy": {"max_delta": 1e-3}}, "max_delta is 0.0001 in the ledger and 0.001"),
        ({"public_size": 20}, "public_size is 200 in the ledger and 20"),
        ({"simulated": True}, "simulated is False in the ledger and True"),
    ],
)
def test_no_order_is_answered_under_other_terms_until_they_are_put_back(
    hospital: Hospital, document: StudyDocument, change: dict[str, object], named: str
) -> None:
    before, rows = hospital.file.read_text("utf-8"), len(hospital.entries())
    hospital.change(**change)
    _refused(hospital, train(document, 2), ErrorCode.SITE_MISCONFIGURED)
    _refused(hospital, train(document, 1), ErrorCode.SITE_MISCONFIGURED)  # not even the stored reply
    assert named in hospital.log()
    assert "consilium-site ledger rebase" in hospital.log()
    assert len(hospital.entries()) == rows
    hospital.file.write_text(before, "utf-8")
    assert isinstance(hospital.ask(train(document, 2)), TrainReport)


def test_a_renamed_issuer_is_refused_and_when_signed_both_sides_are_added_up(
    hospital: Hospital, document: StudyDocument
) -> None:
    spent = hospital.spent()
    source = hospital.settings.sources[0].model_dump(mode="json", exclude_none=True)
    hospital.change(sources=[source | {"issuer": "ST-ANNE"}], catalog="catalog")
    catalog.ingest(hospital.settings, tasks.get(TASK))
    _refused(hospital, train(document, 2), ErrorCode.SITE_MISCONFIGURED)
    assert "issuers of breast_ultrasound are st-anne in the ledger and ST-ANNE in site.yaml" in hospital.log()
    with hospital.records() as records:
        assert premises.rebase(hospital.settings, records, "Ada").moves
        (event,) = records.audit_log.events(Kind.REBASE)
        assert (event.facts["by"], event.facts["both_cohorts"]) == ("Ada", True)
        assert epsilon_of(records.ledger.spent("validation"), 1e-4) == spent
        assert records.verify() == []
    reply = hospital.ask(evaluate(document))
    assert isinstance(reply, Refusal)
    assert reply.code == ErrorCode.BUDGET_EXHAUSTED, "who was trained on may be scored, within the same epsilon of 4"


def test_raised_caps_leave_a_trace_in_every_receipt(hospital: Hospital, document: StudyDocument) -> None:
    hospital.change(policy={"max_epsilon_life": 30.0})
    hospital.ask(train(document, 2))
    with hospital.records() as records:
        assert not premises.rebase(hospital.settings, records, "Ada").moves
    hospital.ask(train(document, 2))
    first, refused, last = (receipt.policy for receipt in hospital.receipts())
    assert len(first) == 64
    assert first != refused == last
    hospital.change(policy={"max_steps": 99})
    hospital.ask(train(document, 2))
    assert hospital.receipts()[-1].policy != last, "not only the terms"


def test_what_is_rebased_is_signed_by_somebody_and_no_real_hospital_becomes_a_simulated_one(
    hospital: Hospital,
) -> None:
    with hospital.records() as records:
        with pytest.raises(SiteMisconfigured, match="nothing to rebase"):
            premises.rebase(hospital.settings, records, "Ada")
        hospital.change(simulated=True)
        with pytest.raises(SiteMisconfigured, match="cannot be used for a simulated one"):
            premises.rebase(hospital.settings, records, "Ada")
        hospital.change(simulated=False, validation_fraction=0.5)
        with pytest.raises(SiteMisconfigured, match="--by"):
            premises.rebase(hospital.settings, records, " ")
        assert premises.change_of(hospital.settings, records.ledger) is not None


def test_a_catalog_made_under_another_fraction_moves_nobody_once_it_is_put_back(
    hospital: Hospital, archive: Archive
) -> None:
    task, own = tasks.get(TASK), hospital.settings
    sides = {side: {entry.patient for entry in found} for side, found in catalog.sides(own, task).items()}
    hospital.change(validation_fraction=0.9, catalog="catalog")
    catalog.ingest(hospital.settings, task)
    moved = {side: {entry.patient for entry in found} for side, found in catalog.sides(hospital.settings, task).items()}
    assert moved != sides, "or this test would see nothing"
    hospital.change(validation_fraction=0.4)
    back = {side: {entry.patient for entry in found} for side, found in catalog.sides(hospital.settings, task).items()}
    assert back == sides


def test_a_catalog_of_another_key_is_refused(tmp_path: Path, archive: Archive) -> None:
    with pytest.raises(NoCohort, match="made with a key other than"):
        Hospital.provision(tmp_path / "early", archive, key="own.key")
    late = Hospital.provision(tmp_path / "late", archive)
    late.change(key=str(tmp_path / "own.key"))
    write_secret(tmp_path / "own.key", bytes(reversed(range(32))))
    with pytest.raises(NoCohort, match="made with a key other than"):
        catalog.sides(late.settings, tasks.get(TASK))


def test_records_under_new_names_are_behind_what_the_coordinator_has_seen(
    hospital: Hospital, document: StudyDocument
) -> None:
    seen = hospital.ask(train(document))
    assert isinstance(seen, TrainReport)
    hospital.change(ledger="new.sqlite", audit_log="new-audit.sqlite", catalog="new-catalog")
    provision(hospital.settings)
    catalog.ingest(hospital.settings, tasks.get(TASK))
    hospital.approve(document)
    _refused(hospital, replace(train(document, 2), ledger_head=seen.ledger_head), ErrorCode.LEDGER_BEHIND)
    assert hospital.entries() == []
    assert f"has seen entry {seen.ledger_head[:12]}" in hospital.log()
    assert "restore the newest backup" in hospital.log()


def test_orders_with_invented_entries_do_not_fill_the_audit_log(hospital: Hospital, document: StudyDocument) -> None:
    for number in range(30):
        _refused(hospital, replace(train(document), ledger_head=f"{number:064x}"), ErrorCode.LEDGER_BEHIND)
    with hospital.records() as records:
        assert len(records.audit_log.events(Kind.LEDGER_BEHIND)) == 20
    assert "could have invented" in hospital.log()


def test_records_put_back_together_are_behind(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    paths = [hospital.settings.ledger, hospital.settings.audit_log]
    with hospital.records() as records:
        records.backup(*(tmp_path / path.name for path in paths))
    seen = hospital.ask(train(document, 2))
    assert isinstance(seen, TrainReport)
    for path in paths:
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        shutil.copy(tmp_path / path.name, path)
    order = replace(evaluate(document, 2), ledger_head=seen.ledger_head)
    reply = hospital.ask(order)
    assert isinstance(reply, Refusal)
    assert reply.code == ErrorCode.LEDGER_BEHIND
    hospital.ask(order)
    with hospital.records() as records:
        assert records.verify() == [], "nothing at the hospital shows it"
        (event,) = records.audit_log.events(Kind.LEDGER_BEHIND)
        assert event.facts["seen"] == seen.ledger_head
        assert premises.lost_heads(records) == [seen.ledger_head]


def test_of_two_copies_of_a_hospital_one_is_behind(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(hospital.file.parent, copied)
    seen = hospital.ask(train(document, 2))
    assert isinstance(seen, TrainReport)
    copy = Hospital(copied / "site.yaml")
    reply = copy.ask(replace(evaluate(document, 1), ledger_head=seen.ledger_head))
    assert isinstance(reply, Refusal)
    assert reply.code == ErrorCode.LEDGER_BEHIND
    assert isinstance(hospital.ask(replace(evaluate(document, 1), ledger_head=seen.ledger_head)), EvaluateReport)


def test_what_is_lost_for_good_can_be_signed_for_and_is_charged(hospital: Hospital, document: StudyDocument) -> None:
    order = replace(train(document, 2), ledger_head=LOST)
    _refused(hospital, order, ErrorCode.LEDGER_BEHIND)
    cheap = {"train": 0.1, "validation": 0.0}
    with hospital.records() as records:
        for digits in ("abab", "cdcdcdcdcd"):
            with pytest.raises(SiteMisconfigured, match="missing entries; give 8 or more of the digits"):
                premises.acknowledge(hospital.settings, records, digits, cheap, "Ada")
        for wrong in (-1.0, float("nan"), 1e9):
            with pytest.raises(SiteMisconfigured, match="epsilon"):
                premises.acknowledge(hospital.settings, records, LOST, {"train": wrong}, "Ada")
        before = epsilon_of(records.ledger.spent("train"), 1e-4)
        assert premises.acknowledge(hospital.settings, records, LOST[:12], cheap, "Ada") == LOST
        assert epsilon_of(records.ledger.spent("train"), 1e-4) > before
        assert records.audit_log.events(Kind.ACKNOWLEDGEMENT)[0].facts["epsilon_train"] == 0.1
    assert isinstance(hospital.ask(order), TrainReport)


def test_a_hospital_that_the_coordinator_has_not_seen_yet_answers(hospital: Hospital, document: StudyDocument) -> None:
    assert isinstance(hospital.ask(replace(train(document, 2), ledger_head=None)), TrainReport)


def test_no_second_records_are_made_for_the_patients_of_a_catalog(hospital: Hospital) -> None:
    hospital.change(ledger="second.sqlite", audit_log="second-audit.sqlite")
    with pytest.raises(TermsChanged, match="are counted in a ledger other than"):
        provision(hospital.settings)
    assert not hospital.settings.ledger.exists()


def test_records_that_are_there_already_answer_nothing_on_the_catalog_of_others(
    hospital: Hospital, archive: Archive, document: StudyDocument, tmp_path: Path
) -> None:
    second = Hospital.provision(tmp_path / "second", archive)
    second.approve(document)
    second.change(catalog=str(hospital.settings.catalog))
    _refused(second, train(document), ErrorCode.SITE_MISCONFIGURED)
    assert (second.entries(), "are counted in a ledger other than" in second.log()) == ([], True)
    assert isinstance(hospital.ask(train(document, 2)), TrainReport), "those that came first go on"


def test_a_catalog_that_is_made_anew_belongs_to_the_ledger_that_is_there(
    hospital: Hospital, document: StudyDocument
) -> None:
    shutil.rmtree(hospital.settings.catalog)
    catalog.ingest(hospital.settings, tasks.get(TASK))
    assert isinstance(hospital.ask(train(document, 2)), TrainReport)
    hospital.change(ledger="second.sqlite", audit_log="second-audit.sqlite")
    with pytest.raises(TermsChanged):
        provision(hospital.settings)
