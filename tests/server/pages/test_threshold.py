"""1,000 patients sorted by the threshold are the rates at the prevalence, and no numbers of anybody's patients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from server.pages.threshold import called, roc
from server.results.figures import Figures, arm_of
from tasks.metrics.interval import Interval
from tests.server.outcome import evaluated


def figures(noise: float = 0.0) -> Figures:
    found = arm_of({"ash": evaluated(1, 2.0, (300, 100), noise).histogram()})
    assert found is not None
    return found.everybody


def test_the_table_has_a_thousand_patients_at_the_studys_prevalence() -> None:
    told = called(of := figures())
    assert told is not None
    (found, missed), (alarmed, spared) = told.counts
    assert found + missed + alarmed + spared == 1000
    assert found + missed == 250
    assert of.specific.sensitivity is not None
    assert found == pytest.approx(250 * of.specific.sensitivity.value, abs=1)
    assert told.positive is not None
    assert told.positive.value == pytest.approx(found / (found + alarmed), abs=0.01)


def test_where_noise_hides_a_class_there_is_no_table() -> None:
    hidden = replace(figures(), prevalence=Interval(0.3, 0.0, 1.0, firm=False))
    assert called(hidden) is None
    assert called(replace(figures(), prevalence=None)) is None


def test_the_curve_goes_from_everybody_called_to_nobody_and_the_area_is_the_auc() -> None:
    of = figures()
    points = [*of.roc]
    assert points[0] == (1.0, 1.0)
    assert points[-1] == (0.0, 0.0)
    area = sum((x1 - x2) * (y1 + y2) / 2 for (x1, y1), (x2, y2) in pairwise(points))
    assert of.auc is not None
    assert area == pytest.approx(of.auc.value, abs=0.02)
    chart = roc(of)
    assert chart is not None
    ElementTree.fromstring(chart.svg())
    assert roc(replace(of, roc=[])) is None
