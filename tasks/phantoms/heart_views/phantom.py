"""Phantom echocardiograms in four views: those of ``cardiac_ultrasound``, and two from beside the breastbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.heart_views import TASK
from tasks.phantoms.cardiac_ultrasound.heart import Anatomy, anatomy_of, heart_of
from tasks.phantoms.cardiac_ultrasound.parasternal import long_axis_of, short_axis_of, window_of
from tasks.phantoms.cardiac_ultrasound.scanner import attributes_of, mirrored, probe_of
from tasks.phantoms.cardiac_ultrasound.view import image_of
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill
from tasks.phantoms.ultrasound import framed
from tasks.task import PhantomHospital

_FROM_BESIDE = {"parasternal_long_axis": long_axis_of, "parasternal_short_axis": short_axis_of}


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's echocardiograms; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6), end of diastole and end
            of systole by turns, and ``labels.csv``. A patient was recorded in one view.
        hospital: patients, share of apical four-chamber views, and the look of the scanner. The others are equally
            frequent.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    probe, turned = probe_of(hospital), mirrored(hospital)
    view = TASK.said(drawn_truth(TASK.answer, positive, rng))
    anatomy_at = _anatomy(view, rng)
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 90)):03d}Y"}
    window, first = float(rng.uniform(0, 1)), int(rng.integers(2))
    least, most = hospital.images_per_patient
    for number in range(int(rng.integers(least, most + 1))):
        systole = (number + first) % 2 == 1
        image = image_of(probe, partial(anatomy_at, float(systole)), window, rng)
        text = f"{probe.frequency_mhz:.1f} MHZ ADULT HEART"
        frame = framed(image[:, ::-1] if turned else image, probe.frame, probe.region, probe.size_mm[0], text)
        yield Described(person | attributes_of(probe, frame, systole), label=view)


def _anatomy(view: str, rng: np.random.Generator) -> Callable[[float, NDArray[Any], NDArray[Any]], Anatomy]:
    """From a phase of the heartbeat and places to what lies there in a patient's view."""
    heart = heart_of(rng, view == "apical_four_chamber")
    if view in _FROM_BESIDE:
        return partial(_FROM_BESIDE[view], heart, window_of(rng))
    return partial(anatomy_of, heart)
