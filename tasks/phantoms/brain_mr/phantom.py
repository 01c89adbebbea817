"""Phantom brain MR: a head with a glioma, seen by up to four sequences in thick slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tasks.brain_mr import TASK
from tasks.brain_mr.structures import STRUCTURES
from tasks.phantoms.brain_mr.head import SHAPE, STEP_MM, head_of, regions, tumour_of
from tasks.phantoms.brain_mr.scanner import Protocol, acquired, attributes_of, scanner_of, shaded, signal
from tasks.phantoms.fields import Field
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.volume import Affine, averaged, outlines, slices
from tasks.task import PhantomHospital


def draw(folder: Path, hospital: PhantomHospital, seed: int) -> None:
    """Write a phantom hospital's brain MRs; ``tasks.phantoms.hospital.fill`` says where and how.

    Args:
        folder: becomes ``dicom/<PatientID>/<n>.dcm``, one file a slice of MR Image Storage (PS3.3 A.4), two to four
            series and one segmentation (A.51) of the contrast-enhanced one a patient, and ``labels.csv`` with a row an
            examination.
        hospital: patients and share of high-grade gliomas; ``gain`` is the receiver's. One examination a patient.
        seed: the same hospital and seed give the same bytes.

    Raises:
        OSError: the folder cannot be written or belongs to somebody else.
    """
    recipe = Recipe(TASK.name, 1, TASK.classes, _draw_patient, labelled="StudyInstanceUID")
    fill(folder, hospital, seed, recipe)


def _draw_patient(
    hospital: PhantomHospital, rng: np.random.Generator, positive: bool
) -> Iterator[Attributes | Dependent]:
    scanner = scanner_of(hospital)
    shares = head_of(rng, tumour_of(rng, positive))
    fine, sex = _placed(rng), "F" if rng.random() < 0.45 else "M"
    for series, protocol in enumerate(scanner.protocols, start=1):
        image = _cut(shaded(scanner, signal(scanner, protocol, shares), rng), protocol)
        stored = acquired(scanner, image, protocol.thick, rng)
        if rng.random() < scanner.missed.get(protocol.name, 0):
            continue  # drawn all the same: what is missed changes nothing else of the patient
        common, (affine, thickness_mm) = attributes_of(scanner, protocol, sex), _where(fine, protocol)
        for plane in slices(stored, affine, thickness_mm, series):
            yield common | plane
    first = scanner.protocols[0]
    masks = np.stack([_cut(region, first) >= np.float32(0.5) for region in regions(shares)])
    yield outlines(masks, STRUCTURES, 1)


def _placed(rng: np.random.Generator) -> Affine:
    """The fine grid in the patient: the head is never quite in the scanner's middle, and never quite straight."""
    turn = rng.normal(0, 0.05)
    affine = np.eye(4)
    affine[:3, 0] = np.array([0, -np.sin(turn), np.cos(turn)]) * STEP_MM[0]
    affine[:3, 1] = np.array([0, np.cos(turn), np.sin(turn)]) * STEP_MM[1]
    affine[:3, 2] = np.array([1, 0, 0]) * STEP_MM[2]
    affine[:3, 3] = rng.normal(0, 6, 3) - affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
    return affine


def _cut(fine: Field, protocol: Protocol) -> Field:
    """Slices of the fine grid; sagittal ones have their rows to the feet and their columns to the back."""
    if protocol.sagittal:
        return averaged(np.ascontiguousarray(fine[::-1].transpose(2, 0, 1)), protocol.planes, protocol.thick)
    return averaged(fine, protocol.planes, protocol.thick)


def _where(fine: Affine, protocol: Protocol) -> tuple[Affine, float]:
    """Where those slices lie, and how thick they are."""
    affine = fine.copy()
    if protocol.sagittal:
        affine[:3, 3] += fine[:3, 0] * (SHAPE[0] - 1)
        affine[:3, :3] = np.stack([fine[:3, 2], -fine[:3, 0], fine[:3, 1]], axis=1)
    thickness_mm = float(np.linalg.norm(affine[:3, 0])) * protocol.thick
    affine[:3, 3] += affine[:3, 0] * (protocol.thick - 1) / 2
    affine[:3, 0] *= protocol.planes
    return affine, thickness_mm
