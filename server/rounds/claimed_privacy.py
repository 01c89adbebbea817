"""What a report may state about privacy: only figures that a hospital which follows the study document can have.

Tested in ``tests/server/test_hostile_replies.py``.
"""

from __future__ import annotations

from tasks.protocol.study import LEAST_NOISE, MOST_NOISE
from tasks.protocol.wire import EvaluateReport, SurveyReport, TrainReport

_ROUNDED = 1 + 1e-6


def unsound(
    noise: float, report: TrainReport | EvaluateReport | SurveyReport, epsilon: float | None, delta: float
) -> str:
    """Why such figures cannot be true; empty if they can.

    Args:
        noise: standard deviation in units of a patient's largest effect, as reported.
        epsilon, delta: what the study document grants the cohort; no epsilon means no limit.
    """
    if epsilon is not None and not noise:
        return "it reports no noise, but the study is private"
    if noise and not LEAST_NOISE <= noise <= MOST_NOISE:
        return f"its noise of {noise:g} is outside {LEAST_NOISE:g} to {MOST_NOISE:g}, the range that hospitals plan in"
    if epsilon is None:
        return ""
    if report.epsilon is None or not report.epsilon <= epsilon * _ROUNDED:
        return f"it reports an epsilon of {report.epsilon}, but the study grants {epsilon:g}"
    if not 0 < report.delta <= delta * _ROUNDED:
        return f"it reports a delta of {report.delta:g}, but the study grants {delta:g}"
    return ""
