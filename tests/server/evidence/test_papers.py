"""The server's papers: each sentence leads to a value in a file, and outlines say what is for people to add."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.cli.server import QUIET
from server.deployment import security
from server.deployment.server_dir import Hospital, ServerDir, read
from server.evidence.installation import Server
from server.evidence.papers import pack
from tasks.machine.evidence import Pack, Paper
from tasks.machine.language import Language, spoken
from tasks.metrics.membership import advantage

RUN = CliRunner()
ROOT = Path(__file__).parent.parent.parent.parent
CONFIG: dict[str, Any] = {
    "task": {"name": "breast_ultrasound"},
    "model": {"name": "scatter_linear", "weights": ""},
    "strategy": {"name": "fedavg"},
    "training": {"steps": 2},
    "privacy": {"epsilon": 8.0, "delta": 1e-4},
    "federation": {"rounds": 3, "validation_fraction": 0.3},
    "evaluation": {"gate": {"auc": 0.8, "sensitivity": None}},
    "seed": 1,
}
RESULTS: dict[str, Any] = {
    "epsilon": {"alder": 2.0, "birch": None},
    "validation_epsilon": {"alder": 1.0},
    "arms": {"federated": {"alder": {"auc": 0.9, "auc_low": 0.7, "auc_high": 0.97}, "birch": {"auc": None}}},
    "bytes_up": {"alder": 1200, "birch": 800},
    "seconds": 12.0,
    "warnings": ["Sensitivity is below one half."],
    "dropped": {"birch": "late"},
    "gate": ["alder: AUC 0.70 is below 0.80"],
    "groups": [],
}


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    path = tmp_path / "home"
    assert RUN.invoke(app, ["init", "--host", "federation.example.org", "--home", str(path)]).exit_code == 0
    made = read(path)
    made.register({"alder": Hospital("alder", 1, "ab12 cd34", "2026-11-30T10:00:00")})
    study(made, "done", {"state": "finished"}, RESULTS)
    study(made, "begun", {"state": "running"})
    (path / "studies" / "damaged").mkdir()
    (path / "studies" / "damaged" / "study.json").write_text("{")
    return made


def study(home: ServerDir, name: str, facts: dict[str, Any], results: dict[str, Any] | None = None) -> None:
    folder = home.path / "studies" / name
    folder.mkdir()
    told = {"study": name, "config": CONFIG, "asked_by": "rosalind", "hospitals": ["alder", "birch"]} | facts
    (folder / "study.json").write_text(json.dumps(told | {"model_sha256": "de82" * 16}))
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))


def made(home: ServerDir, only: str = "") -> Pack:
    return pack(Server.of(home, security.checklist(home, QUIET), only))


def text(paper: Paper, missing: bool = False) -> str:
    return " ".join(sentence.text for sentence in paper.sentences() if sentence.missing == missing)


def test_a_model_that_is_finished_has_two_outlines(home: ServerDir) -> None:
    papers = {paper.name: paper for paper in made(home).papers}
    assert set(papers) == {"record-of-processing", "attack-risk", "annex-iv-done", "change-control-done"}
    annex = papers["annex-iv-done"]
    headings = [section.heading for section in annex.sections]
    assert [number for n in range(1, 10) if not any(h.startswith(f"{n}") for h in headings) for number in [n]] == []
    assert "AUC at alder, on its validation patients: 95 % interval 0.70 to 0.97." in text(annex)
    assert "the AUC at birch: its figures give none." in text(annex, missing=True)
    assert "A reader must know first (1): Sensitivity is below one half." in text(annex)
    for gap in ("intended purpose", "human oversight", "declaration", "article 72", "risk management system"):
        assert gap in text(annex, missing=True)
    plan = papers["change-control-done"]
    assert "auc 0.8. They were not reached: alder: AUC 0.70 is below 0.80." in text(plan)
    assert "which modifications are planned" in text(plan, missing=True)


def test_every_reference_is_a_value_that_is_there(home: ServerDir) -> None:
    checked = 0
    for basis in made(home).sources:
        if match := re.fullmatch(r"(studies/\w+/[\w.]+): ([\w.]+) = (.*)", basis.text):
            value: Any = json.loads((home.path / match[1]).read_text())
            for part in match[2].split("."):
                value = value[part]
            assert json.dumps(value, ensure_ascii=False).startswith(match[3].removesuffix(" …"))
            checked += 1
        elif basis.key[0] == "P":
            assert (ROOT / basis.text.split(" of release")[0]).is_file()
    assert checked > 20


def test_the_risk_is_that_of_the_reported_epsilon(home: ServerDir) -> None:
    (risk,) = [paper for paper in made(home).papers if paper.name == "attack-risk"]
    told = text(risk)
    assert "Training patients of alder: epsilon 2.000 at delta 0.0001: a guess is right for at most " in told
    assert f"(advantage {100 * advantage(2.0, 1e-4):.1f} %)" in told
    assert "Training patients of birch: no noise was added" in told
    assert "what begun has spent: it has no results" in text(risk, missing=True)


def test_what_cannot_be_read_is_missing_and_not_made_up(home: ServerDir) -> None:
    (record,) = [paper for paper in made(home).papers if paper.name == "record-of-processing"]
    assert "of damaged does not say it" in text(record, missing=True)
    assert "Hospital alder was admitted on 2026-11-30" in text(record)


@pytest.mark.parametrize("language", ["de", "zh"])
def test_all_of_it_is_in_the_language_spoken_and_rests_on_the_same(home: ServerDir, language: Language) -> None:
    english = made(home)
    with spoken(language):
        other = made(home)
    for before, after in zip(english.papers, other.papers, strict=True):
        assert (before.name, before.title == after.title, before.about == after.about) == (after.name, False, False)
        for one, told in zip(before.sentences(), after.sentences(), strict=True):
            assert one.text != told.text
            assert (one.sources, one.missing) == (told.sources, told.missing)


def test_the_command(home: ServerDir, tmp_path: Path) -> None:
    words = ["evidence", str(tmp_path / "papers"), "--home", str(home.path)]
    told = RUN.invoke(app, [*words, "--study", "done", "--json"])
    assert told.exit_code == 0, told.output
    names = {paper["name"] for paper in json.loads(told.stdout)["papers"]}
    assert names == {"record-of-processing", "attack-risk", "annex-iv-done", "change-control-done"}
    assert (tmp_path / "papers" / "annex-iv-done.html").stat().st_mode & 0o777 == 0o600
    german = RUN.invoke(app, ["evidence", str(tmp_path / "de"), "--home", str(home.path), "--lang", "de"])
    assert german.exit_code == 0, german.output
    assert "<html lang=de>" in (tmp_path / "de" / "annex-iv-done.html").read_text("utf-8")
    again = RUN.invoke(app, words)
    assert (again.exit_code, "name a folder that does not" in again.stderr) == (2, True)
    unknown = RUN.invoke(app, ["evidence", str(tmp_path / "more"), "--home", str(home.path), "--study", "nobody"])
    assert (unknown.exit_code, "no study nobody" in unknown.stderr) == (2, True)
