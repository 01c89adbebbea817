"""Phantom echocardiograms from the apex: speckle in a sector, with the artefacts of ribs and lung."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.cardiac_ultrasound import TASK
from tasks.cardiac_ultrasound.structures import STRUCTURES
from tasks.phantoms.cardiac_ultrasound.heart import Anatomy, Heart, anatomy_of, heart_of
from tasks.phantoms.cardiac_ultrasound.scanner import attributes_of, mirrored, probe_of
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.probe import Probe, beam_places_mm, on_screen, pixel_places_mm
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.phantoms.ultrasound import envelope, framed, grey_of, scatterers, tgc_error
from tasks.task import PhantomHospital, Structure

_LOOKS = 1
_LOSS_DB_PER_CM_MHZ = 0.75


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
    x_mm, z_mm = beam_places_mm(probe)
    echo = _echo(anatomy_of(heart, systole, x_mm, z_mm), z_mm, window, rng)
    depth_mm = np.linspace(0, probe.depth_mm, probe.samples, dtype=np.float32)
    echo += tgc_error(depth_mm, rng)[:, None] + np.float32(rng.normal(0, 1.5))
    echo += _behind_ribs(rng, probe, window)[None, :]
    loss = np.float32(_LOSS_DB_PER_CM_MHZ * probe.frequency_mhz) * depth_mm / 10
    noise_db = np.asarray(-82 + loss, dtype=np.float32)
    magnitude = envelope(rng, scatterers(rng, echo.shape, _LOOKS), echo, probe.pulse_px, noise_db)
    grey = on_screen(probe, grey_of(magnitude, probe.gain, probe.gamma))
    across, deep, seen = pixel_places_mm(probe)
    there = anatomy_of(heart, systole, across, deep)
    outlined = np.stack([there.left_ventricle, there.myocardium, there.left_atrium]) > 0.5
    outlined[1] &= ~outlined[0]
    return grey, outlined & seen


def _echo(anatomy: Anatomy, z_mm: Field, window: float, rng: np.random.Generator) -> Field:
    """Echo in decibels, (samples, beams).

    Args:
        window: how well the ribs let sound through, 0 badly to 1 well.
    """
    shape = z_mm.shape
    fibres, coarse = smooth_noise(rng, shape, (3, 9)), smooth_noise(rng, shape, (16, 14))
    around = -26 + 3.5 * coarse + 2.0 * fibres - 0.05 * z_mm
    muscle = np.maximum(anatomy.myocardium, anatomy.right_wall)
    # Muscle along the beam fades; how much depends on the window.
    faded = (1 - anatomy.across_beam) * np.float32(9 - 5 * window)
    echo = around + muscle * (-15 + 2.5 * fibres + 2.5 * coarse - faded - around)
    blood = np.maximum(np.maximum(anatomy.left_ventricle, anatomy.left_atrium), anatomy.right)
    echo += blood * (-47 + 3.0 * coarse - echo)
    echo += anatomy.valves * (-7 + 2.0 * fibres - echo) * np.float32(0.9)
    echo += anatomy.pericardium * (-5 + 3.0 * coarse - faded - echo) * np.float32(0.8)
    # Near the probe its own ringing and what ribs throw back lie over everything, as a haze over the apex.
    haze = -14 - 0.50 * z_mm - 10 * window + 4.0 * smooth_noise(rng, shape, (20, 30))
    return np.asarray(10 * np.log10(10 ** (echo / 10) + 10 ** (haze / 10)), dtype=np.float32)


def _behind_ribs(rng: np.random.Generator, probe: Probe, window: float) -> Field:
    """What ribs and lung take from each beam, (beams,) in decibels: at the sides, and sometimes in between."""
    at = np.linspace(-0.5, 0.5, probe.beams, dtype=np.float32)
    loss = np.zeros(probe.beams, dtype=np.float32)
    for side in (-1, 1):
        edge = float(rng.uniform(0.30, 0.62)) + 0.06 * window
        loss -= np.float32(28) / (1 + np.exp(-(side * at - np.float32(edge)) / np.float32(0.03)))
    if rng.random() < 0.35:
        middle, wide = float(rng.uniform(-0.35, 0.35)), float(rng.uniform(0.02, 0.05))
        loss -= np.float32(rng.uniform(6, 18) * (1 - 0.5 * window)) * np.exp(-(((at - middle) / wide) ** 2))
    return np.asarray(loss, dtype=np.float32)
