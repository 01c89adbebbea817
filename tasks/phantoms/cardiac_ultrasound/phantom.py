"""Phantom echocardiograms from the apex: speckle in a sector, with the artefacts of ribs and lung."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.cardiac_ultrasound import TASK
from tasks.cardiac_ultrasound.structures import STRUCTURES
from tasks.phantoms.cardiac_ultrasound.heart import Heart, anatomy_of, heart_of
from tasks.phantoms.cardiac_ultrasound.scanner import attributes_of, mirrored, probe_of
from tasks.phantoms.cardiac_ultrasound.view import image_of
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.probe import Probe, pixel_places_mm
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.phantoms.ultrasound import framed
from tasks.task import PhantomHospital, Structure


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's apical views; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6), end of diastole and end
            of systole by turns, a Segmentation (A.51) of all images of a patient, and ``labels.csv``. A patient was
            recorded in one view.
        hospital: patients, share of four-chamber views, and the look of the scanner.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(folder, hospital, seed, Recipe(TASK.name, 1, TASK.classes, _draw_patient))


def _draw_patient(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[Attributes | Dependent]:
    masks = []
    for image, outlines in views_of(hospital, rng, positive):
        masks.append(outlines)
        yield image
    yield partial(segmentation, STRUCTURES, masks)


def views_of(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[tuple[Attributes, NDArray[np.bool_]]]:
    """A patient's images, each with the masks of ``STRUCTURES`` on it, bool (structures, rows, columns)."""
    probe, turned = probe_of(hospital), mirrored(hospital)
    heart = heart_of(rng, positive)
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 90)):03d}Y"}
    window = float(rng.uniform(0, 1))
    first = int(rng.integers(2))
    least, most = hospital.images_per_patient
    for number in range(int(rng.integers(least, most + 1))):
        systole = (number + first) % 2 == 1
        image, outlines = _image(probe, heart, systole, window, rng)
        if turned:
            image, outlines = image[:, ::-1], outlines[:, :, ::-1]
        text = f"{probe.frequency_mhz:.1f} MHZ ADULT HEART"
        frame = framed(image, probe.frame, probe.region, probe.size_mm[0], text)
        yield person | attributes_of(probe, frame, systole), _in_frame(probe, outlines)


def segmentation(
    structures: Sequence[Structure], masks: list[NDArray[np.bool_]], files: Sequence[Attributes]
) -> Attributes:
    """A segmentation of a patient's images, from the masks of each."""
    outlined = [OutlinedImage(file, some) for file, some in zip(files, masks, strict=True)]
    return segmentation_of(outlined, structures)


def _in_frame(probe: Probe, outlines: NDArray[np.bool_]) -> NDArray[np.bool_]:
    left, top, right, bottom = probe.region
    whole = np.zeros((len(outlines), *probe.frame), dtype=np.bool_)
    whole[:, top:bottom, left:right] = outlines
    return whole


def _image(
    probe: Probe, heart: Heart, systole: bool, window: float, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """An image and the masks of ``STRUCTURES`` on it, (rows, columns) of the probe's region."""
    grey = image_of(probe, partial(anatomy_of, heart, systole), window, rng)
    across, deep, seen = pixel_places_mm(probe)
    there = anatomy_of(heart, systole, across, deep)
    outlined = np.stack([there.left_ventricle, there.myocardium, there.left_atrium]) > 0.5
    outlined[1] &= ~outlined[0]
    return grey, outlined & seen
