"""What a histogram will tell: against another simulation of the same figure, and against what must be so."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.metrics.foresight import Kind, foresee, foresee_answer
from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.ranking import roc_auc


@pytest.mark.parametrize(("patients", "bins", "noise"), [(60, 16, 1.2), (40, 8, 1.0), (100, 16, 1.9), (20, 10, 0.5)])
def test_it_comes_as_it_was_foreseen(patients: int, bins: int, noise: float) -> None:
    """Scores drawn in another way, of a model that is a little better calibrated: from a beta distribution."""
    rng = np.random.default_rng(11)
    labels = np.arange(patients) < round(patients / 3)
    figures = []
    for _ in range(400):
        scores = np.where(labels, rng.beta(3.4, 2, patients), rng.beta(2, 3.4, patients))  # their AUC is 0.80
        cells = score_histogram(scores, labels, bins) + rng.normal(0, noise, (2, bins))
        figures.append(roc_auc(ScoreHistogram(cells, noise)))
    there = [figure for figure in figures if figure is not None]
    foreseen = foresee(patients, bins, noise)
    assert foreseen.none == pytest.approx(1 - np.mean([figure.firm for figure in there]), abs=0.1)
    assert foreseen.width == pytest.approx(np.median([figure.high - figure.low for figure in there]), abs=0.12)


def test_more_patients_tell_more_and_more_noise_tells_less() -> None:
    by_patients = [foresee(patients, 8, 1.5) for patients in (20, 40, 80, 160)]
    assert [f.none for f in by_patients] == sorted([f.none for f in by_patients], reverse=True)
    assert [f.width for f in by_patients] == sorted([f.width for f in by_patients], reverse=True)
    by_noise = [foresee(60, 8, noise) for noise in (0.0, 1.0, 2.0, 4.0)]
    assert [f.none for f in by_noise] == sorted(f.none for f in by_noise)
    assert [f.width for f in by_noise] == sorted(f.width for f in by_noise)
    assert [f.tells_nothing for f in by_noise] == [False, False, False, True]


def test_without_noise_there_is_always_an_auc_of_two_patients() -> None:
    assert foresee(2, 1024, 0.0).none == 0.0
    assert foresee(1, 1024, 0.0).none == 1.0  # one class only
    assert foresee(1, 1024, 0.0).width == 1.0


def test_the_same_question_has_the_same_answer() -> None:
    assert foresee(50, 12, 1.7) == foresee(50, 12, 1.7)


@pytest.mark.parametrize(("kind", "cells"), [("classes", (3, 3)), ("grade", (5, 5)), ("measure", (3, 8))])
def test_of_other_answers_more_patients_tell_more_and_more_noise_tells_less(kind: Kind, cells: tuple[int, int]) -> None:
    by_patients = [foresee_answer(kind, cells, patients, 16, 1.5) for patients in (20, 80, 320)]
    assert [f.width for f in by_patients] == sorted([f.width for f in by_patients], reverse=True)
    assert by_patients[-1].none < 0.2
    by_noise = [foresee_answer(kind, cells, 100, 16, noise) for noise in (0.0, 2.0, 8.0)]
    assert [f.width for f in by_noise] == sorted(f.width for f in by_noise)
    assert by_noise[0].none == 0
    assert foresee_answer(kind, cells, 1, 16, 0.0).none in (0.0, 1.0)
