"""Other models at a study's own hospitals: who is asked for what, what is made of it, and what is not asked twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conf.schema.evaluation import EXACT_PAIRED_BINS
from server.rounds.state import HospitalRound, RoundRecord, StudyState
from server.runtime.local_grid import LocalGrid
from server.study.baselines import Arms
from server.study.cross_site_evaluation import CrossSiteEvaluation, evaluate_across_sites, paired_order
from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.paired import JointHistogram, auc_difference
from tasks.protocol.wire import EDGES, OTHER
from tests.server import scripted
from tests.server.outcome import evaluated

HOSPITALS = ("ash", "elm")
OWN = {name: {k: v + np.float32(n + 1) for k, v in scripted.WEIGHTS.items()} for n, name in enumerate(HOSPITALS)}


def ended(noise: float = 0.0, sizes: tuple[int, int] = (80, 60)) -> tuple[StudyState, Arms]:
    """A study of two hospitals that has been evaluated, and the models of each alone."""
    told = {name: evaluated(n, 2.0, sizes, noise) for n, name in enumerate(HOSPITALS)}
    hospitals = {name: each.figures for name, each in told.items()}
    scores = {name: each.scores["histogram"] for name, each in told.items()}
    state = StudyState(scripted.WEIGHTS, [RoundRecord(1, 0.5, 1.0, hospitals)], scores=scores)
    return state, Arms(local={name: evaluated(n + 5, 1.5) for n, name in enumerate(HOSPITALS)}, own=OWN)


def crossed(
    folder: Path, *overrides: str, noise: float = 0.0, state: StudyState | None = None, **behaviours: Any
) -> CrossSiteEvaluation:
    study = scripted.study("federation.rounds=1", "federation.deadline_s=20", *overrides)
    known = dict.fromkeys(HOSPITALS, "well") | behaviours
    before, arms = ended(noise)
    with LocalGrid(scripted.sites(folder, **known), scripted.load_app) as grid:
        sizes = dict.fromkeys(HOSPITALS, scripted.SIZE)
        return evaluate_across_sites(study, "scripted-1", sizes, folder / "crossed", grid, state or before, arms)


def test_each_hospital_compares_its_own_model_with_the_federated_one(tmp_path: Path) -> None:
    found = crossed(tmp_path)
    assert found.gains.keys() == set(HOSPITALS)
    assert (found.matrix, found.problems, found.epsilon) == ({}, {}, dict.fromkeys(HOSPITALS))
    state, arms = ended()
    with LocalGrid(scripted.sites(tmp_path, ash="well"), scripted.load_app) as grid:
        roster = scripted.roster(scripted.study(), grid)
    of_federated, of_own = ScoreHistogram(state.scores["ash"]), arms.local["ash"].histogram()
    order = paired_order(roster, 3, state.model, OWN["ash"], of_federated, of_own, EXACT_PAIRED_BINS)
    assert order.asks == "paired"
    assert {name for name in order.arrays if name.startswith(OTHER)} == {f"{OTHER}{name}" for name in scripted.WEIGHTS}
    np.testing.assert_array_equal(order.arrays[f"{OTHER}weight"], OWN["ash"]["weight"])
    np.testing.assert_array_equal(order.arrays["weight"], scripted.WEIGHTS["weight"])
    assert order.arrays[EDGES].shape == (2, EXACT_PAIRED_BINS - 1)
    expected = auc_difference(JointHistogram(scripted.honest_joint("ash", order)["paired"]))
    assert found.gains["ash"] == expected
    assert expected is not None
    assert expected.low > 0, "the federated model is the first one of the two"


def test_every_model_is_scored_at_every_hospital_where_that_is_asked(tmp_path: Path) -> None:
    found = crossed(tmp_path, "evaluation.matrix=2", "evaluation.paired=false", "federation=three_phantoms",
                    "~federation.hospitals.cedar", "evaluation.bins=8")  # fmt: skip
    assert found.gains == {}
    assert {name: set(each) for name, each in found.matrix.items()} == {name: set(HOSPITALS) for name in HOSPITALS}
    for each in found.matrix.values():
        for hospital, told in each.items():
            np.testing.assert_array_equal(told.scores["histogram"], scripted.honest_histogram(hospital, 8)["histogram"])
            assert told.figures.auc is not None


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    """A hospital keeps its newest reply only, and would refuse."""
    first = crossed(tmp_path)
    again = crossed(tmp_path, ash={"paired": "raise"}, elm={"paired": "raise"})
    assert again == first


def test_a_hospital_that_does_not_answer_keeps_the_other_interval_and_is_named(tmp_path: Path) -> None:
    found = crossed(tmp_path, elm={"paired": "refuse"})
    assert found.gains.keys() == {"ash"}
    assert found.problems == {
        "elm": "did not compare the two models on the same patients (refused with BUDGET_EXHAUSTED)"
    }
    later = crossed(tmp_path)
    assert later.gains.keys() == set(HOSPITALS), "it may answer when the study is resumed"


def test_nothing_is_asked_of_a_hospital_without_figures(tmp_path: Path) -> None:
    state, _ = ended()
    one = state.rounds[0]
    without = replace(one, hospitals={**one.hospitals, "elm": HospitalRound()})
    found = crossed(tmp_path, state=replace(state, rounds=[without]), elm={"paired": "raise"})
    assert found.gains.keys() == {"ash"}
    assert found.problems == {}


def test_too_noisy_a_hospital_is_not_asked(tmp_path: Path) -> None:
    behaviours = {name: {"paired": "raise"} for name in HOSPITALS}
    noised = ("evaluation.epsilon=0.1", "evaluation.arms=[local]")
    assert crossed(tmp_path, *noised, noise=4.0, **behaviours) == CrossSiteEvaluation()


def test_an_answer_of_another_shape_is_no_answer(tmp_path: Path) -> None:
    found = crossed(tmp_path, elm={"paired": "another kind"})
    assert "it must bring exactly paired" in found.problems["elm"]
