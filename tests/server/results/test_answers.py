"""Classes, grades and measurements of every arm, from what hospitals told to the table in the terminal."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import TypeAdapter
from rich.console import Console

from conf import load
from server.results.answers import AnswerArm, ClassFigures, GradeFigures, MeasureFigures, answers, told_figures
from server.results.console import answer_tables, tables
from server.results.figures import in_bins_of
from server.results.results import Results
from server.results.verdicts import gate
from server.rounds.evaluation import Evaluated
from server.study.baselines import Arms
from tasks.answers import Answer, Classes, Grade, Measure
from tasks.codes import Code
from tasks.metrics.classes import rest_histograms, told_classes
from tasks.metrics.grades import told_grades
from tasks.metrics.measures import measure_cells, told_measures
from tests.server.outcome import evaluated, outcome

CODE = Code("99TEST", "1", "A concept")
QUESTIONS: dict[str, Answer] = {
    "question": Classes(("normal", "benign", "malignant"), ("malignant",), (CODE,) * 3),
    "arthrosis": Grade(("none", "mild", "severe", "extreme"), "severe", (CODE,) * 4),
    "ejection_fraction": Measure(CODE, Code("UCUM", "%", "percent"), 20, 80, event_below=50),
}


def told(seed: int, noise: float = 0.0, bins: int = 1024, patients: int = 200) -> Evaluated:
    """What a hospital of so many patients sends of the three questions."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, patients)
    chances = rng.exponential(1, (patients, 3)) + 2 * np.eye(3)[true]
    chances = chances / chances.sum(axis=1, keepdims=True)
    grades = rng.integers(0, 4, patients)
    values = 20 + 60 * rng.beta(2, 2, patients)
    counts = {
        "told-question": told_classes(chances, true),
        "rest-question": rest_histograms(chances, true, bins),
        "told-arthrosis": told_grades(np.clip(grades + rng.integers(-1, 2, patients), 0, 3), grades, 4),
        "told-ejection_fraction": told_measures(
            values, values + 1 + rng.normal(0, 4, patients), 20, 80, measure_cells(bins)
        ),
    }
    return evaluated(seed, 2.0, noise=noise, bins=bins, **{name: _noised(c, noise, rng) for name, c in counts.items()})


