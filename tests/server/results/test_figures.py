"""Figures of whatever hospitals may send, also of hospitals whose patients are fewer than their noise."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.results.figures import arm_of
from tasks.metrics.histogram import ScoreHistogram


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.sampled_from([2, 16, 64]),
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from([0.3, 2.7, 20.0]),
)
def test_no_histogram_is_without_figures(seed: int, hospitals: int, bins: int, patients: float, noise: float) -> None:
    rng = np.random.default_rng(seed)
    histograms = {
        f"h{n}": ScoreHistogram(rng.poisson(patients, (2, bins)) + rng.normal(0, noise, (2, bins)), noise)
        for n in range(hospitals)
    }
    arm = arm_of(histograms)
    assert arm is not None
    for figures in (*arm.hospitals.values(), arm.everybody):
        for interval in (figures.auc, figures.brier, figures.prevalence, figures.average_precision):
            assert interval is None or 0 <= interval.low <= interval.value <= interval.high <= 1
        assert 0 <= figures.specific.threshold <= 1
