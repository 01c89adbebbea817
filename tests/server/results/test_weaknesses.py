"""What a model does badly is told before its figures, and nothing of it of a model that does well."""

from __future__ import annotations

import pytest

from server.rounds.evaluation import Evaluated
from tests.server.outcome import evaluated, outcome


@pytest.mark.parametrize(
    ("hospital", "told"),
    [
        (evaluated(3, 0.05, (40, 30)), "not shown to be better than chance: its AUC on all patients is 0."),
        (evaluated(1, 2.0, (80, 6)), "Few validation patients of a class at ash: fewer than 10"),
        (evaluated(1, 1.5, (300, 200), moved=2.0), "off by 0."),
    ],
    ids=["chance", "few", "off"],
)
def test_what_a_reader_must_know_is_told(hospital: Evaluated, told: str) -> None:
    found, _ = outcome({"ash": hospital})
    assert any(told in warning for warning in found.warnings), found.warnings


def test_a_good_model_is_not_talked_down() -> None:
    found, _ = outcome({"ash": evaluated(1, 2.0, (300, 200)), "elm": evaluated(2, 2.0, (300, 200))})
    words = ("better than chance", "Few validation", "off by", "worse than")
    assert [warning for warning in found.warnings if any(word in warning for word in words)] == []