def _noised(counts: NDArray[np.float64], noise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    return counts + rng.normal(0, noise, counts.shape) if noise else counts


def found(noise: float = 0.0, bins: int = 1024) -> Results:
    """Two hospitals, and each alone without noise."""
    federated = {"ash": told(1, noise, bins), "elm": told(2, noise, bins)}
    return outcome(federated, Arms({"ash": told(3), "elm": told(4)}), questions=QUESTIONS)[0]


def test_each_question_has_the_figures_of_its_kind_at_each_hospital_and_in_each_arm() -> None:
    every = found().answers
    assert list(every) == list(QUESTIONS)
    for arms in every.values():
        assert arms.keys() == {"local", "federated"}
        assert arms["federated"].hospitals.keys() == {"ash", "elm"}
    classes, grades, measured = (every[name]["federated"].everybody for name in QUESTIONS)
    assert isinstance(classes, ClassFigures)
    assert isinstance(grades, GradeFigures)
    assert isinstance(measured, MeasureFigures)
    assert sum(classes.sizes) == sum(grades.sizes) == measured.patients == 400
    assert classes.macro_auc is not None
    assert 0.9 < classes.macro_auc.value < 1
    assert grades.mean_error is not None
    assert grades.mean_error.value == pytest.approx(0.5, abs=0.1)
    assert measured.bias is not None
    assert measured.bias.value == pytest.approx(1, abs=0.5)
    assert measured.above is not None
    assert measured.above.value == pytest.approx(1 + 1.96 * 4, abs=1)
    assert (measured.limits[0], measured.limits[-1]) == (-60, 60)


@pytest.mark.parametrize(
    ("kind", "name", "passes", "fails"),
    [
        ("question", "macro_auc", 0.8, 0.999),
        ("question", "accuracy", 0.5, 0.99),
        ("arthrosis", "kappa", 0.3, 0.99),
        ("arthrosis", "mean_error", 2.0, 0.01),
        ("ejection_fraction", "mean_error", 20.0, 0.01),
    ],
)
def test_a_gate_asks_each_hospital_for_the_limit_that_is_worse(
    kind: str, name: str, passes: float, fails: float
) -> None:
    told = found(0.5, 16)
    arm, event = told.answers[kind]["federated"], told.details["federated"]
    assert gate(event, {name: passes}, arm) == []
    reasons = gate(event, {name: fails}, arm)
    assert reasons is not None
    assert [reason.partition(":")[0] for reason in reasons] == sorted(arm.hospitals)
    limits = [told_figures(figures)[name] for figures in arm.hospitals.values()]
    assert all(limit is not None for limit in limits)
    worst = max(i.high for i in limits if i) if name == "mean_error" else min(i.low for i in limits if i)
    best = max(i.value for i in limits if i) if name == "mean_error" else min(i.value for i in limits if i)
    between = gate(event, {name: (worst + best) / 2}, arm)
    assert between, "the point would pass, and its limit does not"
    missing = gate(event, {name: passes}, AnswerArm({}, arm.everybody))
    assert missing is not None
    assert len(missing) == len(arm.hospitals)
    assert gate(event, {name: passes}, None) == missing


def test_a_task_of_yes_or_no_has_none_and_what_was_not_sent_is_not_told() -> None:
    assert outcome({"ash": evaluated(1, 2.0)})[0].answers == {}
    assert answers({"federated": {"ash": evaluated(1, 2.0)}}, QUESTIONS) == {}


def test_the_figures_are_metrics_and_come_back_as_they_were_written() -> None:
    results = found(1.5, 16)
    metrics = results.metrics()
    assert 0.8 < metrics["result/pooled_patients/federated_question_macro_auc"] < 1
    assert 0.5 < metrics["result/pooled_patients/federated_question_sensitivity_malignant"] < 1
    assert 0.5 < metrics["result/pooled_patients/local_arthrosis_kappa"] < 1
    assert "result/pooled_patients/federated_ejection_fraction_bias" in metrics
    adapter = TypeAdapter(Results)
    assert adapter.validate_json(adapter.dump_json(results)).answers == results.answers


def test_other_arms_are_counted_again_in_the_cells_of_the_federated_one() -> None:
    federated = {"ash": told(1, 1.0, 16)}
    again = in_bins_of(federated, {"ash": told(3)})["ash"]
    assert {name: each.shape for name, each in again.scores.items()} == {
        name: each.shape for name, each in federated["ash"].scores.items()
    }
    assert again.scores["told-ejection_fraction"].sum() == 600


def test_where_a_value_is_measured_its_score_is_no_probability() -> None:
    """The score's Brier score means nothing, so no line calibrates it and no warning compares it with a constant."""
    moved = {name: evaluated(seed, 1.0, (150, 30), moved=3.0, bins=256) for seed, name in enumerate(("ash", "elm"))}
    asks: dict[str, Answer] = {"question": QUESTIONS["ejection_fraction"]}
    for questions, warned in ((None, True), (asks, False)):
        results = outcome(moved, questions=questions)[0]
        assert (results.recalibrated is None) != warned
        assert any("worse than giving" in warning for warning in results.warnings) == warned


def test_the_terminal_shows_a_table_for_each_question() -> None:
    results = found(1.5, 16)
    assert [each.row_count for each in answer_tables(results)] == [4, 4, 4]
    written = io.StringIO()
    study: Any = load.load(["experiment=demo"])
    Console(file=written, width=200).print(tables(results, study))
    text = written.getvalue()
    for words in (
        "AUC on validation patients",
        "macro AUC",
        "weighted kappa",
        "lower limit [%]",
        "all patients, local",
    ):
        assert words in text


def test_a_kind_has_the_figures_that_its_list_names() -> None:
    assert list(told_figures(found().answers["question"]["federated"].everybody))[:3] == [
        "macro_auc", "accuracy", "balanced_accuracy",
    ]  # fmt: skip
