"""Figures of ordered grades from a table against the raw numbers, and what noise does to them."""

from __future__ import annotations

import math

import pytest

from tasks.metrics.grades import told_grades


def test_patients_are_counted_by_their_grade_and_the_told_one() -> None:
    assert told_grades([0, 2, 1, 1], [0, 1, 1, math.nan], 3).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_grades_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        told_grades([3], [0], 3)
