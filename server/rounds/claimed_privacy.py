"""What a report may say of privacy: figures that a hospital which keeps to the study's document can have."""

from __future__ import annotations

from tasks.protocol.study import LEAST_NOISE, MOST_NOISE
from tasks.protocol.wire import EvaluateReport, TrainReport

_ROUNDED = 1 + 1e-6


def unsound(noise: float, report: TrainReport | EvaluateReport, epsilon: float | None, delta: float) -> str:
    """Why such figures cannot be true; empty if they can.

    Args:
        noise: standard deviation in units of a patient's largest effect, as the report tells it.
        epsilon, delta: what the study's document grants the cohort; no epsilon grants everything.
    """
    if epsilon is not None and not noise:
        return "it answered without noise, the study is private"
    if noise and not LEAST_NOISE <= noise <= MOST_NOISE:
        return f"its noise of {noise:g} lies outside {LEAST_NOISE:g} to {MOST_NOISE:g}, between which hospitals plan it"
    if epsilon is None:
        return ""
    if report.epsilon is None or not report.epsilon <= epsilon * _ROUNDED:
        return f"it tells of an epsilon of {report.epsilon}, the study grants {epsilon:g}"
    if not 0 < report.delta <= delta * _ROUNDED:
        return f"it tells of a delta of {report.delta:g}, the study grants {delta:g}"
    return ""
