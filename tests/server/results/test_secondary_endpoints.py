"""Secondary findings and outlines of every arm, from what hospitals told to the page."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from server.pages.model_card import card
from server.pages.report import Story, distance, page, pictures
from server.results.secondary_endpoints import findings, outlines
from server.rounds.evaluation import Evaluated
from server.study.baselines import Arms
from tasks import task as tasks
from tasks.metrics.histogram import score_histogram
from tasks.metrics.interval import Interval
from tasks.metrics.outlining import dice_histogram, distance_histogram
from tests.server.outcome import evaluated, outcome, story

BINS = 64


def told(seed: int, dice: float, noise: float = 0.0) -> Evaluated:
    """A hospital of 140 patients, 60 of whom have the lesion and are outlined about so well."""
    rng = np.random.default_rng(seed)
    have = np.r_[np.zeros(80, bool), np.ones(60, bool)]
    coefficient = np.where(have, rng.normal(dice, 0.05, 140).clip(0, 1), math.nan)
    far, vain = np.where(have, (1 - coefficient) / 4, math.nan), np.where(have, math.nan, rng.random(140) < 0.25)
    labels = rng.integers(0, 2, 140)

    def noised(cells: NDArray[np.float64]) -> NDArray[np.float64]:
        return cells + rng.normal(0, noise, cells.shape) if noise else cells

    more = {
        "finding-effusion": noised(score_histogram(rng.normal(0.4 + 0.2 * labels, 0.1).clip(0, 1), labels, BINS)),
        "dice-lesion": noised(dice_histogram(coefficient, vain * 0.1, BINS)),
        "hd95-lesion": noised(distance_histogram(far, BINS)),
    }
    return evaluated(seed, 2.0, noise=noise, **more)


FEDERATED = {"ash": told(1, 0.8), "elm": told(2, 0.7)}
LOCAL = {"ash": told(3, 0.6), "elm": told(4, 0.5)}


def whole_story() -> Story:
    found, state = outcome(FEDERATED, Arms(LOCAL))
    return replace(story(), results=found, rounds=state.rounds)


def test_each_arm_has_its_figures_at_each_hospital() -> None:
    found = outlines({"local": LOCAL, "federated": FEDERATED})
    assert found.keys() == {"lesion"}
    assert found["lesion"].keys() == {"local", "federated"}
    ash = found["lesion"]["federated"].hospitals["ash"]
    assert ash.dice is not None
    assert ash.dice.value == pytest.approx(0.8, abs=0.03)
    assert (ash.with_structure, ash.without_structure) == (60, 80)
    everybody = found["lesion"]["federated"].everybody
    assert everybody.dice is not None
    assert everybody.dice.value == pytest.approx(0.75, abs=0.03)
    assert everybody.wrongly_marked is not None
    assert everybody.wrongly_marked.value == pytest.approx(0.25, abs=0.1)
    effusion = findings({"federated": FEDERATED})["effusion"]["federated"].everybody.auc
    assert effusion is not None
    assert 0.8 < effusion.value < 1


def test_a_study_without_them_has_none() -> None:
    plain = {"ash": evaluated(1, 2.0)}
    assert outlines({"federated": plain}) == findings({"federated": plain}) == {}
    assert {"findings"} & pictures(story()).keys() == set()


def test_the_results_take_them_from_the_study_and_its_arms() -> None:
    found, _ = outcome(FEDERATED, Arms(LOCAL))
    assert found.outlines["lesion"].keys() == {"local", "federated"}
    metrics = found.metrics()
    assert metrics["result/pooled_patients/federated_dice_lesion"] == pytest.approx(0.75, abs=0.03)
    assert metrics["result/pooled_patients/local_dice_lesion"] == pytest.approx(0.55, abs=0.03)
    assert 0.8 < metrics["result/pooled_patients/federated_auc_effusion"] < 1


def test_noise_widens_what_it_does_not_hide() -> None:
    noised = outlines({"federated": {"ash": told(1, 0.8, 0.3)}})["lesion"]["federated"].everybody.dice
    exact = outlines({"federated": {"ash": told(1, 0.8)}})["lesion"]["federated"].everybody.dice
    assert noised is not None
    assert exact is not None
    assert noised.high - noised.low > exact.high - exact.low


def test_the_page_shows_them() -> None:
    drawn = pictures(whole_story())
    assert {"findings", "outlines-lesion"} <= drawn.keys()
    text = page(whole_story())
    for words in ("Outlines", "Secondary findings", "95 % Hausdorff distance", "% of the diagonal"):
        assert words in text


def test_the_model_card_tells_them() -> None:
    text = card(whole_story(), "0" * 64)
    assert "- effusion: AUC 0.9" in text
    assert "- outline of lesion: mean Dice 0.7" in text
    assert "% of the diagonal" in text


def test_distances_are_in_millimetres_where_examples_have_a_size() -> None:
    task = tasks.get("breast_ultrasound")
    found = Interval(0.1, 0.05, 0.2)
    assert distance(task, found) == "10.0 (5.0–20.0) % of the diagonal"
    sized = replace(task, example_shape=(1, 30, 40), example_spacing_mm=(2.0, 2.0))
    assert distance(sized, found) == "10.0 (5.0–20.0) mm"
    assert distance(sized, None) == "–"
