"""The hospital's papers: every sentence leads to what the installation says, and what it does not say is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.dashboard.site_page import SitePage
from client.evidence.attack_risk import odds
from client.evidence.installation import Books, Installation
from client.evidence.papers import pack
from client.ledger.accounting import advantage_of, epsilon_of
from client.link.security import checklist
from client.oversight.settings import every_setting
from tasks.machine import evidence
from tasks.machine.evidence import Pack, Sentence
from tasks.machine.language import Language, spoken
from tasks.protocol.study import StudyDocument, digest
from tests.client.hospital import Archive, Hospital, draw_archive, evaluate, train
from tests.client.surveying import survey

ROOT = Path(__file__).parent.parent.parent.parent


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive, document: StudyDocument) -> Hospital:
    """One that has answered two orders of a study and refused another's."""
    made = Hospital.provision(tmp_path / "site", archive)
    made.approve(replace(document, asked_by="rosalind"), survey("label*sex"))
    made.ask(train(replace(document, asked_by="rosalind")))
    made.ask(evaluate(replace(document, asked_by="rosalind")))
    made.ask(train(replace(document, name="unseen")))
    return made


def found(hospital: Hospital) -> Installation:
    settings = hospital.settings
    with hospital.records() as records:
        books = Books.of(records, settings)
    return Installation(settings, hospital.file, checklist(settings, hospital.file, "127.0.0.1:9094"), books)


def sentences(made: Pack) -> list[Sentence]:
    return [sentence for paper in made.papers for sentence in paper.sentences()]


def test_every_reference_is_what_it_says(hospital: Hospital, document: StudyDocument) -> None:
    here = found(hospital)
    made = pack(here)
    assert {paper.name for paper in made.papers} == {
        "impact-assessment",
        "record-of-processing",
        "what-leaves",
        "attack-risk",
    }
    sources = {source.key: source.text for source in made.sources}
    yaml_lines = hospital.file.read_text("utf-8").splitlines()
    rows = {entry.reserved for entry in hospital.entries()}
    with hospital.records() as records:
        audit = {e.seq for e in records.audit_log.events()} | {r.seq for r in records.audit_log.receipts()}
    seen = set()
    for key, text in sources.items():
        seen.add(key[0])
        if match := re.match(r"site.yaml, line (\d+): ([\w.]+):", text):
            assert match[2].rpartition(".")[2] in yaml_lines[int(match[1]) - 1] or match[2].startswith("sources.")
        elif match := re.match(r"(\S+), documents/(\S+), line (\d+): (.*)", text):
            assert here.documents[match[2]][int(match[3]) - 1] == match[4]
        elif key[0] == "L":
            assert int(key[1:]) in rows
        elif key[0] == "A":
            assert int(key[1:]) in audit
        elif key[0] == "P":
            section = re.findall("“(.*)”", text)[0]
            assert f"## {section}\n" in (ROOT / "client" / "PRIVACY.md").read_text("utf-8")
    assert seen == {"S", "Y", "D", "L", "A", "P"}


def test_it_says_who_approved_who_asks_and_what_left(hospital: Hospital) -> None:
    text = " ".join(sentence.text for sentence in sentences(pack(found(hospital))))
    assert "demo-1 is approved. Approved by Dr. Ada Noor on 20" in text
    assert "Survey ask-1 counts patients by label.sex" in text
    assert "rosalind asks for studies" in text
    assert "1 TrainReport: " in text
    assert "1 EvaluateReport: " in text
    assert "1 Refusal NOT_APPROVED: " in text


def test_the_risk_is_the_ledgers(hospital: Hospital) -> None:
    spent = [entry.mechanism for entry in hospital.entries() if entry.use.cohort == "train"]
    (risk,) = [paper for paper in pack(found(hospital)).papers if paper.name == "attack-risk"]
    text = " ".join(sentence.text for sentence in risk.sentences())
    assert f"Training patients: epsilon {epsilon_of(spent, 1e-4):.3f} at delta 0.0001" in text
    assert f"(advantage {100 * advantage_of(spent):.1f} %)" in text
    assert odds(8.0) == "2,981"
    assert odds(100.0) == "more than 10^12"


def test_what_is_not_known_is_missing_and_never_made_up(tmp_path: Path, archive: Archive) -> None:
    """A hospital without a server, a study and a running program."""
    made = pack(found(Hospital.provision(tmp_path / "site", archive)))
    gaps = [sentence.text for sentence in sentences(made) if sentence.missing]
    for gap in ("the server: site.yaml names none yet", "no study has been approved here", "the legal basis",
                "advice of the data protection officer", "Traffic is encrypted"):  # fmt: skip
        assert any(gap in text for text in gaps), gap
    assert any("Nothing has left" in sentence.text for sentence in sentences(made))


