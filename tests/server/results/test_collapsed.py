"""A model that gives everybody one score is named, and nothing is compared with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from server.results.average import on_average
from server.results.collapsed import collapsed
from server.results.verdicts import verdicts
from server.rounds.evaluation import Evaluated
from server.study.baselines import Arms
from server.study.cross_site_evaluation import CrossSiteEvaluation
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated, outcome


def flat(cell: int = 0, noise: float = 0.0) -> Evaluated:
    """A hospital whose patients all have one score."""
    counts = np.zeros((2, 16))
    counts[:, cell] = 60, 40
    known = evaluated(1, 0.0)
    return Evaluated(replace(known.figures, evaluation_noise=noise), {"histogram": counts}).with_auc()


GOOD = {"ash": evaluated(1, 1.5), "elm": evaluated(2, 1.5)}


@pytest.mark.parametrize("cell", [0, 7, 15])
def test_one_score_for_everybody_is_found_wherever_it_lies(cell: int) -> None:
    assert collapsed({"ash": flat(cell), "elm": evaluated(2, 0.0)}) == ["ash"]


def test_scores_under_noise_and_a_single_patient_say_nothing() -> None:
    one = np.zeros((2, 16))
    one[0, 3] = 1
    single = Evaluated(GOOD["ash"].figures, {"histogram": one})
    assert collapsed({"ash": flat(noise=1.0), "elm": single, "oak": Evaluated(GOOD["ash"].figures)}) == []


def test_nothing_is_compared_with_a_hospitals_own_model_that_went_wrong() -> None:
    paired = CrossSiteEvaluation(gains={"ash": Interval(0.3, 0.2, 0.4), "elm": Interval(0.1, 0.0, 0.2)})
    found, _ = outcome(GOOD, Arms(local={"ash": flat(), "elm": evaluated(4, 1.0)}), cross_site=paired)
    assert (list(found.gains), found.paired) == (["elm"], ["elm"])
    assert found.warnings[0].startswith("The models that ash trained alone give every patient the same score")
    assert on_average(found.gains) == []
    assert not any("ash" in sentence for sentence in verdicts(found.gains))


def test_the_other_models_are_named_as_well() -> None:
    found, _ = outcome({"ash": flat(), "elm": GOOD["elm"]}, Arms(pooled={"ash": flat(15), "elm": GOOD["elm"]}))
    assert [warning.split(" gives every patient at ash")[0] for warning in found.warnings[:2]] == [
        "The model of all patients in one place",
        "The federated model",
    ]


def test_models_that_tell_patients_apart_are_compared_as_ever() -> None:
    found, _ = outcome(GOOD, Arms(local={"ash": evaluated(3, 1.0), "elm": evaluated(4, 1.0)}))
    assert list(found.gains) == ["ash", "elm"]
    assert not any("same score" in warning for warning in found.warnings)
