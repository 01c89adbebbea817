"""What classes and grades share; their own figures stand in ``test_classes.py`` and ``test_grades.py``."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.metrics.classes import ClassTables
from tasks.metrics.confusion import Confusion, count_pairs
from tasks.metrics.grades import GradeTable

TOLD = count_pairs([0, 0, 0, 1, 2], [0, 0, 1, 1, 0], 3)


def test_a_patient_is_in_the_cell_of_both() -> None:
    assert TOLD.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("wrong", [3, -1, 0.5, np.nan])
def test_what_is_no_name_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        count_pairs([wrong], [0], 3)
    with pytest.raises(ValueError, match="whole numbers from 0 to 2"):
        count_pairs([0], [wrong], 3)


@pytest.mark.parametrize("table", [GradeTable(TOLD), ClassTables(TOLD, np.zeros((3, 2, 4)))])
def test_classes_and_grades_have_the_same_figures(table: Confusion) -> None:
    assert (table.sizes, table.size_noise) == ([3, 1, 1], 0)
    accuracy = table.accuracy()
    assert accuracy is not None
    assert accuracy.value == pytest.approx(3 / 5)
    shares = [[None if each is None else each.value for each in row] for row in table.shares()]
    np.testing.assert_allclose(np.array(shares, float), TOLD / TOLD.sum(axis=1, keepdims=True), atol=1e-12)
    assert table.sensitivities() == [table.shares()[n][n] for n in range(3)]


def test_noise_on_a_row_is_that_of_its_cells() -> None:
    assert GradeTable(np.zeros((4, 4)), 3.0).size_noise == 6
