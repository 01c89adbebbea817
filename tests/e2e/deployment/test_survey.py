"""A survey between real processes over TLS: proposed, reviewed and approved by hospital staff, asked, paid for."""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path

import httpx
import yaml

from server.deployment.server_dir import read
from tests.e2e.deployment.federation import CALM, Federation, Hospital, site_command, told
from tests.e2e.deployment.ledger_rows import ledger_rows, problems_in_records

ASKED = ("ask.by=[label,sex,intensity]", "ask.intensities=8", "ask.epsilon=4")


def words(made: Federation, *more: str) -> list[str]:
    python, option, code, *settings = made.study_words(*ASKED, *more)
    return [python, option, code, "ask", *settings]


def needs_a_person(hospital: Hospital) -> None:
    values = yaml.safe_load(hospital.site.read_text("utf-8"))
    values["policy"] |= {"auto_approve": False, "surveys": ["label", "sex", "intensity"]}
    hospital.site.write_text(yaml.safe_dump(values), "utf-8")


def approve(hospital: Hospital, document: Path) -> str:
    """What the steward reads before approving."""
    said = told(site_command("review", document, "--site", hospital.site))
    digest = next(line.split()[-1] for line in said.splitlines() if "Digest:" in line)
    told(site_command("approve", digest, "--by", "Dr. Ada Noor", "--site", hospital.site))
    return said


def test_a_survey_goes_from_proposal_to_figures(small: Federation, tmp_path: Path) -> None:
    alder, birch = small.hospitals
    for hospital in small.hospitals:
        needs_a_person(hospital)

    told(words(small, f"propose={tmp_path / 'ask.json'}"))
    said = approve(alder, tmp_path / "ask.json")
    assert "Nothing is trained and no image is scored" in said
    assert "rosalind asks for it" in said
    assert "3 tables of 13 numbers" in " ".join(said.split())

    ended = subprocess.run(words(small), capture_output=True, text=True, env=os.environ | CALM, timeout=420)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Without birch: refused with NOT_APPROVED" in ended.stdout
    assert "Patients by finding" in ended.stdout
    name = json.loads((tmp_path / "ask.json").read_text("utf-8"))["name"]
    fetched = small.folder / "outputs" / "studies" / name
    found = json.loads((fetched / "survey.json").read_text("utf-8"))
    patients, noise = sum(found["tables"][0]["counts"]["alder"]), found["noise"]["alder"]
    assert abs(patients - 30) < 6 * noise * math.sqrt(2), "as many as were drawn"
    page = (fetched / "report.html").read_text("utf-8")
    assert "The hospitals are real" in page
    assert "birch is not in these figures" in page
    assert small.facts()["state"] == "finished"

    assert ledger_rows(alder, name) == [("train", 0), ("validation", 0)]
    assert ledger_rows(birch, name) == [], "who has not approved has not paid"
    assert problems_in_records(alder) == problems_in_records(birch) == []
    assert name in told(site_command("ledger", "--json", "--site", alder.site))

    mlflow = read(small.home).mlflow
    runs = httpx.post(
        f"{mlflow}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": f"tags.fl_study = '{name}'"},
        trust_env=False,
    ).json()["runs"]
    assert any("ask/sex/female/alder/low" in {m["key"] for m in run["data"].get("metrics", [])} for run in runs)
    assert str(small.folder) not in json.dumps(runs)


def test_both_answer_once_both_have_approved(small: Federation, tmp_path: Path) -> None:
    for hospital in small.hospitals:
        needs_a_person(hospital)
    told(words(small, "seed=2", f"propose={tmp_path / 'ask.json'}"))
    for hospital in small.hospitals:
        approve(hospital, tmp_path / "ask.json")
    shown = told(words(small, "seed=2"))
    assert "Without" not in shown
    name = json.loads((tmp_path / "ask.json").read_text("utf-8"))["name"]
    assert [ledger_rows(each, name) for each in small.hospitals] == [[("train", 0), ("validation", 0)]] * 2


def test_what_cannot_be_asked_is_told_before_anything_is_sent(small: Federation) -> None:
    shown = told(words(small, "ask.by=[glucose]"), code=2)
    assert "has no glucose; it has label" in " ".join(shown.split())
