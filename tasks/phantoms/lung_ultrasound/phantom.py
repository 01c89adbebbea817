"""Phantom lung ultrasound: chest wall, ribs, pleural line and what lies behind it, as stills and clips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.lung_ultrasound import TASK
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.hospital import Described, Recipe, fill, random_numbers
from tasks.phantoms.lung_ultrasound.lung import FINDINGS, ScanPlane, echo_of, lung_of, view_of
from tasks.phantoms.lung_ultrasound.probe import attributes_of, probe_of
from tasks.phantoms.probe import Probe, on_screen
from tasks.phantoms.ultrasound import envelope, framed, grey_of, scatterers, tgc_error
from tasks.task import PhantomHospital

_CLIPS = 0.5  # the share of files that are clips
_FRAMES = (3, 6)
_FRAME_MS = 250.0  # a clip of phantoms shows one breath in a few frames, where a real one has a hundred
_BREATH_MS = 1500.0
_UNREAD = 0.15  # the share of files of which nobody has noted findings
_NOTED = 0.7  # the chance that a hospital notes one of the rarer findings
_LOOKS = 2
_LOSS_DB_PER_CM_MHZ = 0.8


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's lung ultrasound; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm`` of Ultrasound Image Storage (PS3.3 A.6) or Ultrasound Multi-frame
            Image Storage (A.7), and ``labels.csv``, in which some secondary findings are not known.
        hospital: patients, share of pneumonias and the look of the scanner; below 6 MHz the probe is convex, else
            linear. ``images_per_patient`` counts files.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    fill(
        folder,
        hospital,
        seed,
        Recipe(TASK.name, 2, TASK.classes, _draw_patient, secondary=FINDINGS),
    )


def _draw_patient(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
    probe, noted = probe_of(hospital), _noted(hospital)
    lung = lung_of(rng, positive)
    person = {"PatientSex": "F" if rng.random() < 0.5 else "M", "PatientAge": f"{int(rng.integers(20, 90)):03d}Y"}
    wall_mm = float(np.clip(np.exp(rng.normal(2.95, 0.25)), 11, 0.4 * probe.depth_mm))
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        side = "R" if rng.random() < 0.5 else "L"
        frames = int(rng.integers(_FRAMES[0], _FRAMES[1] + 1)) if rng.random() < _CLIPS else 1
        text = f"{probe.frequency_mhz:.0f} MHZ {side} LUNG"
        view = view_of(lung, rng, probe.width_at(wall_mm))
        clip = [
            framed(image, probe.frame, probe.region, probe.size_mm[0], text)
            for image in _clip(probe, view, wall_mm, frames, rng)
        ]
        read = rng.random() >= _UNREAD
        findings = tuple(value if read and note else None for value, note in zip(view.findings(), noted, strict=True))
        yield Described(person | attributes_of(probe, np.stack(clip), side, _FRAME_MS), findings)


def _noted(hospital: PhantomHospital) -> list[bool]:
    """Which findings this hospital's readers note at all; the first two everywhere."""
    rng = random_numbers("noted", hospital.name)
    return [number < 2 or bool(rng.random() < _NOTED) for number in range(len(FINDINGS))]


