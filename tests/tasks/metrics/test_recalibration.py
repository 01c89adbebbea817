"""Calibrated probabilities: near the truth, the nearer to the scores the less is told, and never in another order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score

from tasks.metrics.calibration import brier
from tasks.metrics.histogram import ScoreHistogram, pooled, range_histogram, range_quantiles, score_histogram
from tasks.metrics.ranking import roc_auc
from tasks.metrics.recalibration import IDENTITY, Recalibration, all_together, by_others, recalibration
from tests.tasks.metrics.hospitals import Scores


def drawn(rng: np.random.Generator, patients: int, slope: float, intercept: float) -> Scores:
    """Scores that this line would calibrate."""
    logits = rng.normal(-0.5, 1.3, patients)
    return expit((logits - intercept) / slope), (rng.random(patients) < expit(logits)).astype(np.int64)


def _of(histogram: ScoreHistogram, line: Recalibration) -> ScoreHistogram:
    return line.of(histogram)


def released(rng: np.random.Generator, scores: Scores, noise: float) -> ScoreHistogram:
    """Sixteen noised bins, looked for as studies do; or fine exact ones."""
    if noise == 0:
        return ScoreHistogram(score_histogram(*scores, 1024))
    edges = np.array(range_quantiles(range_histogram(scores[0], 32) + rng.normal(0, 3 * noise, 32), 16))
    return ScoreHistogram(score_histogram(*scores, 16, edges) + rng.normal(0, noise, (2, 16)), noise, edges)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 2.0, 30.0]), st.floats(0.02, 40), st.floats(-4, 4))
def test_whatever_was_released_the_line_keeps_the_order(seed: int, noise: float, slope: float, moved: float) -> None:
    rng = np.random.default_rng(seed)
    histogram = released(rng, drawn(rng, 50, slope, moved), noise)
    line = recalibration(histogram)
    assert 0.04 < line.slope < 21
    between = np.linspace(0.001, 0.999, 400)
    assert (np.diff(line.probability(between)) >= 0).all()
    assert ((line.probability([0.0, 1.0]) >= 0) & (line.probability([0.0, 1.0]) <= 1)).all()
    before, after = roc_auc(histogram), roc_auc(line.of(histogram))
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after.value == pytest.approx(before.value)


@pytest.mark.parametrize(("slope", "moved"), [(1.0, 0.0), (3.0, -0.7), (0.4, 0.5)])
def test_without_noise_it_is_the_most_probable_line(slope: float, moved: float) -> None:
    scores, labels = drawn(np.random.default_rng(3), 80, slope, moved)
    histogram = ScoreHistogram(score_histogram(scores, labels, 2**17))
    x = logit(histogram.limits[1:] - 0.5 / 2**17)[np.searchsorted(histogram.limits[1:], scores, side="right")]

    def unlikely(at: np.ndarray) -> float:
        z = x.mean() + at[0] + np.exp(at[1]) * (x - x.mean())
        return float(np.logaddexp(0, z).sum() - (labels * z).sum() + (at**2).sum() / 2)

    at = minimize(unlikely, np.zeros(2), tol=1e-12).x
    line = recalibration(histogram)
    assert line.slope == pytest.approx(np.exp(at[1]), rel=1e-3)
    assert line.intercept == pytest.approx(x.mean() * (1 - np.exp(at[1])) + at[0], abs=2e-3)


@pytest.mark.parametrize("noise", [0.0, 3.0])
@pytest.mark.parametrize(("slope", "moved"), [(4.0, 0.0), (0.4, 0.0), (1.0, 1.0), (2.5, -0.7)])
def test_probabilities_of_other_patients_are_nearer_to_the_truth(slope: float, moved: float, noise: float) -> None:
    """The mean squared error of 300 patients' lines is at most a third of the scores' own."""
    rng = np.random.default_rng(7)
    others = drawn(rng, 4000, slope, moved)[0]
    truth = Recalibration(moved, slope).probability(others)
    lines = [recalibration(released(rng, drawn(rng, 300, slope, moved), noise)) for _ in range(25)]
    after = np.mean([(line.probability(others) - truth) ** 2 for line in lines])
    assert after < ((others - truth) ** 2).mean() / 3


def test_what_tells_nothing_changes_nothing() -> None:
    """Nobody at all, exactly; and noise of twenty around three patients, nearly."""
    assert recalibration(ScoreHistogram(np.zeros((2, 16)))) == IDENTITY
    rng = np.random.default_rng(5)
    lines = [recalibration(released(rng, drawn(rng, 3, 4.0, 1.0), 20.0)) for _ in range(40)]
    assert np.median([abs(np.log(line.slope)) for line in lines]) < 0.5


def test_noise_that_is_not_reckoned_with_is_believed() -> None:
    """A fit that takes noised counts for exact ones is farther from the truth: what the weights are for."""
    rng, errors = np.random.default_rng(9), []
    others = drawn(rng, 2000, 1.0, 0.0)[0]
    for _ in range(40):
        histogram = released(rng, drawn(rng, 150, 1.0, 0.0), 4.0)
        naive = ScoreHistogram(np.maximum(histogram.cells, 0), 0.0, histogram.edges)
        errors.append([((recalibration(h).probability(others) - others) ** 2).mean() for h in (histogram, naive)])
    ours, believed = np.mean(errors, axis=0)
    assert ours < 0.8 * believed


def test_each_hospital_is_calibrated_by_the_others_alone() -> None:
    rng = np.random.default_rng(11)
    each = [released(rng, drawn(rng, 200, slope, 0.0), 0.0) for slope in (1.0, 1.0, 5.0)]
    lines = by_others(each)
    assert lines[2] == recalibration(ScoreHistogram(each[0].cells + each[1].cells))
    assert lines[2].slope + 0.1 < lines[0].slope
    together = all_together(each)
    assert together.cells.sum() == 600
    assert (np.diff(together.limits) >= 0).all()
    assert together.size_noise == 0
    squares = [(h.cells * np.stack([m**2, (1 - m) ** 2])).sum() for h in map(_of, each, lines) for m in [h.means]]
    told = brier(together)
    assert told is not None
    assert told.value == pytest.approx(sum(squares) / 600)


def test_many_hospitals_are_calibrated_in_ten_groups() -> None:
    rng = np.random.default_rng(12)
    each = [released(rng, drawn(rng, 40, 1.0, 0.0), 0.0) for _ in range(23)]
    lines = by_others(each)
    assert len(set(lines)) == 10
    assert lines[3] == lines[13]
    others = [h for n, h in enumerate(each) if n % 10 != 3]
    assert lines[3] == recalibration(ScoreHistogram(np.sum([h.cells for h in others], axis=0)))
    noised = [ScoreHistogram(h.cells, 2.0) for h in each]
    assert all_together(noised).size_noise == pytest.approx(pooled(noised).size_noise)


def test_a_falling_curve_is_not_turned_round() -> None:
    """Scores that say the opposite become nearly one number for all, and keep their order."""
    scores, labels = drawn(np.random.default_rng(2), 400, 1.0, 0.0)
    line = recalibration(ScoreHistogram(score_histogram(1 - scores, labels, 1024)))
    assert 0 < line.slope < 0.2
    assert roc_auc_score(labels, line.probability(1 - scores)) < 0.5
