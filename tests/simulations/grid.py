"""What is simulated, table by table."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulations.coverage import FIGURES, Cell, Measured, Outlines, measure, measure_outlines
from tests.simulations.kinds import KINDS, WORLDS, Kind, measure_kind
from tests.simulations.verdicts import (
    Rate,
    gates_passed,
    hospitals_that_seem_to_predict,
    verdicts_on_equal_models,
    verdicts_on_equal_procedures,
)
from tests.simulations.world import Release, World

EXACT, COARSE, LOOKED = Release(1024), Release(16), Release(16, looked=True)
Row = list[str]


def cells() -> Iterator[Cell]:
    """Every line of the tables of coverage."""
    for patients in (15, 40, 100, 400, 1000):
        for prevalence, auc in ((0.05, 0.8), (0.1, 0.6), (0.1, 0.97), (0.3, 0.8), (0.5, 0.6)):
            if patients * prevalence >= 1:
                yield Cell("AUC", patients, World(prevalence, auc), EXACT)
    for squeeze in (0.1, 0.25):
        for release in (COARSE, LOOKED, Release(16, 2.0), Release(16, 2.0, looked=True)):
            for patients in (100, 400):
                yield Cell("AUC", patients, World(0.1, 0.8, squeeze), release)
    for noise in (1.0, 2.0, 5.0, 10.0):
        for patients in (100, 400, 1000):
            for prevalence, auc in ((0.1, 0.6), (0.3, 0.8)):
                yield Cell("AUC", patients, World(prevalence, auc), Release(16, noise, looked=True))
    for world in (World(0.3, 0.8, spread=1.6), World(0.3, 0.8, spread=0.6), World(0.3, 0.8, images=4)):
        for release in (EXACT, Release(16, 2.0, looked=True)):
            yield Cell("AUC", 200, world, release)
    for hospitals, noise in ((3, 0.0), (3, 2.0), (10, 2.0), (20, 2.0)):
        for squeeze in (1.0, 0.25):
            yield Cell("mean AUC", 200, World(0.2, 0.8, squeeze), Release(16, noise, looked=True), hospitals)
    yield Cell("mean AUC", 100, World(0.1, 0.6), Release(16, 5.0, looked=True), 3)
    for figure in [name for name in FIGURES if "AUC" not in name]:
        for patients in (15, 40, 100, 400):
            for prevalence, auc in ((0.1, 0.8), (0.1, 0.95), (0.3, 0.8)):
                yield Cell(figure, patients, World(prevalence, auc), EXACT)
        for patients, noise in ((100, 2.0), (400, 2.0), (1000, 5.0)):
            for prevalence, auc in ((0.1, 0.95), (0.3, 0.8)):
                yield Cell(figure, patients, World(prevalence, auc), Release(16, noise, looked=True))


def coverage(repetitions: int) -> Iterator[Row]:
    """Lines of the table of figures."""
    for cell in cells():
        yield [*_of(cell), *_measured(measure(cell, repetitions))]


def outlines(repetitions: int) -> Iterator[Row]:
    """Lines of the table of outlines."""
    for distance in (False, True):
        for patients in (15, 40, 100, 400):
            for bins, noise in ((1024, 0.0), (16, 0.0), (16, 2.0)):
                for missed, agreement in ((0.8, 0.6), (0.1, 0.8), (0.0, 0.95)):
                    found = measure_outlines(Outlines(patients, missed, agreement, bins, noise), repetitions, distance)
                    what = "Hausdorff distance" if distance else "Dice"
                    yield [what, f"{patients}", f"{missed:g}", f"{agreement:g}", f"{bins}", f"{noise:g}",
                           *_measured(found)]  # fmt: skip


def kinds(repetitions: int) -> Iterator[Row]:
    """Lines of the table of classes, grades and measurements."""
    for kind, worlds in (
        ("classes", [name for name in WORLDS if "classes" in name]),
        ("grades", [name for name in WORLDS if "grades" in name]),
        ("measures", ["ejection fraction", "age", "age, gross errors"]),
    ):
        for figure in KINDS[kind]:
            for world in worlds:
                for patients, bins, noise in (
                    (15, 1024, 0.0), (100, 1024, 0.0), (100, 16, 2.0), (400, 16, 2.0), (400, 16, 5.0), (1000, 16, 5.0),
                ):  # fmt: skip
                    found = measure_kind(Kind(figure, world, patients, bins, noise), repetitions)
                    yield [figure, world, f"{patients}", f"{bins}", f"{noise:g}", *_measured(found)]


def words(repetitions: int) -> Iterator[Row]:
    """Lines of the table of words: what was said, in which circumstances, and how often."""
    for patients in (63, 400, 1000):
        for squeeze, looked in ((1.0, True), (0.25, True), (0.25, False)):
            release = Release(16, 2.0, looked)
            found = verdicts_on_equal_models(patients, 3, World(0.1, 0.8, squeeze), release, repetitions)
            bins = "looked for" if looked else "equal"
            told = f"3 x {patients} patients, prevalence 0.1, logits times {squeeze:g}, 16 bins {bins}, noise 2"
            yield ["“helps” or “harms” of equal models", told, *_rate(found)]
    for hospitals in (3, 20):
        for repeats in (1, 3, 6, 12):
            found = verdicts_on_equal_procedures(hospitals, 0.03, 0.03, repeats, 10 * repetitions)
            told = f"{hospitals} hospitals, both standard deviations 0.03, {repeats} trainings"
            yield ["“helps” or “harms” of equal procedures", told, *_rate(found)]
    for hospitals, patients, prevalence, noise in (
        (3, 20, 0.3, 0.0), (5, 20, 0.3, 0.0), (10, 40, 0.1, 2.0), (10, 100, 0.3, 5.0), (20, 20, 0.3, 0.0),
        (20, 100, 0.1, 5.0), (10, 20, 0.025, 0.0),
    ):  # fmt: skip
        found = hospitals_that_seem_to_predict(hospitals, patients, prevalence, noise, repetitions)
        told = f"{hospitals} x {patients} patients, prevalence {prevalence:g} everywhere, noise {noise:g}"
        yield ["“the hospital predicts the label”", told, *_rate(found)]
    found = hospitals_that_seem_to_predict(10, 100, 0.3, 0.0, repetitions, differ=0.15)
    yield ["the same where it does", "10 x 100 patients, prevalences 0.15 and 0.45 by turns", *_rate(found)]
    for auc in (0.75, 0.9):
        found = gates_passed(200, 3, auc, {"specificity": 0.85}, max(repetitions // 4, 10))
        yield ["accepted by gate.specificity=0.85", f"3 x 200 patients, AUC {auc:g}", *_rate(found)]
        found = gates_passed(200, 3, auc, {"auc": 0.75}, max(repetitions // 4, 10))
        yield ["accepted by gate.auc=0.75", f"3 x 200 patients, AUC {auc:g}", *_rate(found)]


def _of(cell: Cell) -> Row:
    world, release = cell.world, cell.release
    kind = [f"logits x {world.squeeze:g}"] if world.squeeze != 1 else []
    kind += [f"spread {world.spread:g}"] if world.spread != 1 else []
    kind += [f"{world.images} images"] if world.images > 1 else []
    bins = f"{release.bins}{' looked for' if release.looked else ''}"
    patients = f"{cell.hospitals} x {cell.patients}" if cell.hospitals > 1 else f"{cell.patients}"
    scores = ", ".join(kind) or "calibrated"
    return [cell.figure, patients, f"{world.prevalence:g}", f"{world.auc:g}", scores, bins, f"{release.noise:g}"]


def _measured(found: Measured) -> Row:
    mark = " !" if found.coverage < 0.92 - 2 * found.error else " +" if found.coverage > 0.99 + 2 * found.error else ""
    bias = "–" if found.bias != found.bias else f"{found.bias:+.3f}"
    return [f"{found.coverage:.3f}{mark}", f"{found.error:.3f}", f"{found.shown:.2f}", bias, f"{found.width:.3f}"]


def _rate(found: Rate) -> Row:
    return [f"{found.rate:.3f}", f"{found.error:.3f}"]
