"""A survey is paid for on both cohorts or on none, and a steward reads what it asks, what leaves and what it costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from client.errors import BudgetExhausted
from client.ledger.account import Use
from client.ledger.accounting import Mechanism, epsilon_of, gaussian_of
from client.ledger.ledger import Planned
from client.oversight import planning, surveys
from client.policy import granted_to_survey
from tasks.protocol.survey import SurveyDocument
from tasks.protocol.wire import SurveyOrder
from tests.client.hospital import Archive, Hospital, draw_archive
from tests.client.surveying import ALLOWED, survey


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("surveys"))


def reserve(hospital: Hospital, document: SurveyDocument) -> float:
    """Reserve it; the noise."""
    with hospital.records() as records:
        terms = granted_to_survey(document, hospital.settings)
        order = SurveyOrder(document)
        return surveys.reserve(order, terms, hospital.settings, records.ledger).noise_multiplier


def spend(hospital: Hospital, cohort: str, noise: float) -> None:
    """As an earlier study would have."""
    use = Use(cohort, "earlier", 1, "ab" * 32)
    with hospital.records() as records, records.ledger.planning(use):
        caps = planning.caps_of(granted_to_survey(survey(epsilon=100.0), hospital.settings), hospital.settings)
        records.ledger.reserve(use, Planned(Mechanism(noise, 1.0, 1)), replace(caps, study=100.0))


@pytest.mark.parametrize("tables", [("label",), ("label", "sex", "age*sex", "intensity")])
def test_a_survey_costs_both_cohorts_its_epsilon_whatever_the_number_of_tables(
    tables: tuple[str, ...], archive: Archive, tmp_path: Path
) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED)
    noise = reserve(hospital, survey(*tables))
    entries = hospital.entries()
    assert [entry.use.cohort for entry in entries] == ["train", "validation"]
    assert all(entry.mechanism == entries[0].mechanism for entry in entries)
    assert entries[0].mechanism.count == len(tables)
    assert entries[0].mechanism.sample_rate == 1, "everybody is counted: nothing is gained by sampling"
    epsilon = epsilon_of([entries[0].mechanism], 1e-4)
    assert 0.99 <= epsilon <= 1.0
    assert epsilon_of([replace(entries[0].mechanism, noise_multiplier=noise * 0.98)], 1e-4) > 1.0


def test_the_stricter_cohort_decides_the_noise_of_both(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(
        tmp_path, archive, policy=ALLOWED | {"max_epsilon_life": 3.0, "max_epsilon_study": 3.0}
    )
    plain = reserve(hospital, survey(name="one"))
    spend(hospital, "validation", 1.4)
    strict = reserve(hospital, survey(name="two"))
    assert strict > 1.2 * plain
    assert {e.mechanism.noise_multiplier for e in hospital.entries() if e.use.study == "two"} == {strict}
    for cohort in ("train", "validation"):
        assert hospital.spent(cohort) <= 3.0 + 1e-6


def test_a_survey_that_one_cohort_cannot_pay_for_costs_the_other_nothing(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED | {"max_epsilon_life": 8.0})
    spend(hospital, "validation", gaussian_of(8.0, 1e-4).noise_multiplier + 1e-4)
    before = len(hospital.entries())
    with pytest.raises(BudgetExhausted, match="validation"):
        reserve(hospital, survey())
    assert len(hospital.entries()) == before
    with hospital.records() as records:
        review = surveys.examine(survey(), hospital.settings, records.ledger)
    assert any("validation" in reason for reason in review.refused["survey"])


def test_a_steward_reads_what_is_asked_what_leaves_and_what_it_costs(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED)
    document = survey("label", "age*sex", "intensity", epsilon=20.0, asked_by="ada")
    with hospital.records() as records:
        review = surveys.examine(document, hospital.settings, records.ledger)
        said = surveys.words(review)
    text = "\n".join(line for lines in said.values() for line in lines)
    assert review.refused == {"survey": []}
    assert "Nothing is trained and no image is scored: patients are counted." in text
    assert "ada asks for it" in text
    assert "age and sex: under 20, 20 to 39, 40 to 59, 60 to 79, 80 and over, not recorded / female, male" in text
    assert "the finding that the task asks for: benign, malignant." in text
    assert "nobody bears both costs" in text
    assert "each patient divides one count among the cells" in text
    assert "3 tables of 28 numbers in all (224 bytes), with noise on every number" in text
    assert "epsilon 20 is requested, of which the policy grants 8" in text
    assert 'tables = [["label"], ["age", "sex"], ["intensity"]]' in text, "every setting can be read"
    assert said["What the policy says"] == ["The policy permits everything."]


def test_a_hospital_that_has_said_nothing_of_surveys_refuses_them(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive)
    with hospital.records() as records:
        review = surveys.examine(survey("label", "sex"), hospital.settings, records.ledger)
    assert review.refused["survey"] == ["it counts patients by label, sex, policy.surveys allows none"]
    assert any(line.startswith("REFUSED: it counts") for line in surveys.words(review)["What the policy says"])


def test_all_reasons_are_told_at_once(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy={"surveys": ["label"], "max_bins": 3, "tasks": ["lung_ct"]})
    document = survey("label*sex", "effusion", release="9.9")
    with hospital.records() as records:
        reasons = " ".join(surveys.examine(document, hospital.settings, records.ledger).refused["survey"])
    for told in ("Consilium '9.9'", "not in policy.tasks", "by sex", "6 cells", "no secondary finding effusion"):
        assert told in reasons


def test_a_catalog_of_an_earlier_release_is_named_with_the_remedy(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED)
    with hospital.records() as records:
        whole = surveys.examine(survey("spacing"), hospital.settings, records.ledger)
        lacking = surveys.examine(survey("thickness"), hospital.settings, records.ledger)
    assert whole.lacking == []
    assert lacking.lacking == ["thickness"], "pictures have none"
    assert "run consilium-site ingest first" in "\n".join(surveys.words(lacking)["What the survey asks"])


def test_an_answered_survey_is_reviewed_with_what_it_has_cost(archive: Archive, tmp_path: Path) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy=ALLOWED)
    noise = reserve(hospital, survey())
    with hospital.records() as records:
        for use in surveys.uses_of(SurveyOrder(survey())):
            records.ledger.commit(use, b"the answer")
        review = surveys.examine(survey(), hospital.settings, records.ledger)
    assert review.refused == {"survey": []}
    assert [cost.plan[0].noise_multiplier for cost in review.costs if cost.plan] == [noise, noise]
    assert all(cost.after == cost.spent for cost in review.costs)
