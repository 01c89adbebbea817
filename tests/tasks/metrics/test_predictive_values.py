"""Predictive values are Bayes' rule, and their intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.metrics.histogram import ScoreHistogram
from tasks.metrics.interval import Interval
from tasks.metrics.operating import OperatingPoint, at_threshold
from tasks.metrics.predictive_values import negative_predictive_value, positive_predictive_value

RATE = st.floats(0.01, 0.99)


def exact(rate: float) -> Interval:
    return Interval(rate, rate, rate)


@given(sensitivity=RATE, specificity=RATE, prevalence=RATE)
def test_known_rates_give_what_bayes_says(sensitivity: float, specificity: float, prevalence: float) -> None:
    point = OperatingPoint(0.5, exact(sensitivity), exact(specificity))
    called = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    for found, wanted in (
        (positive_predictive_value(point, prevalence), prevalence * sensitivity / called),
        (negative_predictive_value(point, prevalence), (1 - prevalence) * specificity / (1 - called)),
    ):
        assert found is not None
        assert found.low == found.high == pytest.approx(found.value)
        assert found.value == pytest.approx(wanted)


def test_nobody_called_has_no_predictive_value_and_one_class_none() -> None:
    nobody = OperatingPoint(1.0, Interval(0.0, 0.0, 0.2), Interval(1.0, 0.9, 1.0))
    assert positive_predictive_value(nobody, 0.3) is None
    rest = negative_predictive_value(nobody, 0.3)
    assert rest is not None
    assert rest.value == pytest.approx(0.7)
    assert positive_predictive_value(OperatingPoint(0.5, None, exact(0.9)), 0.3) is None


def test_noise_that_leaves_no_point_of_a_rate_leaves_none_of_the_value() -> None:
    point = OperatingPoint(0.5, Interval(0.5, 0.1, 0.9, firm=False), exact(0.9))
    found = positive_predictive_value(point, 0.3)
    assert found is not None
    assert not found.firm


@pytest.mark.parametrize(("sensitivity", "specificity", "sizes"), [(0.8, 0.9, (40, 60)), (0.5, 0.7, (15, 25))])
def test_their_intervals_hold_the_truth_nineteen_times_in_twenty(
    sensitivity: float, specificity: float, sizes: tuple[int, int]
) -> None:
    rng, prevalence, runs, held = np.random.default_rng(1), 0.3, 300, np.zeros(2)
    called = prevalence * sensitivity + (1 - prevalence) * (1 - specificity)
    truth = prevalence * sensitivity / called, (1 - prevalence) * specificity / (1 - called)
    for _ in range(runs):
        right, wrong = rng.binomial(sizes[0], sensitivity), rng.binomial(sizes[1], 1 - specificity)
        cells = np.array([[sizes[1] - wrong, wrong], [sizes[0] - right, right]], float)
        point = at_threshold(ScoreHistogram(cells), 0.5)
        found = positive_predictive_value(point, prevalence), negative_predictive_value(point, prevalence)
        held += [each is not None and each.low <= true <= each.high for each, true in zip(found, truth, strict=True)]
    assert ((held / runs > 0.92) & (held / runs < 0.995)).all(), held / runs
