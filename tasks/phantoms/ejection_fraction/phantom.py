"""Phantom clips of the beating heart from its apex, from the end of diastole to the end of systole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from tasks.ejection_fraction import TASK
from tasks.phantoms.cardiac_ultrasound.heart import anatomy_of, contraction_for, heart_of
from tasks.phantoms.cardiac_ultrasound.scanner import clip_attributes_of, mirrored, probe_of
from tasks.phantoms.cardiac_ultrasound.view import image_of
from tasks.phantoms.hospital import Described, Recipe, drawn_truth, fill
from tasks.phantoms.ultrasound import framed
from tasks.task import PhantomHospital

_PHASES = (0.0, 1.0)
"""Of the frames of a clip: those in between would not be looked at."""


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's clips; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Multi-frame Image Storage (PS3.3 A.7), each from the
            end of diastole to the end of systole of an apical four-chamber view, and ``labels.csv``.
        hospital: patients, share of reduced ejection fractions, and the look of the scanner. How large a heart is says
            nothing of its ejection fraction, so that a model has to look at both ends.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    probe, turned = probe_of(hospital), mirrored(hospital)
    ejected = drawn_truth(TASK.answer, positive, rng)
    heart = replace(heart_of(rng, four_chambers=True), contraction=contraction_for(ejected))
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 90)):03d}Y"}
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        window, clip = float(rng.uniform(0, 1)), int(rng.integers(2**32))
        frames = []
        for phase in _PHASES:
            # Ribs and haze stay where they are while the heart moves.
            image = image_of(probe, partial(anatomy_of, heart, phase), window, np.random.default_rng(clip), rng)
            text = f"{probe.frequency_mhz:.1f} MHZ ADULT HEART"
            frames.append(
                framed(image[:, ::-1] if turned else image, probe.frame, probe.region, probe.size_mm[0], text)
            )
        yield Described(person | clip_attributes_of(probe, np.stack(frames)), label=TASK.said(ejected))
