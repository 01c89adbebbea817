"""A few lines of the tables of ``server/STATISTICS.md``, with few repetitions and loose bounds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.pages.report import EXPLAINED
from tests.simulations.__main__ import BEGIN, DOCUMENT, END
from tests.simulations.coverage import Cell, Outlines, measure, measure_outlines
from tests.simulations.kinds import Kind, measure_kind
from tests.simulations.verdicts import (
    gates_passed,
    hospitals_that_seem_to_predict,
    verdicts_on_equal_models,
    verdicts_on_equal_procedures,
)
from tests.simulations.world import Release, World

LOOKED = Release(16, 2.0, looked=True)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("AUC", 15, World(0.3, 0.8), Release()),
        Cell("AUC", 100, World(0.1, 0.97), Release()),
        Cell("AUC", 400, World(0.1, 0.8, 0.1), Release(16)),
        Cell("AUC", 400, World(0.1, 0.8, 0.1), LOOKED),
        Cell("AUC", 200, World(0.3, 0.8, spread=1.6), LOOKED),
        Cell("mean AUC", 100, World(0.1, 0.6), Release(16, 5.0, looked=True), 3),
        Cell("average precision", 40, World(0.1, 0.8), Release()),
        Cell("average precision", 400, World(0.3, 0.8), LOOKED),
        Cell("Brier", 15, World(0.1, 0.8), Release()),
        Cell("calibration error", 40, World(0.3, 0.8), Release()),
        Cell("calibration slope", 400, World(0.3, 0.8, 0.25), LOOKED),
        Cell("prevalence", 100, World(0.1, 0.8), LOOKED),
        Cell("specificity at 90 %", 100, World(0.3, 0.8), Release(256)),
        Cell("sensitivity, Youden", 100, World(0.3, 0.8), Release(256)),
    ],
    ids=lambda cell: f"{cell.figure} {cell.patients}",
)
def test_intervals_hold_the_truth(cell: Cell) -> None:
    found = measure(cell, 60)
    assert found.coverage >= 0.85


def test_a_point_that_is_shown_is_not_too_good() -> None:
    """Once shown where the class happened to look large enough, an AUC of 0.6 read 0.76 and 0.84."""
    for patients, noise in ((400, 5.0), (400, 10.0), (100, 2.0)):
        found = measure(Cell("AUC", patients, World(0.1, 0.6), Release(16, noise, looked=True)), 150)
        assert found.shown < 0.2 or abs(found.bias) < 0.05


def test_outlines_hold_the_truth() -> None:
    for distance in (False, True):
        assert measure_outlines(Outlines(100, 0.1, 0.8, 16, 2.0), 80, distance).coverage >= 0.87


@pytest.mark.parametrize(
    "kind",
    [
        Kind("macro AUC", "classes, good", 100, 1024, 0.0),
        Kind("macro AUC", "classes, poor", 400, 16, 2.0),
        Kind("accuracy", "classes, good", 100, 16, 2.0),
        Kind("balanced accuracy", "classes, poor", 400, 16, 5.0),
        Kind("weighted kappa", "grades, good", 40, 1024, 0.0),
        Kind("weighted kappa", "grades, poor", 400, 16, 5.0),
        Kind("error in grades", "grades, good", 100, 16, 2.0),
        Kind("bias", "ejection fraction", 100, 16, 2.0),
        Kind("mean absolute error", "age", 400, 16, 2.0),
        Kind("upper limit of agreement", "age", 100, 1024, 0.0),
        Kind("upper limit of agreement", "age, gross errors", 400, 16, 2.0),
        Kind("R2", "ejection fraction", 400, 16, 2.0),
        Kind("slope", "ejection fraction", 100, 1024, 0.0),
        Kind("slope", "age", 400, 16, 5.0),
    ],
    ids=lambda kind: f"{kind.figure} {kind.patients} {kind.noise:g}",
)
def test_figures_of_other_kinds_of_answer_hold_the_truth(kind: Kind) -> None:
    found = measure_kind(kind, 60)
    assert found.coverage >= 0.85
    assert found.shown < 0.2 or abs(found.bias) < 0.08


def test_equal_models_are_not_told_apart_whatever_their_logits() -> None:
    """With 16 equal bins against 1024, federation was said to harm in 94 % of these studies."""
    for release in (LOOKED, Release(16, 2.0)):
        assert verdicts_on_equal_models(1000, 1, World(0.1, 0.8, 0.25), release, 40).rate <= 0.15


def test_equal_procedures_are_told_apart_only_where_the_scatter_of_training_is_left_out() -> None:
    assert verdicts_on_equal_procedures(3, 0.03, 0.03, 1, 400).rate > 0.2
    assert verdicts_on_equal_procedures(3, 0.03, 0.03, 6, 400).rate < 0.08


def test_equal_hospitals_do_not_predict_the_label() -> None:
    assert hospitals_that_seem_to_predict(10, 20, 0.3, 0.0, 60).rate <= 0.12
    assert hospitals_that_seem_to_predict(10, 100, 0.3, 0.0, 20, differ=0.15).rate >= 0.8


def test_the_gate_for_specificity_can_be_passed() -> None:
    assert gates_passed(200, 3, 0.9, {"specificity": 0.85}, 15).rate > 0.6


def test_every_figure_of_the_report_has_its_section_and_the_tables_are_there() -> None:
    text = Path(DOCUMENT).read_text("utf-8")
    sections = re.findall(r"^## (\w+)$", text, flags=re.MULTILINE)
    assert set(EXPLAINED) <= set(sections)
    tables = text.split(BEGIN)[1].split(END)[0]
    assert tables.count("###") == 4
    assert tables.count("| AUC |") > 40
