"""``consilium-site`` from the outside: what its people type, what they read, and the exit codes that programs see."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from client.cli.main import app
from client.ledger.account import Use
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import Receipt
from client.ledger.ledger import Caps, Planned
from client.ledger.records import Records, open_records
from client.oversight import approvals, signature
from client.site import SiteSettings, load, secret
from tasks.protocol.study import StudyDocument, canonical, digest
from tests.client.hospital import Hospital, draw_archive
from tests.client.reserving import reserve

COHORT = "train"
Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, provision_hospital: Callable[..., SiteSettings]) -> Path:
    """The folder of a hospital that has answered one order and refused another."""
    settings = provision_hospital()
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        _answered(records, "earlier", 1)
        records.audit_log.append_receipt(_receipt(records, "other", 1, "Refusal", "ab" * 32))
    return tmp_path


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The hospital has no images, and most of these tests are about other things than whether it has enough."""
    monkeypatch.setenv("CONSILIUM_SITE", str(home / "site.yaml"))
    monkeypatch.setattr("client.cohort.enough.require_enough", lambda settings, task: None)
    return lambda *arguments, **more: CliRunner().invoke(app, [str(argument) for argument in arguments], **more)


def _answered(records: Records, study: str, round: int) -> None:
    use = Use(COHORT, study, round, f"order {study} {round}")
    reserve(records.ledger, use, lambda account: Planned(Mechanism(2.0, 0.8, 3)), Caps(8.0, 20.0, 1e-4))
    records.ledger.commit(use, b"reply")
    sha256 = records.ledger.entries()[-1].reply_sha256
    assert sha256 is not None
    records.audit_log.append_receipt(_receipt(records, study, round, "TrainReport", sha256))


def _receipt(records: Records, study: str, round: int, message: str, sha256: str) -> Receipt:
    cohort, tensors = (COHORT, {"weight": "float32 (1, 10)"}) if message == "TrainReport" else (None, {})
    norm, before, after = (0.5, 0.0, 1.9) if cohort else (None, None, None)
    return Receipt(study, round, message, cohort, 5400, sha256, tensors, norm, before, after, records.ledger.head())


