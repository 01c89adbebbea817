"""The mean over hospitals has a verdict of its own, and a federated model that is worse is told of first."""

from __future__ import annotations

import pytest

from server.results.average import mean_gain, on_average, worse_on_average
from server.study.baselines import Arms
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated, outcome


def gain(value: float, half: float, firm: bool = True) -> Interval:
    return Interval(value, value - half, value + half, firm)


@pytest.mark.parametrize(
    ("gains", "said", "warned"),
    [
        ([gain(0.1, 0.05), gain(0.1, 0.05)], "federation helps: +0.100 AUC, 95 % interval +0.065 to +0.135", ""),
        ([gain(-0.2, 0.1), gain(-0.1, 0.1)], "federation harms: −0.150 AUC", "lower by 0.15 (0.08 to 0.22)."),
        ([gain(-0.1, 0.3), gain(-0.1, 0.3)], "no evidence either way: −0.100", "0.10 (−0.11 to 0.31). Chance may"),
        ([gain(-0.02, 0.1), gain(-0.02, 0.1)], "no evidence either way: −0.020", ""),
        ([gain(-0.2, 0.1, firm=False), gain(-0.1, 0.1)], "no evidence either way: AUC, 95 % interval −0.221", ""),
    ],
    ids=["helps", "harms", "worse by chance", "as good", "no point"],
)
def test_the_mean_is_said_in_words_and_a_worse_model_is_warned_of(
    gains: list[Interval], said: str, warned: str
) -> None:
    named = dict(zip(("ash", "elm"), gains, strict=True))
    (sentence,) = on_average(named)
    assert said in sentence
    warnings = list(worse_on_average(named))
    assert [warned in warning for warning in warnings] == ([True] if warned else [])


def test_one_hospital_has_no_mean() -> None:
    assert mean_gain({"ash": gain(0.1, 0.05)}) is None
    assert on_average({"ash": gain(0.1, 0.05)}) == []
    assert list(worse_on_average({"ash": gain(-0.9, 0.05)})) == []


def test_a_study_whose_federated_model_is_worse_says_so_before_all_else() -> None:
    federated = {"ash": evaluated(1, 0.3), "elm": evaluated(2, 0.3)}
    found, _ = outcome(federated, Arms({"ash": evaluated(3, 2.0), "elm": evaluated(4, 2.0)}, {}, []))
    assert found.warnings[0].startswith("On average over 2 hospitals, the federated model is worse than each")
