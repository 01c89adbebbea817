"""What a histogram of scores will be able to tell, said before anybody's privacy is spent on it.

Everything that decides it is known in advance: about how many patients there are, the cells, the noise. So the very
figure is computed on invented patients, many times. Their scores are those of a model of a given AUC: normally
distributed with equal variances (the binormal model: Green and Swets, "Signal Detection Theory", 1966), squeezed into
(0, 1) by the logistic function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri, softmax

from tasks.metrics.classes import ClassTables, rest_histograms, told_classes
from tasks.metrics.grades import GradeTable, told_grades
from tasks.metrics.histogram import ScoreHistogram, range_edges, score_histogram
from tasks.metrics.interval import Interval
from tasks.metrics.measures import MeasureHistograms, told_measures
from tasks.metrics.ranking import roc_auc

Kind = Literal["classes", "grade", "measure"]

ASSUMED_AUC = 0.8
ASSUMED_POSITIVES = 1 / 3
"""Share of patients with the finding, where nobody may know the real one."""
TOO_WIDE = 0.7
"""An interval wider than this holds both a good AUC and one that is worse than chance."""
_DRAWS = 200
_ANSWERS_DRAWN = 60
FORESEEN = {"classes": "macro AUC", "grade": "weighted kappa", "measure": "mean absolute error, share of the range"}
"""By kind of answer, the figure that is foreseen."""
ASSUMED_ANSWERS = (
    "equally frequent classes, each with an AUC of about 0.8 against the others; equally frequent grades that "
    "correlate with what is told by 0.8; measured values that are told with an error of 8 % of the range"
)


@dataclass(frozen=True)
class Foresight:
    """How an AUC would come out.

    Attributes:
        patients: validation patients that were assumed.
        noise: standard deviation on each cell.
        none: probability that there is no point, since the noise hides a class; see ``interval.FIRM``.
        width: median width of its 95 % interval; 1 where there is none.
    """

    patients: int
    noise: float
    none: float
    width: float

    @property
    def tells_nothing(self) -> bool:
        """Whether noise makes it more likely than not that a good model cannot be told from a bad one."""
        return self.noise > 0 and self.width > TOO_WIDE


def validation_patients(training: int, held_out: float) -> int:
    """How many are held out beside so many training patients, at least 1.

    Args:
        held_out: share of all patients.
    """
    return max(1, round(training * held_out / (1 - held_out)))


@lru_cache(maxsize=4096)
def foresee(
    patients: int, bins: int, noise: float, auc: float = ASSUMED_AUC, positives: float = ASSUMED_POSITIVES
) -> Foresight:
    """What a histogram of so many patients in so many bins a class, with this noise on each cell, can tell.

    The same question has the same answer: the invented patients come from a fixed seed, and no real one is involved.

    Args:
        patients: positives and negatives together, at least 1.
        noise: standard deviation on each cell; 0 for exact counts.
        auc: of the model that is assumed.
        positives: share of patients with the finding.

    >>> foresee(patients=400, bins=16, noise=2.0).tells_nothing
    False
    >>> foresee(patients=40, bins=16, noise=4.0).tells_nothing  # 16 cells' noise hides some 13 positives
    True
    """
    rng, shown = np.random.default_rng((patients, bins, round(1000 * noise))), 0
    labels = np.arange(patients) < min(max(round(patients * positives), 1), max(patients - 1, 1))
    apart = float(np.sqrt(2) * ndtri(auc))
    widths: list[float] = []
    for _ in range(_DRAWS):
        scores = expit(rng.standard_normal(patients) + apart * (labels - 0.5))
        cells = score_histogram(scores, labels, bins) + noise * rng.standard_normal((2, bins))
        figure = roc_auc(ScoreHistogram(cells, noise))
        widths.append(1.0 if figure is None else figure.high - figure.low)
        shown += figure is not None and figure.firm
    return Foresight(patients, noise, 1 - shown / _DRAWS, float(np.median(widths)))


@lru_cache(maxsize=4096)
def foresee_answer(kind: Kind, cells: tuple[int, int], patients: int, bins: int, noise: float) -> Foresight:
    """The same of ``FORESEEN[kind]``, for a model and patients as ``ASSUMED_ANSWERS`` says.

    Args:
        cells: rows and columns of the question's table.
        patients: of whom the answer is known, at least 1.
        bins: of the histogram of a class's probability.
    """
    rng = np.random.default_rng((patients, bins, *cells, round(1000 * noise)))
    figures = [_DRAWN[kind](rng, cells, patients, bins, noise) for _ in range(_ANSWERS_DRAWN)]
    widths = [1.0 if figure is None else figure.high - figure.low for figure in figures]
    shown = sum(figure is not None and figure.firm for figure in figures)
    return Foresight(patients, noise, 1 - shown / _ANSWERS_DRAWN, float(np.median(widths)))


def _noised(rng: np.random.Generator, counts: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    return counts + noise * rng.standard_normal(counts.shape)


def _classes(
    rng: np.random.Generator, cells: tuple[int, int], patients: int, bins: int, noise: float
) -> Interval | None:
    true = np.arange(patients) % cells[0]
    raised = np.sqrt(2) * ndtri(ASSUMED_AUC) * np.eye(cells[0])[true]
    chances = np.clip(softmax(rng.standard_normal((patients, cells[0])) + raised, axis=1), 0, 1)
    edges = range_edges(bins)
    table, rest = told_classes(chances, true), rest_histograms(chances, true, bins, edges)
    return ClassTables(_noised(rng, table, noise), _noised(rng, rest, noise), noise, edges).macro_auc()


def _grades(
    rng: np.random.Generator, cells: tuple[int, int], patients: int, bins: int, noise: float
) -> Interval | None:
    hidden, cuts = rng.standard_normal(patients), ndtri(np.arange(1, cells[0]) / cells[0])
    told = np.searchsorted(cuts, 0.8 * hidden + 0.6 * rng.standard_normal(patients))
    table = told_grades(told, np.searchsorted(cuts, hidden), cells[0])
    return GradeTable(_noised(rng, table, noise), noise).kappa()


def _measures(
    rng: np.random.Generator, cells: tuple[int, int], patients: int, bins: int, noise: float
) -> Interval | None:
    true = rng.beta(2, 2, patients)
    counts = told_measures(true, true + 0.08 * rng.standard_normal(patients), 0, 1, cells[1])
    return MeasureHistograms(_noised(rng, counts, noise), noise).mean_error()


_DRAWN: dict[Kind, Callable[[np.random.Generator, tuple[int, int], int, int, float], Interval | None]] = {
    "classes": _classes,
    "grade": _grades,
    "measure": _measures,
}
