"""What Prometheus and a hospital's staff see: the ledger's own sums, and never a patient."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from client.link.gateway import Link
from client.link.observed import SiteLook
from client.oversight import approvals, signature
from tasks.machine import observation
from tasks.machine.observation import Observed
from tasks.protocol.study import StudyDocument, digest
from tests.client.hospital import Archive, Hospital, draw_archive, train


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive, document: StudyDocument) -> Hospital:
    """One that has answered an order of one study, and has another one to approve."""
    made = Hospital.provision(tmp_path, archive)
    made.approve(document)
    made.ask(train(document))
    made.ask(train(replace(document, name="unseen-study")))
    return made


def looked(hospital: Hospital) -> Observed:
    state = hospital.settings.link / "both.json"
    state.parent.mkdir(exist_ok=True)
    state.write_text(json.dumps({"gateway": {"pid": 1, "well": False, "starts": 2, "held": "you were revoked"}}))
    link = Link("localhost:1", state.parent / "node.key", state.parent / "authority.crt", state.parent / "secret")
    link.heard.touch()
    return SiteLook(hospital.file, state, link)()


def values(seen: Observed) -> dict[str, float]:
    return {f"{one.name.removeprefix('consilium_site_')}{list(one.labels.values())}": one.value for one in seen.figures}


def test_the_figures_are_the_ledgers(hospital: Hospital) -> None:
    found = values(looked(hospital))
    use = hospital.entries()[0].use
    cohort, name = use.cohort, use.study
    spent = found[f"epsilon_spent['{cohort}']"]
    assert spent > 0
    assert found[f"epsilon_cap['{cohort}']"] == 20.0
    aside = found[f"epsilon_set_aside['{cohort}']"]
    assert found[f"epsilon_left['{cohort}']"] == pytest.approx(20.0 - spent - aside)
    assert found[f"study_epsilon_spent['{name}', '{cohort}']"] == pytest.approx(spent)
    assert found[f"study_epsilon_left['{name}', '{cohort}']"] == pytest.approx(8.0 - spent)
    receipts = hospital.receipts()
    assert found["messages_total['TrainReport']"] == 1.0
    assert found["sent_bytes_total['TrainReport']"] == next(r.bytes for r in receipts if r.message == "TrainReport")
    assert abs(found["last_answer_timestamp_seconds[]"] - time.time()) < 600
    assert (found["studies_approved[]"], found["studies_waiting[]"], found["stopped[]"]) == (1.0, 1.0, 0.0)
    assert (found["program_well['gateway']"], found["program_starts_total['gateway']"]) == (0.0, 2.0)
    assert abs(found["server_heard_timestamp_seconds[]"] - time.time()) < 60


def test_nothing_is_of_a_patient_or_a_file(hospital: Hospital) -> None:
    seen = looked(hospital)
    text = " ".join([*(f"{one.name} {dict(one.labels)} {one.value}" for one in seen.figures),
                     *(f"{one.about} {one.text}" for one in seen.notices)])  # fmt: skip
    assert str(hospital.file.parent) not in text
    assert "patient" not in text.lower()
    with hospital.records() as records:
        assert records.audit_log.head().hash not in text
    allowed = {"release", "program", "disk", "study", "cohort", "message"}
    assert {label for one in seen.figures for label in one.labels} <= allowed


def test_what_waits_for_a_person_is_said_with_its_remedy(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation.Lasting, "holds", lambda _, what, is_wrong, *for_s: is_wrong)
    monkeypatch.setattr(observation, "nearly_full", lambda *_: iter(()))
    found = {one.kind: one.text for one in looked(hospital).notices}
    digest = next(iter(approvals.waiting(hospital.settings)))
    assert set(found) == {"study", "program"}
    assert found["study"] == f"study unseen-study waits for approval: consilium-site review {digest[:12]}"
    assert found["program"].endswith("you were revoked")


def test_the_second_person_is_told_when_the_first_has_approved(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signature, "login_account", lambda: "")
    hospital.change(policy={"approvers": 2})
    seen = looked(hospital)
    notice = next(one for one in seen.notices if one.kind == "approval")
    assert notice.text == f"study demo-1: 1 more must approve: consilium-site review {digest(document)[:12]}"
    assert values(seen)["studies_approved[]"] == 0.0
    with hospital.records() as records:
        approvals.approve(document, "Ben Okafor", records.audit_log, hospital.settings)
    seen = looked(hospital)
    assert all(one.kind != "approval" for one in seen.notices)
    assert values(seen)["studies_approved[]"] == 1.0


def test_a_budget_that_is_nearly_spent_is_told(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    from client.link import observed

    monkeypatch.setattr(observed, "_SPENT", (0.0, 0.01, 2.0))
    notice = next(one for one in looked(hospital).notices if one.kind == "budget")
    assert notice.level == 2
    assert notice.text.endswith("of 20 is left: consilium-site ledger")


def test_a_damaged_ledger_is_told_and_costs_no_other_figure(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observation.Lasting, "holds", lambda _, what, is_wrong, *for_s: is_wrong)
    damaged = tmp_path / "ledger.sqlite"
    damaged.write_bytes(b"x" * 5000)
    damaged.chmod(0o600)
    before = hospital.file.read_text()
    try:
        hospital.change(ledger=str(damaged))
        seen = looked(hospital)
    finally:
        hospital.file.write_text(before)
    assert any(one.kind == "ledger" and "ledger verify" in one.text for one in seen.notices)
    assert "studies_waiting[]" in values(seen)


def test_the_records_are_read_again_only_when_a_row_was_added(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client.link import observed

    opened: list[int] = []
    real = observed.open_records

    def counting(*paths: object) -> object:
        opened.append(1)
        return real(*paths)  # type: ignore[arg-type]

    monkeypatch.setattr(observed, "open_records", counting)
    monkeypatch.setattr(observed, "_RECORDS_S", 0.0)
    look = SiteLook(hospital.file, hospital.settings.link / "both.json", None)
    for _ in range(3):
        look()
    assert len(opened) == 1
    hospital.approve(replace(document, name="another"))
    assert values(look())["studies_approved[]"] == 2.0
    assert len(opened) == 2
