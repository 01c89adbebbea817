"""Hearts from beside the breastbone. What every task must keep stands in ``tests/tasks/test_every_task.py``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from tasks.heart_views import TASK
from tasks.phantoms.cardiac_ultrasound.heart import Heart
from tasks.phantoms.cardiac_ultrasound.parasternal import Window, long_axis_of, short_axis_of
from tasks.task import PhantomHospital

HEART = Heart(
    length=82,
    width=22,
    wall=9,
    atrium=(20, 22),
    tilt=0.0,
    apex=(0, 25),
    contraction=0.2,
    right=0.8,
    right_width=17,
    bend=0.0,
)
WINDOW = Window(deep=70, aside=0, turned=0)
X, Z = np.arange(-80, 80, 0.5, dtype=np.float32)[None, :], np.arange(0, 160, 0.5, dtype=np.float32)[:, None]


def test_across_its_axis_the_ventricle_is_a_ring_that_narrows_and_thickens() -> None:
    diastole, systole = (short_axis_of(HEART, WINDOW, phase, X, Z) for phase in (0.0, 1.0))
    middle = int(70 / 0.5), X.shape[1] // 2
    for there in (diastole, systole):
        cavity, muscle, right = there.left_ventricle > 0.5, there.myocardium > 0.5, there.right > 0.5
        assert cavity[middle]
        assert not (cavity & muscle).any()
        assert not (right & (cavity | muscle)).any()
        wide, tall = (int(np.ptp(np.flatnonzero(muscle.any(axis=axis)))) for axis in (0, 1))
        assert 0.85 < wide / tall < 1.15, "round"
        assert np.argwhere(right)[:, 1].mean() < middle[1], "the right ventricle lies to the left of the image"
        assert not there.left_atrium.any()
    assert systole.left_ventricle.sum() < 0.75 * diastole.left_ventricle.sum()


def test_along_its_axis_the_heart_lies_with_the_apex_to_the_left_and_the_outflow_above() -> None:
    there = long_axis_of(HEART, WINDOW, 0.0, X, Z)
    rows, columns = np.nonzero(there.left_ventricle > 0.5)
    assert np.ptp(columns) > 1.4 * np.ptp(rows), "it lies"
    atrium = np.argwhere(there.left_atrium > 0.5).mean(axis=0)
    right = np.argwhere(there.right > 0.5).mean(axis=0)
    assert atrium[1] > columns.mean() + 40, "the base is on the right"
    assert right[0] < rows.mean() < atrium[0], "the outflow towards the probe, the atrium away from it"


def test_every_view_is_drawn_and_labelled(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=24, prevalence=0.3, images_per_patient=(1, 1)), 0)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert {*labels} == {TASK.said(number) for number in range(4)}
