"""The heart is as wide as its label says. What every task must keep stands in ``tests/tasks/test_every_task.py``."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tasks.heart_size import TASK
from tasks.phantoms.chest_xray.illness import Illness
from tasks.phantoms.chest_xray.thorax import Projection, attenuation_of, thorax_of
from tasks.phantoms.heart_size.phantom import grade_of, heart_of
from tasks.task import PhantomHospital


@pytest.mark.parametrize("ratio", [42.0, 50.0, 62.0])
def test_the_shade_of_the_heart_is_as_wide_as_its_ratio_says(ratio: float) -> None:
    """Measured from the difference between two images, one of which has next to no heart."""
    thorax = thorax_of(np.random.default_rng(3))
    u = np.arange(-240, 240, 2, dtype=np.float32)
    view = Projection(False, 1800.0, 0.0, (0.0, 0.0))

    def seen(heart: float) -> np.ndarray:
        rng = np.random.default_rng(4)
        return attenuation_of(thorax, Illness(heart=heart), view=view, u_mm=u, v_mm=u, rng=rng)

    shade = (seen(heart_of(thorax, ratio)) - seen(0.05)).max(axis=0)
    lungs = 2 * 0.87 * thorax.wide * view.magnification(thorax, 0.0)
    # The mediastinum hides the middle (and the whole right border of a heart smaller than these), so the borders are
    # looked for from outside.
    there = u[shade > 0.1 * shade.max()]
    assert 100 * (there.max() - there.min()) / lungs == pytest.approx(ratio, abs=2)


def test_grades_follow_from_ratios_and_some_are_not_known(tmp_path: Path) -> None:
    assert [grade_of(ratio) for ratio in (50.0, 50.1, 55.1, 60.1)] == ["none", "mild", "moderate", "severe"]
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=30, prevalence=0.5, images_per_patient=(1, 1)), 0)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        ratio = TASK.questions["question"].read(row["label"])
        assert row["enlargement"] in ("", grade_of(ratio))
    assert {row["enlargement"] == "" for row in rows} == {True, False}