def _clip(
    probe: Probe, view: ScanPlane, wall_mm: float, frames: int, rng: np.random.Generator
) -> Iterator[NDArray[np.uint8]]:
    """One place of the chest over a breath: the lung slides along the chest wall, which stands still."""
    shape = (probe.samples, probe.beams)
    z_mm = np.linspace(0, probe.depth_mm, probe.samples, dtype=np.float32)
    width_mm = probe.width_at(wall_mm)
    x_mm = np.linspace(-0.5, 0.5, probe.beams, dtype=np.float32) * np.float32(width_mm)
    wall, pleura_mm, ribs = _chest_wall(rng, z_mm, x_mm, wall_mm, shape)
    gain_db = tgc_error(z_mm, rng)[:, None] + np.float32(rng.normal(0, 2))
    noise_db = np.asarray(-68 + np.float32(_LOSS_DB_PER_CM_MHZ * probe.frequency_mhz) * z_mm / 10, dtype=np.float32)
    waves, phase, place = scatterers(rng, shape, _LOOKS), rng.uniform(0, 2 * np.pi), int(rng.integers(2**32))
    for number in range(frames):
        moved = view.sliding_mm * np.sin(phase + 2 * np.pi * number * _FRAME_MS / _BREATH_MS)
        there = np.random.default_rng(place)  # the same place in every frame
        uneven = smooth_noise(there, (1, 4 * probe.beams), (1, 3))[0]
        shift = round(moved / width_mm * probe.beams)
        line_mm = pleura_mm + np.float32(view.roughness_mm) * np.roll(uneven, shift)[: probe.beams]
        below = z_mm[:, None] - line_mm
        lung_echo = echo_of(
            view, there, x_mm=x_mm - np.float32(moved), below_mm=below, pleura_mm=pleura_mm, line_mm=line_mm
        )
        line = np.exp(-((below / np.float32(0.9 + 0.3 * view.roughness_mm)) ** 2))
        echo = np.where(below < 0, wall, lung_echo) + line * (-7 - np.where(below < 0, wall, lung_echo))
        slid = np.where(below < 0, waves, np.roll(waves, shift, axis=3))
        magnitude = envelope(rng, slid, _behind_ribs(echo, ribs, z_mm) + gain_db, probe.pulse_px, noise_db)
        yield on_screen(probe, grey_of(magnitude, probe.gain, probe.gamma))


def _chest_wall(
    rng: np.random.Generator, z_mm: Field, x_mm: Field, wall_mm: float, shape: tuple[int, int]
) -> tuple[Field, Field, tuple[Field, Field]]:
    """Skin, fat and muscle.

    Returns:
        Echo in decibels (samples, beams); depth of the pleural line (beams,); and of the ribs how much of each beam
        they cover (beams,) and how deep they lie (beams,).
    """
    slope, bow = rng.normal(0, 0.03), rng.uniform(0, 0.0012)
    pleura = np.asarray(wall_mm + slope * x_mm + bow * x_mm**2, dtype=np.float32)
    streaks = smooth_noise(rng, shape, (3, 14))
    fascia = rng.uniform(0.3, 0.55) * pleura
    wall = -24 + 4 * streaks + 6 * np.exp(-(((z_mm[:, None] - fascia) / np.float32(0.7)) ** 2))
    wall += 14 * np.exp(-((z_mm / np.float32(1.2)) ** 2))[:, None]
    cover = np.zeros_like(x_mm)
    gap, first = float(rng.uniform(24, 34)), float(rng.uniform(-0.5, 0.5))
    for number in range(-3, 4):
        away = (x_mm - np.float32((number + first) * gap)) / np.float32(5.0)
        cover = np.maximum(cover, (away**2 < 1) * np.sqrt((1 - away**2).clip(0, 1)))
    if rng.random() < 0.35:
        cover = np.zeros_like(cover)  # the probe lies along the space between two ribs
    rib = pleura - 4 - np.float32(3) * cover
    return wall.astype(np.float32), pleura, (cover.astype(np.float32), rib.astype(np.float32))


def _behind_ribs(echo: Field, ribs: tuple[Field, Field], z_mm: Field) -> Field:
    """A bright line on each rib and darkness behind it."""
    cover, depth = ribs
    behind = z_mm[:, None] - depth
    edge = (cover * 4).clip(0, 1)
    shadow = edge * (1 / (1 + np.exp((-behind / np.float32(0.6)).clip(-30, 30))))
    surface = edge * np.exp(-((behind / np.float32(0.9)) ** 2))
    dark = echo + shadow * (-62 - echo)
    return np.asarray(dark + surface * (-8 - dark), dtype=np.float32)
