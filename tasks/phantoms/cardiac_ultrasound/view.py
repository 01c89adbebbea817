"""How an echocardiograph shows a phantom heart: speckle in a sector, with the artefacts of ribs and lung.

Tested in ``tests/tasks/phantoms/heart_views/test_phantom.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.phantoms.cardiac_ultrasound.heart import Anatomy
from tasks.phantoms.fields import Field, smooth_noise
from tasks.phantoms.probe import Probe, beam_places_mm, on_screen
from tasks.phantoms.ultrasound import envelope, grey_of, scatterers, tgc_error

_LOOKS = 1
_LOSS_DB_PER_CM_MHZ = 0.75


def image_of(
    probe: Probe,
    anatomy_at: Callable[[NDArray[Any], NDArray[Any]], Anatomy],
    window: float,
    rng: np.random.Generator,
    speckle: np.random.Generator | None = None,
) -> NDArray[np.uint8]:
    """An image, (rows, columns) of the probe's region.

    Args:
        anatomy_at: what lies at places across and below the probe's middle, in millimetres.
        window: how well the ribs let sound through, 0 badly to 1 well.
        rng: for ribs, haze and the operator's sliders, and for speckle and noise as well where ``speckle`` is not
            given: frames of one clip have the former in common and the latter each of its own.
    """
    speckle = speckle or rng
    x_mm, z_mm = beam_places_mm(probe)
    echo = _echo(anatomy_at(x_mm, z_mm), z_mm, window, rng)
    depth_mm = np.linspace(0, probe.depth_mm, probe.samples, dtype=np.float32)
    echo += tgc_error(depth_mm, rng)[:, None] + np.float32(rng.normal(0, 1.5))
    echo += _behind_ribs(rng, probe, window)[None, :]
    loss = np.float32(_LOSS_DB_PER_CM_MHZ * probe.frequency_mhz) * depth_mm / 10
    noise_db = np.asarray(-82 + loss, dtype=np.float32)
    magnitude = envelope(speckle, scatterers(speckle, echo.shape, _LOOKS), echo, probe.pulse_px, noise_db)
    return on_screen(probe, grey_of(magnitude, probe.gain, probe.gamma))


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
