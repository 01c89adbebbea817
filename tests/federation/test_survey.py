"""`consilium ask`: three simulated hospitals with real ledgers answer a survey in one process."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.ledger.accounting import epsilon_of
from client.ledger.records import open_records
from client.site import load as load_site
from client.site import secret
from conf.schema.study import Study
from server.__main__ import client_app, provision_hospitals
from server.command_line import in_place_of_a_study
from server.errors import RoundFailed
from server.launch_survey import propose_survey, run_survey
from server.results import survey
from server.results.survey import EVERYBODY, SurveyResults
from tasks.protocol import documents
from tasks.protocol.survey import SurveyDocument
from tests.federation.embedded import HOSPITALS, configure, console

ASKED = ("ask.by=[label,sex,label*vendor,spacing,intensity]", "ask.epsilon=4", "ask.intensities=8")


def asked(ground: Path, name: str, *overrides: str) -> Study:
    return configure(ground, name, in_place_of_a_study(["ask", *ASKED, *overrides]))


def run(study: Study) -> tuple[SurveyResults, str]:
    to, text = console()
    return run_survey(study, provision_hospitals, client_app, to), text.getvalue()


@pytest.fixture(scope="module")
def whole(ground: Path) -> tuple[SurveyResults, str, Path]:
    found, text = run(asked(ground, "survey", "tracking=mlflow"))
    return found, text, ground / "studies" / found.survey


def test_every_hospital_answers_and_the_figures_are_near_the_truth(whole: tuple[SurveyResults, str, Path]) -> None:
    found, text, _ = whole
    assert sorted(found.epsilons) == sorted(HOSPITALS)
    assert found.silent == {}
    for table in found.tables:
        for who, counts in table.counts.items():
            patients = 14 * (len(HOSPITALS) if who == EVERYBODY else 1)
            assert abs(sum(counts) - patients) < 6 * found.noise[who] * np.sqrt(len(counts)), (table.name, who)
    assert "Patients by finding" in text
    assert "Each patient has spent at most epsilon 4.00" in text
    assert "no person was asked" in text


def test_both_cohorts_of_every_ledger_have_paid_the_same_once(whole: tuple[SurveyResults, str, Path]) -> None:
    found, _, folder = whole
    for hospital in HOSPITALS:
        settings = load_site(folder / "sites" / f"{hospital}.yaml")
        with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
            assert records.verify() == []
            entries = records.ledger.entries()
        assert [(e.use.cohort, e.mechanism.count) for e in entries] == [("train", 5), ("validation", 5)]
        assert {e.mechanism.noise_multiplier for e in entries} == {found.noise[hospital]}
        assert 3.98 <= epsilon_of([entries[0].mechanism], 1e-4) <= 4.0


def test_the_folder_holds_page_and_numbers_and_no_patient(whole: tuple[SurveyResults, str, Path]) -> None:
    found, _, folder = whole
    assert survey.read(folder / "survey.json") == found
    page = (folder / "report.html").read_text("utf-8")
    assert "Hospitals and patients are phantoms" in page
    assert json.loads((folder / "study.json").read_text("utf-8"))["finished"]
    assert str(folder) not in page
    assert not (folder / "tracking.json").exists(), "MLflow has received everything"


def test_mlflow_has_every_count_with_its_limits(whole: tuple[SurveyResults, str, Path], ground: Path) -> None:
    from mlflow import MlflowClient

    found, _, _ = whole
    client = MlflowClient(f"sqlite:///{ground / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(found.task)
    assert experiment is not None
    runs = client.search_runs(
        [experiment.experiment_id], f"tags.fl_study = '{found.survey}' and tags.fl_kind = 'survey'"
    )
    assert len(runs) == 1
    assert runs[0].info.status == "FINISHED"
    assert found.metrics().items() <= runs[0].data.metrics.items()
    assert str(ground) not in json.dumps(runs[0].data.params)
    assert {file.path for file in client.list_artifacts(runs[0].info.run_id)} == {"report.html", "survey.json"}


def test_an_interrupted_survey_gets_the_stored_answers(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = asked(ground, "cut")
    with monkeypatch.context() as patch:
        patch.setattr("server.launch_survey.record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(study)
    found, text = run(study)
    assert "Going on with" in text
    settings = load_site(ground / "studies" / found.survey / "sites" / "alder.yaml")
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        assert len(records.ledger.entries()) == 2, "nothing was spent twice"
        assert [r.repeated for r in records.audit_log.receipts() if r.message == "SurveyReport"] == [False, True]


def test_a_proposed_survey_is_the_one_that_is_asked_later(ground: Path, tmp_path: Path) -> None:
    study, file = asked(ground, "proposed"), tmp_path / "ask.json"
    to, text = console()
    propose_survey(replace(study, propose=str(file)), to)
    document = documents.read(file.read_text("utf-8"))
    assert isinstance(document, SurveyDocument)
    assert documents.digest(document) in text.getvalue()
    found, _ = run(study)
    assert found.survey == document.name


def test_a_survey_that_nobody_answers_says_why(ground: Path) -> None:
    """Each hospital's ledger is its own, and a file STOP in its folder stops it."""
    study = asked(ground, "stopped")
    with pytest.raises(RoundFailed, match="refused with STOPPED"):
        run_survey(study, _stopped(), client_app, console()[0])


def _stopped():  # type: ignore[no-untyped-def]
    def provision(study, folder, advance):  # type: ignore[no-untyped-def]
        hospitals = provision_hospitals(study, folder, advance)
        for path in hospitals.federated.values():
            load_site(path).stop_file.touch()
        return hospitals

    return provision
