"""What a person signs so that a hospital can answer again: shown first, asked, entered; never a traceback."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from client.cli.main import app
from client.ledger.audit_log import Kind
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import Refusal, TrainReport
from tests.client.hospital import Archive, Hospital, draw_archive, train

LOST = "ab" * 32


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive, document: StudyDocument) -> Hospital:
    hospital = Hospital.provision(tmp_path / "site", archive)
    hospital.approve(document)
    assert isinstance(hospital.ask(train(document)), TrainReport)
    return hospital


def _say(hospital: Hospital, *words: str, answer: str = "") -> Result:
    result = CliRunner().invoke(app, [*words, "--site", str(hospital.file)], input=answer)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def _words(text: str) -> str:
    return " ".join(text.split())


def test_other_terms_are_shown_with_their_price_and_signed(hospital: Hospital) -> None:
    hospital.change(validation_fraction=0.9)
    for words in (("ledger",), ("ledger", "verify"), ("check", "--json")):
        shown = _say(hospital, *words)
        assert "validation_fraction is 0.4 in the ledger and 0.9 in site.yaml" in _words(shown.output)
    assert _say(hospital, "ledger", "verify").exit_code == 1
    declined = _say(hospital, "ledger", "rebase", "--by", "Ada", answer="n\n")
    assert "The validation patients have spent 0.000; it will be 5.355" in _words(declined.output)
    assert declined.exit_code == 2
    assert _say(hospital, "ledger", "rebase", "--by", "Ada", "--json").exit_code == 2, "nobody could have answered"
    assert _say(hospital, "ledger", "rebase", "--by", "Ada", answer="y\n").exit_code == 0
    assert _say(hospital, "ledger", "verify").exit_code == 0
    (validation,) = [c for c in _ledger(hospital)["cohorts"] if c["cohort"] == "validation"]
    assert 5.3 < validation["epsilon"] < validation["with_set_aside"]
    assert "rebase" in _say(hospital, "audit").output


def _ledger(hospital: Hospital) -> dict[str, list[dict[str, Any]]]:
    told: dict[str, list[dict[str, Any]]] = json.loads(_say(hospital, "ledger", "--json").output)
    return told


def test_lost_entries_are_named_and_signed_for(hospital: Hospital, document: StudyDocument) -> None:
    assert isinstance(hospital.ask(replace(train(document, 2), ledger_head=LOST)), Refusal)
    for shown in (_say(hospital, "ledger"), _say(hospital, "ledger", "verify"), _say(hospital, "audit")):
        assert LOST[:12] in shown.output
    price = ["--spent-training", "0.2", "--spent-validation", "0", "--by", "Ada"]
    declined = _say(hospital, "ledger", "acknowledge", LOST[:12], *price, answer="n\n")
    assert (declined.exit_code, "train epsilon 0.2" in declined.output) == (2, True)
    for digits in ("zz", "cdcdcdcdcdcd"):
        assert _say(hospital, "ledger", "acknowledge", digits, *price, "--yes").exit_code == 2
    assert _say(hospital, "ledger", "acknowledge", LOST[:12], *price, "--yes").exit_code == 0
    assert _say(hospital, "ledger", "verify").exit_code == 0
    assert isinstance(hospital.ask(replace(train(document, 2), ledger_head=LOST)), TrainReport)


def test_an_audit_log_that_is_lost_is_begun_anew_and_one_that_is_not_is_kept(
    hospital: Hospital, document: StudyDocument
) -> None:
    said = ("ledger", "replace-audit-log", "--by", "Ada")
    kept = _say(hospital, *said, "--yes")
    assert (kept.exit_code, "it is not replaced" in _words(kept.output)) == (1, True)
    for file in hospital.file.parent.glob("audit.sqlite*"):
        file.unlink()
    assert _say(hospital, *said, answer="n\n").exit_code == 2
    assert not hospital.settings.audit_log.exists()
    assert _say(hospital, *said, answer="y\n").exit_code == 0
    with hospital.records() as records:
        assert records.verify() == []
        assert records.audit_log.events(Kind.AUDIT_LOG_REPLACED)[0].facts["by"] == "Ada"
    assert isinstance(hospital.ask(train(document, 2)), Refusal), "approvals were lost with it"


def test_the_ledger_shows_what_is_set_aside_and_revoking_frees_it(hospital: Hospital) -> None:
    (train_, validation) = _ledger(hospital)["studies"]
    assert train_["set_aside"] > 0
    assert validation["set_aside"] > 0
    digest = json.loads(_say(hospital, "approvals", "--json").output)[0]["digest"]
    freed = _say(hospital, "revoke", digest[:12], "--by", "Ada")
    assert "The epsilon it had set aside for the train patients is freed" in _words(freed.output)
    assert [study["set_aside"] for study in _ledger(hospital)["studies"]] == [0]


def test_a_changed_policy_is_pointed_out(hospital: Hospital, document: StudyDocument) -> None:
    assert "POLICY CHANGED" not in _say(hospital, "audit").output
    hospital.change(policy={"max_steps": 99})
    hospital.ask(train(document, 2))
    hospital.ask(train(document, 2))
    assert _words(_say(hospital, "audit").output).count("CHANGED") == 1


def test_identities_are_listed_and_signed(hospital: Hospital, archive: Archive, tmp_path: Path) -> None:
    assert _say(hospital, "identities").exit_code == 0
    for patient in sorted((archive.folder / "dicom").iterdir())[:2]:
        shutil.copytree(patient, tmp_path / "export" / patient.name)
    (own,) = archive.settings()["sources"]
    twice = [own, own | {"issuer": "research", "path": str(tmp_path / "export")}]
    other = Hospital.provision(tmp_path / "other", archive, sources=twice, catalog="catalog")
    early = _say(other, "identities")
    assert (early.exit_code, "No such pairs" in early.output) == (0, True)
    assert _say(other, "ingest", "--json").exit_code == 0
    listed = _say(other, "identities")
    assert (listed.exit_code, "Not signed as different people yet" in listed.output) == (1, True)
    assert "look like one person" in _say(other, "check", "--json").output
    assert _say(other, "identities", "--sign", "--by", "Ada").exit_code == 0
    assert _say(other, "identities").exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")
def test_root_is_refused_where_the_ledger_is_another_user_s(hospital: Hospital) -> None:
    """Its files would be root's, and the trainer could not read them."""
    os.chown(hospital.settings.ledger, 65534, 65534)
    told = _say(hospital, "ledger")
    assert told.exit_code == 2
    assert "belongs to user 65534" in told.stderr
