"""A model on one hospital's patients: what it tells of each question, and agreement of its outlines with the readers'.

What is told is always a number: if an output is not finite, because an order's weights overflow on an image or the
model has diverged, it is a probability of 0.5, equal ones, or the middle of a range. An error would reveal that there
is a patient on whom it happens.

What is told of a patient, a probability, one of each class or grade, or a value, is the mean over its images. Dice and
distance of a patient are means over those images on which a reader has outlined the structure; on the others, what
counts is how much the model marks where nothing is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort.alone import outputs_of
from client.cohort.dataset import UNKNOWN, Cohort
from tasks.input_spec import InputSpec, told_of
from tasks.machine.device import PROCESSOR, Placement

_LOG = logging.getLogger(__name__)
_PERCENTILE = 95


@torch.no_grad()
def tell_patients(module: nn.Module, cohort: Cohort, on: Placement = PROCESSOR) -> list[NDArray[np.float64]]:
    """What the model tells of each question for each patient; float64 of shape (patients, ``Answer.told_numbers``)."""
    module.eval()
    images = told_of(cohort.kinds, outputs_of(module, cohort.inputs, cohort.rows, on))
    return [np.stack([told[rows].double().mean(dim=0).numpy() for rows in cohort.rows]) for told in images]


def scores_of(cohort: Cohort, told: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The score of each question's event for each patient; shape (questions, patients)."""
    return np.stack([answer.event_score(each) for answer, each in zip(cohort.kinds, told, strict=True)])


def score_patients(module: nn.Module, cohort: Cohort, on: Placement = PROCESSOR) -> NDArray[np.float64]:
    """The score of the event of the task's own question for each patient; shape (patients,)."""
    return cohort.kinds[0].event_score(tell_patients(module, cohort, on)[0])


@dataclass(frozen=True)
class OutlineScores:
    """How a model outlines one structure; all of shape (patients,).

    Attributes:
        dice: mean Dice coefficient over the patient's images on which a reader outlined the structure; NaN where there
            is none.
        distance: likewise the mean of the 95 % Hausdorff distance between the two outlines, as a fraction of the
            image's diagonal; 1 where the model marks nothing.
        wrongly: for a patient with outlines read, none of which has the structure: mean fraction of the image that is
            marked; NaN for others.
    """

    dice: NDArray[np.float64]
    distance: NDArray[np.float64]
    wrongly: NDArray[np.float64]


@torch.no_grad()
def score_outlines(
    module: nn.Module, cohort: Cohort, form: InputSpec, on: Placement = PROCESSOR
) -> list[OutlineScores]:
    """How the model outlines each structure of the task.

    Raises:
        ValueError: the network does not outline.
    """
    if cohort.masks is None:
        raise ValueError("this network does not outline, so nothing can be compared with the readers' outlines")
    module.eval()
    marked = form.marked(outputs_of(module, cohort.inputs, cohort.rows, on))
    return [_outlined(marked[:, s], cohort.masks[:, s], cohort.rows) for s in range(form.structures)]


def _outlined(marked: Tensor, masks: Tensor, rows: list[Tensor]) -> OutlineScores:
    images = [_image_or_nothing(m.numpy(), truth.numpy()) for m, truth in zip(marked, masks, strict=True)]
    dice, distance, wrongly = (np.array(values) for values in zip(*images, strict=True))
    found = OutlineScores(
        *(np.array([_mean(values[of.numpy()]) for of in rows]) for values in (dice, distance, wrongly))
    )
    return OutlineScores(found.dice, found.distance, np.where(np.isnan(found.dice), found.wrongly, math.nan))


def _image_or_nothing(marked: NDArray[np.bool_], truth: NDArray[np.uint8]) -> tuple[float, float, float]:
    """An image whose outlines cannot be compared counts as not outlined, and does not affect others."""
    try:
        return _image(marked, truth)
    except Exception:
        _LOG.exception("outlines of an image cannot be compared")
        return math.nan, math.nan, math.nan


def _image(marked: NDArray[np.bool_], truth: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Dice, distance, fraction wrongly marked; NaN where undefined."""
    if truth.flat[0] == UNKNOWN:
        return math.nan, math.nan, math.nan
    real = truth.astype(np.bool_)
    if not real.any():
        return math.nan, math.nan, float(marked.mean())
    dice = 2 * float((marked & real).sum()) / float(marked.sum() + real.sum())
    return dice, hausdorff(marked, real), math.nan


def hausdorff(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """The larger of the two 95th percentiles of the distances from one outline to the other (as in BraTS, Menze et al.,
    IEEE TMI 34:1993, 2015), as a fraction of the image's diagonal; 1 where either marks nothing."""
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance  # slow to import; few studies outline

    if not one.any() or not other.any():
        return 1.0
    marked, truth = (torch.from_numpy(mask)[None, None] for mask in (one, other))
    distance = float(compute_hausdorff_distance(marked, truth, include_background=True, percentile=_PERCENTILE))
    return min(distance / math.hypot(*one.shape), 1.0)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan
