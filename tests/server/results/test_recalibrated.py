"""Probabilities are judged by patients who had no part in them, or not at all."""

from __future__ import annotations

import numpy as np

from server.results.recalibrated import recalibrated
from tasks.metrics.histogram import ScoreHistogram
from tests.server.outcome import evaluated, outcome


def test_a_hospitals_own_patients_have_no_part_in_what_judges_them() -> None:
    """Whatever labels cedar has, what is judged there is calibrated by ash and elm alone."""
    ash, elm = evaluated(1, 1.0, moved=1.0, bins=256).histogram(), evaluated(2, 1.0, moved=1.0, bins=256).histogram()
    cedar = evaluated(3, 1.0, bins=256).histogram()
    turned = ScoreHistogram(cedar.cells[::-1].copy())
    found = [recalibrated({"ash": ash, "elm": elm, "cedar": own}) for own in (cedar, turned)]
    predicted = [[group.predicted for group in f.hospitals["cedar"].reliability] for f in found if f is not None]
    assert predicted[0] == predicted[1]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].line != found[1].line, "what is delivered has seen them"


def test_what_is_judged_on_the_same_patients_would_look_better() -> None:
    """Small hospitals: on average the delivered line fits those who made it better than others. That is not shown."""
    gaps = []
    for seed in range(12):
        each = {n: evaluated(31 * seed + k, 0.8, (16, 9), bins=256).histogram() for k, n in enumerate("abc")}
        found = recalibrated(each)
        assert found is not None
        assert found.everybody is not None
        assert found.everybody.brier is not None
        together = ScoreHistogram(np.sum([h.cells for h in each.values()], axis=0))
        means = found.line.of(together).means
        same = (together.cells * np.stack([means**2, (1 - means) ** 2])).sum() / together.cells.sum()
        gaps.append(found.everybody.brier.value - same)
    assert np.mean(gaps) > 0.004


def test_one_hospital_or_one_sum_has_a_line_and_no_figures() -> None:
    found = recalibrated({"all hospitals": evaluated(1, 1.0, moved=1.0, bins=256).histogram()})
    assert found is not None
    assert found.everybody is None
    assert found.hospitals == {}
    assert recalibrated({}) is None
    assert recalibrated({"ash": evaluated(1, 1.0, (50, 0)).histogram()}) is None, "all of one class"


def test_calibration_brings_shifted_scores_back_and_is_in_the_results() -> None:
    each = {n: evaluated(k, 1.5, moved=1.5, bins=256) for k, n in enumerate(("ash", "elm", "cedar"))}
    found, _ = outcome(each)
    before, after = found.details["federated"].everybody, found.recalibrated
    assert after is not None
    assert after.everybody is not None
    assert before.brier is not None
    assert after.everybody.brier is not None
    assert after.everybody.brier.high < before.brier.low
    assert after.everybody.calibration is not None
    assert after.everybody.calibration.intercept.low < 0 < after.everybody.calibration.intercept.high
    assert found.metrics()["result/pooled_patients/calibrated_brier"] == after.everybody.brier.value


def test_noise_is_in_the_limits_of_calibrated_figures() -> None:
    exact = {n: evaluated(k, 1.5, (300, 200)).histogram() for k, n in enumerate("ab")}
    noised = {n: evaluated(k, 1.5, (300, 200), 6.0).histogram() for k, n in enumerate("ab")}
    widths = []
    for each in (exact, noised):
        found = recalibrated(each)
        assert found is not None
        assert found.everybody is not None
        assert found.everybody.brier is not None
        widths.append(found.everybody.brier.high - found.everybody.brier.low)
    assert widths[1] > 1.2 * widths[0]