def _answer(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_a_hospital_is_founded_once(tmp_path: Path) -> None:
    site = tmp_path / "new" / "site.yaml"
    refused = CliRunner().invoke(app, ["init", "--site", str(site)])
    assert refused.exit_code == 2
    assert "--name" in refused.stderr
    made = _answer(CliRunner().invoke(app, ["init", "--site", str(site), "--name", "st-anne", "--json"]))["made"]
    assert [Path(path).name for path in made] == ["site.yaml", "site.key", "ledger.sqlite", "audit.sqlite"]
    assert load(site).name == load(site).sources[0].issuer == "st-anne"
    before = {path: path.read_bytes() for path in site.parent.iterdir()}
    assert _answer(CliRunner().invoke(app, ["init", "--site", str(site), "--json"]))["made"] == []
    assert {path: path.read_bytes() for path in site.parent.iterdir()} == before


@pytest.mark.parametrize("lost", ["ledger.sqlite", "audit.sqlite", "site.key"])
def test_what_was_lost_is_not_founded_anew(home: Path, run: Run, lost: str) -> None:
    (home / lost).unlink()
    result = run("init")
    assert result.exit_code in (1, 2)
    assert "backup" in result.stderr
    assert not (home / lost).exists()


def test_from_review_to_approval_to_revocation(home: Path, run: Run, document: StudyDocument) -> None:
    file = home / "study.json"
    file.write_text(json.dumps(json.loads(canonical(document)), indent=2), "utf-8")
    told = run("review", file)
    assert told.exit_code == 0, told.output
    for heading in ("What the study asks", "What leaves this hospital", "What it costs the patients", digest(document)):
        assert heading in told.stdout
    review = _answer(run("review", file, "--json"))
    assert (review["digest"], review["state"]) == (digest(document), "not approved")
    assert review["costs"][0]["cap"] == 20.0
    assert [each["digest"] for each in _answer(run("review", "--json"))] == [digest(document)]

    short = digest(document)[:8]
    approved = _answer(run("approve", short, "--by", "Dr. Ada Noor", "--json"))
    assert (approved["digest"], approved["state"], approved["by"]) == (digest(document), "approved", "Dr. Ada Noor")
    assert _answer(run("review", "--json")) == []
    assert _answer(run("review", short, "--json"))["state"] == "approved", "a digest reads the study again"
    assert _answer(run("revoke", short, "--json"))["state"] == "revoked"
    assert [(d["state"], d["study"]) for d in _answer(run("approvals", "--json"))] == [("revoked", document.name)]


def test_two_people_approve(
    home: Path, run: Run, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, site_policy: Callable[..., None]
) -> None:
    for module in (approvals, signature):
        monkeypatch.setattr(module, "login_account", lambda: "")
    site_policy(approvers=2)
    (home / "study.json").write_text(canonical(document), "utf-8")
    short = digest(document)[:12]
    told = run("review", home / "study.json").stdout
    assert "2 people must approve (policy.approvers)." in told
    assert f"consilium-site approve {short} --by NAME" in told

    nameless = run("approve", short)
    assert nameless.exit_code == 2
    assert "add --by with your own name" in nameless.stderr
    first = run("approve", short, "--by", "Ada Noor")
    assert first.exit_code == 0
    assert "1 of 2. It is not approved yet: 1 more person must approve, other than Ada Noor" in " ".join(
        first.stdout.split()
    )
    again = run("approve", short, "--by", "Dr. Ada Noor")
    assert again.exit_code == 1
    assert "counts once" in again.stderr
    (waiting,) = _answer(run("review", "--json"))
    assert (waiting["approved_by"], waiting["approvers"]) == (["Ada Noor"], 2)
    table = run("review").stdout
    assert "Ada Noor" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "Approved by Ada Noor on 20" in run("review", short).stdout

    second = _answer(run("approve", short, "--by", "Ben Okafor", "--json"))
    assert (second["state"], second["waits_for"]) == ("approved", "")
    assert [each["by"] for each in second["approved_by"]] == ["Ada Noor", "Ben Okafor"]
    assert _answer(run("review", "--json")) == []
    assert "Ada Noor, Ben Okafor" in " ".join(run("approvals").stdout.split())
    assert [event["facts"]["by"] for event in _answer(run("audit", "--kind", "approval", "--json"))] == [
        "Ada Noor",
        "Ben Okafor",
    ]
    assert run("revoke", short, "--by", "Ben Okafor").exit_code == 0
    assert _answer(run("approvals", "--json"))[0]["state"] == "revoked"


@pytest.fixture
def site_policy(home: Path) -> Callable[..., None]:
    """Changes the hospital's policy."""

    def change(**rules: object) -> None:
        values = yaml.safe_load((home / "site.yaml").read_text("utf-8"))
        values["policy"] |= rules
        (home / "site.yaml").write_text(yaml.safe_dump(values), "utf-8")

    return change


@pytest.mark.parametrize(("least", "code"), [(5, 0), (1000, 1)])
def test_who_has_too_few_patients_is_told_when_approving(
    tmp_path: Path, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, least: int, code: int
) -> None:
    """By then, because an order's answer must not tell; before there was any image as well."""
    hospital = Hospital.provision(tmp_path / "site", draw_archive(tmp_path / "archive"), policy={"min_patients": least})
    monkeypatch.setenv("CONSILIUM_SITE", str(hospital.file))
    (tmp_path / "study.json").write_text(canonical(document), "utf-8")
    CliRunner().invoke(app, ["review", str(tmp_path / "study.json")])
    told = CliRunner().invoke(app, ["approve", digest(document)[:12], "--by", "Ada"])
    assert told.exit_code == code, told.output
    if code:
        assert "1000 are required to take part: ingest more" in told.stderr


def test_nobody_approves_before_images_were_read(
    home: Path, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSILIUM_SITE", str(home / "site.yaml"))
    (home / "study.json").write_text(canonical(document), "utf-8")
    CliRunner().invoke(app, ["review", str(home / "study.json")])
    told = CliRunner().invoke(app, ["approve", digest(document)[:12], "--by", "Ada"])
    assert told.exit_code == 1
    assert "run: consilium-site ingest" in told.stderr


def test_nobody_approves_what_was_never_read(run: Run, document: StudyDocument) -> None:
    answer = _answer(run("approve", digest(document), "--json"), code=2)
    assert "read first: consilium-site review FILE" in answer["message"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["approve", "0" * 12], "no study here has a digest that starts with 000000000000"),
        (["approve", "abc"], "'abc' is too short: give at least 8 digits"),
        (["approve", "study.json"], "'study.json' is no digest"),
        (["revoke", ""], "'' is no digest"),
        (["review", "absent.json"], "there is no such file; name the file that the coordinator sent you"),
        (["review", "x" * 5000], "there is no such file"),
        (["review", "."], "cannot be read as a document: it is a folder; name a file"),
        (["enroll", "--invitation", "."], "cannot be read as an invitation: it is a folder; name a file"),
        (["enroll", "--invitation", "absent"], "cannot be read as an invitation: there is no such file"),
        (["compare", "0" * 12, "absent"], "no study here has a digest"),
        (["ledger", "backup", "/proc/none/backup"], "/proc/none"),
        (["init", "--site", "/proc/none/site.yaml", "--name", "st-anne"], "/proc/none: there is no such file"),
        (["dashboard", "--listen", "127.0.0.1:99999"], "--listen 127.0.0.1:99999"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_input_is_misuse_and_a_sentence(run: Run, words: list[str], told: str) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert told in result.stderr
    assert "Errno" not in result.stderr


def test_a_name_that_no_hospital_can_have_leaves_no_file_behind(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    refused = CliRunner().invoke(app, ["init", "--site", str(site), "--name", "St. Anne"])
    assert refused.exit_code == 2
    assert "at most 40 letters" in refused.stderr
    assert not site.exists()


def test_a_study_that_the_policy_refuses_is_told_with_exit_code_1(
    home: Path, run: Run, document: StudyDocument
) -> None:
    file = home / "study.json"
    fine = replace(document, evaluation=replace(document.evaluation, bins=1024))
    file.write_text(canonical(fine), "utf-8")
    refused = _answer(run("review", file, "--json"), code=1)["refused"]
    assert refused == {"training": [], "evaluation": ["1024 cells per histogram, policy.max_bins is 64"]}
    approved = run("approve", digest(fine)[:12], "--by", "Ada")
    assert approved.exit_code == 0
    assert "The policy still refuses (evaluation): 1024 cells" in approved.stdout


def test_a_study_that_tells_nothing_is_approved_by_those_only_who_say_so(
    home: Path, run: Run, document: StudyDocument
) -> None:
    blurred = replace(document, evaluation=replace(document.evaluation, releases=60, bins=64))
    (home / "study.json").write_text(canonical(blurred), "utf-8")
    assert "tell nothing" in " ".join(run("review", home / "study.json").stdout.split())
    refused = run("approve", digest(blurred)[:12], "--by", "Ada")
    assert refused.exit_code == 1
    assert "--uninformative" in refused.stderr
    assert run("approvals", "--json").stdout.strip() == "[]"
    assert run("approve", digest(blurred)[:12], "--uninformative", "--by", "Ada").exit_code == 0


@pytest.mark.parametrize(("content", "says"), [("{}", "not a study document"), ("\x00", "not a study document")])
def test_what_is_no_study_is_misuse(home: Path, run: Run, content: str, says: str) -> None:
    (home / "study.json").write_text(content, "utf-8")
    result = run("review", home / "study.json")
    assert result.exit_code == 2
    assert says in result.stderr
    assert run("review", home / "absent.json").exit_code == 2


def test_a_document_cannot_talk_to_the_terminal(home: Path, run: Run, document: StudyDocument) -> None:
    file = home / "study.json"
    evil: dict[str, str | int | float | bool] = {"name": "scatter_linear", "note": "\x1b]0;owned\x07[red]markup[/red]"}
    file.write_text(canonical(replace(document, model=evil)), "utf-8")
    told = run("review", file)
    assert "\x1b" not in told.output
    assert "[red]markup[/red]" in told.output


def test_the_ledger_is_told_against_the_caps(home: Path, run: Run) -> None:
    facts = _answer(run("ledger", "--json"))
    (cohort,), (study,) = facts["cohorts"], facts["studies"]
    assert (cohort["cohort"], cohort["cap"], cohort["orders"]) == (COHORT, 20.0, 1)
    assert cohort["left"] == pytest.approx(20.0 - cohort["epsilon"])
    assert (study["study"], study["cap"], study["lost"]) == ("earlier", 8.0, 0)
    table = run("ledger").stdout
    assert f"{cohort['epsilon']:.3f}" in table
    assert max(map(len, table.splitlines())) <= 80


def test_an_order_that_was_cut_short_is_counted_as_lost(home: Path, run: Run) -> None:
    settings = load(home / "site.yaml")
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        plan = Mechanism(2.0, 0.8, 3)
        reserve(
            records.ledger, Use(COHORT, "earlier", 2, "cut short"), lambda account: Planned(plan), Caps(8.0, 20.0, 1e-4)
        )
    assert _answer(run("ledger", "--json"))["studies"][0]["lost"] == 1


def test_a_row_that_was_changed_is_named(home: Path, run: Run) -> None:
    for command in ("ledger", "audit"):
        assert _answer(run(command, "verify", "--json")) == {
            "faults": [],
            "without_receipt": [],
            "rows": {"ledger": 3, "audit_log": 3},
        }
    with sqlite3.connect(home / "ledger.sqlite") as database:
        database.execute("DROP TRIGGER chain_keeps_values")
        database.execute("""UPDATE chain SET body = replace(body, '"count":3', '"count":1') WHERE seq = 1""")
    for command in ("ledger", "audit"):
        result = run(command, "verify")
        assert result.exit_code == 1
        assert "FAULT ledger: row 1: was changed" in " ".join(result.output.split())


def test_a_backup_has_both_records_and_restores(home: Path, run: Run) -> None:
    copies = _answer(run("ledger", "backup", home / "safe", "--json"))["copies"]
    for copy in map(Path, copies):
        for suffix in ("-wal", "-shm"):
            (home / (copy.name + suffix)).unlink(missing_ok=True)
        copy.replace(home / copy.name)
    assert run("ledger", "verify").exit_code == 0
    assert run("ledger", "backup", home).exit_code == 2, "a folder that exists is not written into"


def test_the_audit_log_is_filtered(run: Run) -> None:
    def kinds(*arguments: str) -> list[tuple[str, str]]:
        found = _answer(run("audit", *arguments, "--json"))
        return [(entry["kind"], entry.get("study") or entry["facts"]["by"]) for entry in found]

    run("stop", "--by", "Ada", "--reason", "asked by the board")
    everything = [("receipt", "earlier"), ("receipt", "other"), ("stop", "Ada")]
    assert kinds() == everything
    assert kinds("--kind", "receipt") == everything[:2]
    assert kinds("--kind", "stop") == everything[2:]
    assert kinds("--study", "earlier") == everything[:1]
    assert kinds("--since", "2020-01-01") == everything
    assert kinds("--since", "2999-01-01T00:00+02:00") == []
    table = run("audit").stdout
    assert "SHA-256 abababababab" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 80
    assert run("audit", "--kind", "gossip").exit_code == 2
    assert run("audit", "--since", "yesterday").exit_code == 2


def test_stop_and_resume(home: Path, run: Run) -> None:
    assert _answer(run("status", "--json"))["stopped"] is False
    assert _answer(run("stop", "--by", "Ada", "--json"))["already"] is False
    assert _answer(run("stop", "--by", "Ada", "--json"))["already"] is True
    assert (home / "STOP").exists()
    assert _answer(run("status", "--json"), code=3)["stopped"] is True
    assert _answer(run("resume", "--by", "Ada", "--json"))["had_stopped"] is True
    assert _answer(run("resume", "--by", "Ada", "--json"))["had_stopped"] is False
    assert [e["kind"] for e in _answer(run("audit", "--json"))[2:]] == ["stop", "resumption"]


def test_a_hospital_with_broken_records_stops_and_stays_stopped(home: Path, run: Run) -> None:
    (home / "audit.sqlite").unlink()
    stopped = run("stop", "--by", "Ada")
    assert stopped.exit_code == 0
    assert "This could not be entered in the audit log" in stopped.stdout
    assert run("resume", "--by", "Ada").exit_code == 1
    assert (home / "STOP").exists()


@pytest.mark.parametrize("command", ["status", "review", "approvals", "ledger", "audit", "stop", "resume"])
def test_a_wrong_site_file_is_exit_code_2(tmp_path: Path, command: str) -> None:
    missing = ["--site", str(tmp_path / "nowhere.yaml")]
    assert CliRunner().invoke(app, [command, *missing]).exit_code == 2
    answer = _answer(CliRunner().invoke(app, [command, *missing, "--json"]), code=2)
    assert (answer["error"], answer["kind"]) == ("SITE_MISCONFIGURED", "SiteMisconfigured")


def test_the_installed_command_tells_its_exit_codes(home: Path) -> None:
    command = Path(sys.executable).parent / "consilium-site"
    told = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=120, check=True).stdout
    assert "Exit codes: 0 success." in told
    site = ["--site", str(home / "site.yaml")]
    status = subprocess.run([command, "status", *site, "--json"], capture_output=True, timeout=120, check=True)
    assert json.loads(status.stdout)["messages_left"] == 2
