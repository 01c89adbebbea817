"""The heart ejects what its label says, between the frames that a model sees."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from tasks.ejection_fraction import TASK
from tasks.phantoms.cardiac_ultrasound.heart import anatomy_of, contraction_for, ejection_fraction, heart_of
from tasks.task import PhantomHospital

X, Z = np.arange(-90, 90, 0.25, dtype=np.float32)[None, :], np.arange(0, 190, 0.25, dtype=np.float32)[:, None]


def _volume(diameters: np.ndarray) -> float:
    """By disks, from the width of the cavity in each row."""
    return float((np.pi / 4 * diameters**2).sum())


@pytest.mark.parametrize("ejected", [12.0, 49.9, 65.0, 79.0])
def test_the_method_of_disks_finds_the_label_in_what_is_drawn(ejected: float) -> None:
    heart = heart_of(np.random.default_rng(5), four_chambers=True)
    heart = replace(heart, contraction=contraction_for(ejected), tilt=0.0, bend=0.0, apex=(0.0, 25.0))
    diastole, systole = (
        _volume(0.25 * anatomy_of(heart, phase, X, Z).left_ventricle.sum(axis=1)) for phase in (0.0, 1.0)
    )
    assert 100 * (1 - systole / diastole) == pytest.approx(ejected, abs=1.0)


def test_no_contraction_ejects_nothing_and_what_is_drawn_covers_the_declared_range() -> None:
    assert ejection_fraction(0.0) == 0
    for ejected in (10.0, 80.0):
        assert ejection_fraction(contraction_for(ejected)) == pytest.approx(ejected, abs=0.01)


def test_a_clip_begins_large_and_ends_small_in_the_same_place(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=8, prevalence=0.5, images_per_patient=(1, 1)), 0)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        labels = {row["SOPInstanceUID"]: TASK.answer.read(row["label"]) for row in csv.DictReader(file)}
    for path in (tmp_path / "dicom").glob("*/*.dcm"):
        clip = dcmread(path)
        first, last = clip.pixel_array.astype(np.float32) / 255
        assert 10 <= labels[clip.SOPInstanceUID] <= 80
        assert np.corrcoef(first.ravel(), last.ravel())[0, 1] > 0.5, "one heart, one window"
        assert not np.array_equal(first, last)
