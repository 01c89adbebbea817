"""Hands ripen with the age that their label says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tasks.hand_xray import TASK
from tasks.phantoms.hand_xray.hand import WRIST_MM, Hand, Pose, _bones_of, attenuation_of, scale_of

LYING = Pose(0.0, (0.0, 0.0), 1.0)
X, Y = np.arange(-110, 110, 1, dtype=np.float32)[None, :], np.arange(120, -120, -1, dtype=np.float32)[:, None]


@cache
def _seen(months: float) -> np.ndarray:
    return attenuation_of(Hand(months / 12, 1.0, 1.0, (0.0,) * 7), LYING, X, Y)


def test_hands_grow_and_hardly_any_more_at_the_end() -> None:
    widths = [float((_seen(months) > 0.1).sum()) for months in (12, 72, 132, 192, 216)]
    assert widths == sorted(widths)
    assert widths[1] / widths[0] > 1.4
    assert widths[4] / widths[3] < 1.06


@pytest.mark.parametrize(("younger", "older"), [(48, 96), (96, 150)])
def test_bones_of_the_wrist_appear_one_after_the_other(younger: float, older: float) -> None:
    assert _wrist(older) > 1.08 * _wrist(younger)


def _wrist(months: float) -> float:
    """How much of what lies between forearm and palm is bone, in a hand's own scale."""
    grown = float((_seen(months) > 0.1).sum()) ** 0.5
    scale = grown / float((_seen(216) > 0.1).sum()) ** 0.5
    rows = (Y[:, 0] > (-62 + 3) * scale) & (Y[:, 0] < (-62 + 20) * scale)
    return float(_seen(months)[rows][:, np.abs(X[0]) < 14 * scale].mean()) / scale


def test_growth_plates_close() -> None:
    """Along the middle finger's metacarpal, from its shaft into its cap."""
    along = np.linspace(-6, 2, 41)
    dips = []
    for months in (130, 204):
        hand = Hand(months / 12, 1.0, 1.0, (0.0,) * 7)
        _, start, end = next(_bones_of(2, LYING))
        length = float(np.hypot(end[0] - start[0], end[1] - start[1]))
        x, y = (end[n] + along * (end[n] - start[n]) / length for n in (0, 1))
        scale = scale_of(hand)
        seen = attenuation_of(hand, LYING, (x * scale).astype(np.float32), ((y - WRIST_MM) * scale).astype(np.float32))
        dips.append(float(seen.min() / seen[0]))
    assert dips[0] < 0.45, "a dark line between shaft and cap"
    assert dips[1] > dips[0] + 0.1, "grown together: spongy bone, less dense than the shaft, and no gap"


def test_years_are_months() -> None:
    assert TASK.answer.read("12.5 a") == TASK.answer.read("150") == 150
    assert TASK.answer.event_of(np.array([168.0, 168.1])).tolist() == [0, 1]
