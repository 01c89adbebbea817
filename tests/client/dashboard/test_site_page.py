"""The steward's page: what waits, what ran, what is left; no patient, and nothing that fails hides the rest."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.dashboard import site_page
from client.dashboard.site_page import SitePage
from client.oversight import approvals, signature
from client.oversight.budget import by_cohort
from client.oversight.review import examine
from tasks.protocol.study import PrivacyTerms, StudyDocument, digest
from tests.client.hospital import Archive, Hospital, draw_archive, evaluate, train
from tests.client.surveying import survey


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive, document: StudyDocument, monkeypatch: pytest.MonkeyPatch) -> Hospital:
    """Two people must approve; one study has run, one waits for the second person, one for both, one is refused."""
    for module in (approvals, signature):
        monkeypatch.setattr(module, "login_account", lambda: "")
    made = Hospital.provision(tmp_path / "site", archive, policy={"approvers": 2, "surveys": ["label"]})
    half = replace(document, name="half-approved", privacy=PrivacyTerms(2.0, 1e-4, 0.5))
    with made.records() as records:
        for name, studies in (("Ada Noor", (document, half)), ("Ben Okafor", (document,))):
            for one in studies:
                approvals.keep(one, made.settings)
                approvals.approve(one, name, records.audit_log, made.settings)
    made.ask(train(document))
    made.ask(evaluate(document))
    made.ask(train(replace(document, name="refused", evaluation=replace(document.evaluation, bins=128))))
    approvals.keep(survey(), made.settings)
    return made


def words(html: str) -> str:
    return " ".join(re.sub(r"(?s)<style>.*?</style>|<[^>]+>", " ", html).split())


def test_it_shows_what_waits_what_ran_and_what_left(hospital: Hospital, document: StudyDocument) -> None:
    shown = words(SitePage(hospital.file)())
    assert "Answers orders" in shown
    assert "half-approved breast_ultrasound training 2 at most; validation 4 at most permits 1 of 2: Ada Noor" in shown
    assert "ask-1 breast_ultrasound training 1 at most; validation 1 at most permits 0 of 2" in shown
    assert "refused" in shown
    assert "refuses: 128 cells" in shown
    assert "demo-1 approved Ada Noor, Ben Okafor training" in shown
    assert f"consilium-site review {digest(document)[:12]}" not in shown, "it is decided"
    with hospital.records() as records:
        receipts = records.audit_log.receipts()
    assert f"{len(receipts)} messages, {sum(one.bytes for one in receipts):,} bytes in all" in shown
    assert all(one.sha256[:12] in shown for one in receipts)
    assert "not running here" in shown


def test_the_gauge_is_the_ledgers_and_says_what_the_next_study_takes(hospital: Hospital) -> None:
    shown = words(SitePage(hospital.file)())
    with hospital.records() as records:
        cohorts = {one.cohort: one for one in by_cohort(records.ledger, hospital.settings)}
    for name, told in (("train", "Training"), ("validation", "Validation")):
        one = cohorts[name]
        assert f"{told} patients: {one.left:.2f} of 20 left." in shown
        aside = one.with_set_aside - one.epsilon
        assert f"spent {one.epsilon:.2f} set aside for studies under way {aside:.2f}" in shown
    takes = [float(number) for number in re.findall(r"half-approved would take ([\d.]+)", shown)]
    assert len(takes) == 2, "the one that waits longest, not what is refused or has begun"
    assert all(number > 0 for number in takes)


def test_what_it_would_cost_is_computed_once_for_each_state_of_the_ledger(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    examined: list[str] = []
    real = examine

    def counting(document: StudyDocument, *rest: object) -> object:
        examined.append(document.name)
        return real(document, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(site_page, "examine", counting)
    shown = SitePage(hospital.file)
    first = words(shown())
    assert words(shown()).split("UTC", 1)[1] == first.split("UTC", 1)[1]
    assert sorted(examined) == ["half-approved", "refused"]
    hospital.ask(train(document, 2))
    shown()
    assert len(examined) == 4


def test_no_patient_and_no_path_is_on_it(hospital: Hospital, archive: Archive) -> None:
    html = SitePage(hospital.file)()
    labels = (archive.folder / "labels.csv").read_text("utf-8").splitlines()[1:]
    assert not [uid for line in labels if (uid := line.split(",")[0]) in html]
    assert str(archive.folder) not in html


def test_a_name_that_is_markup_is_text(hospital: Hospital, document: StudyDocument) -> None:
    path = hospital.settings.audit_log.parent / "pending"
    with pytest.raises(ValueError, match="name"):
        approvals.keep(replace(document, name="<script>"), hospital.settings)
    assert "<script" not in SitePage(hospital.file)(), path


def test_what_cannot_be_read_hides_nothing_else(hospital: Hospital) -> None:
    pending = hospital.settings.audit_log.parent / "pending"
    one = next(pending.iterdir())
    before = one.read_text("utf-8")
    one.write_text(before.replace("breast", "chest"), "utf-8")
    shown = words(SitePage(hospital.file)())
    assert "content does not match the file name" in shown
    assert "Training patients:" in shown
    one.write_text(before, "utf-8")
    hospital.settings.ledger.write_bytes(b"x" * 5000)
    shown = words(SitePage(hospital.file)())
    assert "cannot be read" in shown
    assert "consilium-site ledger verify" in shown
    assert "Health" in shown
    hospital.file.write_text("name: [", "utf-8")
    assert "cannot read" in words(SitePage(hospital.file)())


def test_a_stopped_hospital_is_told_first(hospital: Hospital) -> None:
    hospital.settings.stop_file.touch()
    assert "STOPPED: nothing leaves" in words(SitePage(hospital.file)())


def test_the_command_serves_it_on_loopback_until_it_is_ended(hospital: Hospital) -> None:
    refused = CliRunner().invoke(app, ["dashboard", "--site", str(hospital.file), "--listen", "0.0.0.0:0"])
    assert refused.exit_code == 2
    assert "this machine only" in refused.stderr
    command = [str(Path(sys.executable).parent / "consilium-site"), "dashboard", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "CONSILIUM_SITE": str(hospital.file)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            answer = httpx.get(url, trust_env=False, timeout=60)
            assert answer.status_code == 200
            assert "half-approved" in answer.text
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("lang", "told"),
    [("de", "nur zum Lesen|Wartet auf Personen hier|höchstens 2"), ("zh", "只读|等待本院人员处理|至多 2")],
)
def test_it_speaks_the_hospitals_language(hospital: Hospital, lang: str, told: str) -> None:
    hospital.file.write_text(f"{hospital.file.read_text('utf-8')}\nlang: {lang}\n", "utf-8")
    html = SitePage(hospital.file)()
    shown = words(html)
    assert f"<html lang={lang}" in html
    assert all(part.lower() in shown.lower() for part in told.split("|"))
    assert re.findall(r"\b(?:the|of|is|what|left)\b", shown) == [], "nothing is left in English"
    assert len(shown) > 500