def test_a_check_that_needs_a_look_is_told_beside_its_sentence(hospital: Hospital, tmp_path: Path) -> None:
    evidence.write(tmp_path / "papers", pack(found(hospital)))
    text = (tmp_path / "papers" / "impact-assessment.md").read_text("utf-8")
    line = next(line for line in text.splitlines() if "Images cannot be changed" in line)
    assert re.search(r"\*\*S\d+ needs a look\.\*\*$", line), "these phantoms lie in a folder that can be written"


def test_no_patient_is_in_it(hospital: Hospital, archive: Archive, tmp_path: Path) -> None:
    evidence.write(tmp_path / "papers", pack(found(hospital)))
    text = " ".join(path.read_text("utf-8") for path in (tmp_path / "papers").iterdir() if path.is_file())
    labels = (archive.folder / "labels.csv").read_text("utf-8").splitlines()[1:]
    assert labels
    assert not [uid for line in labels if (uid := line.split(",")[0]) in text]
    assert hospital.settings.key.read_bytes().hex() not in text


def test_the_command(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    site = ["--site", str(hospital.file)]
    told = CliRunner().invoke(app, ["evidence", str(tmp_path / "papers"), *site, "--json"])
    assert told.exit_code == 0, told.output
    assert Path(json.loads(told.stdout)["index"]) == tmp_path / "papers" / "index.html"
    asked = replace(document, asked_by="rosalind")
    lines = (tmp_path / "papers" / "documents" / f"{digest(asked)[:12]}.txt").read_text("utf-8").splitlines()
    assert lines == every_setting(asked)
    again = CliRunner().invoke(app, ["evidence", str(tmp_path / "papers"), *site])
    assert again.exit_code == 2
    assert "name a folder that does not" in again.stderr


@pytest.mark.parametrize("language", ["de", "zh"])
def test_all_of_it_is_in_the_language_spoken_and_rests_on_the_same(hospital: Hospital, language: Language) -> None:
    english = pack(found(hospital))
    with spoken(language):
        made = pack(found(hospital))
    told = [(one, other) for one, other in zip(sentences(english), sentences(made), strict=True)]
    assert [one.text for one, other in told if one.text == other.text] == []
    assert [one.text for one, other in told if one.sources != other.sources or one.missing != other.missing] == []
    assert [one.title for one, other in zip(english.papers, made.papers, strict=True) if one.title == other.title] == []
    cited = {source.key: source.text for source in english.sources if source.key[0] != "S"}
    assert [s.text for s in made.sources if cited.get(s.key) == s.text] == []
    checks = [source.text for source in english.sources if source.key[0] == "S"]
    assert [source.text for source in made.sources if source.key[0] == "S"] == checks, "quoted as `security` has them"


def test_the_command_follows_the_hospitals_language(hospital: Hospital, tmp_path: Path) -> None:
    hospital.file.write_text(f"lang: de\n{hospital.file.read_text('utf-8')}", "utf-8")
    words = ["--site", str(hospital.file)]
    told = CliRunner().invoke(app, ["evidence", str(tmp_path / "papers"), *words])
    assert told.exit_code == 0, told.output
    assert "Die Dokumente bleiben im Krankenhaus." in " ".join(told.stdout.split())
    page = (tmp_path / "papers" / "impact-assessment.html").read_text("utf-8")
    assert "<html lang=de>" in page
    assert "Grundlagen für eine Datenschutz-Folgenabschätzung" in page
    assert "bei Delta 0,0001" in (tmp_path / "papers" / "attack-risk.md").read_text("utf-8")
    facts = json.loads(CliRunner().invoke(app, ["evidence", str(tmp_path / "more"), *words, "--json"]).stdout)
    assert {name for paper in facts["papers"] for name in paper} == {"name", "missing"}, (
        "what a program reads is English"
    )
    assert "Fehlt:" in (tmp_path / "more" / "impact-assessment.md").read_text("utf-8")


def test_without_a_ledger_there_are_no_papers_and_no_key_is_made(hospital: Hospital, tmp_path: Path) -> None:
    """A gateway on a machine of its own."""
    apart = tmp_path / "apart" / "site.yaml"
    apart.parent.mkdir()
    values = hospital.file.read_text("utf-8").replace(str(hospital.settings.key), "site.key")
    apart.write_text(values, "utf-8")
    told = CliRunner().invoke(app, ["evidence", str(tmp_path / "papers"), "--site", str(apart)])
    assert told.exit_code == 2
    assert "run this where the trainer runs" in told.stderr
    assert "there is no ledger.sqlite on this machine" in SitePage(apart)()
    assert [path.name for path in apart.parent.iterdir()] == ["site.yaml"]
