"""A hospital's patients scored: findings, Dice and distances, against MONAI and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from torch import Tensor, nn

from client.cohort.dataset import UNKNOWN, Cohort
from client.training.scoring import hausdorff, score_outlines, score_patients, scores_of, tell_patients
from tasks.answers import Binary
from tasks.input_spec import InputSpec

FORM = InputSpec((1, 16, 16), (Binary(),) * 2, structures=1)


class Copies(nn.Module):
    """Says of an image what stands in it: two findings in its first two pixels; outlines what is above zero."""

    def forward(self, inputs: Tensor) -> Tensor:
        pixels = inputs.flatten(1)
        return torch.cat([pixels[:, :2], pixels], dim=1)


def square(top: int, left: int, size: int) -> Tensor:
    image = torch.full((16, 16), -1.0)
    image[top : top + size, left : left + size] = 1.0
    return image


def cohort(images: list[Tensor], masks: list[Tensor | None], rows: list[list[int]]) -> Cohort:
    known = [torch.full((16, 16), UNKNOWN, dtype=torch.uint8) if m is None else (m > 0).to(torch.uint8) for m in masks]
    targets = torch.zeros(len(images), 2)
    by_patient = [torch.tensor(of) for of in rows]
    return Cohort(torch.stack(images)[:, None], targets, by_patient, (), torch.stack(known)[:, None])


def test_findings_are_means_over_a_patients_images() -> None:
    images = [torch.full((16, 16), value) for value in (0.0, 2.0, -1.0)]
    patients = cohort(images, [None] * 3, [[0, 1], [2]])
    told = scores_of(patients, tell_patients(Copies(), patients))
    expected = [(0.5 + 1 / (1 + math.exp(-2))) / 2, 1 / (1 + math.exp(1))]
    assert told.shape == (2, 2)
    np.testing.assert_allclose(told, [expected, expected], rtol=1e-6)
    np.testing.assert_allclose(score_patients(Copies(), cohort(images, [None] * 3, [[0, 1], [2]])), expected, rtol=1e-6)


def test_dice_agrees_with_monai_and_is_a_mean_over_images() -> None:
    pairs = [(square(2, 2, 6), square(3, 2, 6)), (square(5, 5, 4), square(5, 5, 4)), (square(1, 1, 3), square(9, 9, 3))]
    marked, truth = ([pair[side] for pair in pairs] for side in (0, 1))
    metric = DiceMetric(reduction="none")
    expected = metric(*(torch.stack(m)[:, None] > 0 for m in (marked, truth))).flatten()
    (told,) = score_outlines(Copies(), cohort(marked, list(truth), [[0, 1], [2]]), FORM)
    np.testing.assert_allclose(told.dice, [float(expected[:2].mean()), float(expected[2])], atol=1e-6)
    assert np.isnan(told.wrongly).all()


def test_a_patient_without_the_structure_is_judged_by_what_is_marked_in_vain() -> None:
    nothing = torch.full((16, 16), -1.0)
    images = [nothing, square(0, 0, 8), square(2, 2, 4), nothing]
    masks = [nothing, nothing, None, square(2, 2, 4)]
    (told,) = score_outlines(Copies(), cohort(images, masks, [[0, 1], [2], [3]]), FORM)
    np.testing.assert_array_equal(told.wrongly, [0.125, math.nan, math.nan])
    np.testing.assert_array_equal(told.dice, [math.nan, math.nan, 0.0])
    np.testing.assert_array_equal(told.distance, [math.nan, math.nan, 1.0])


def test_of_a_patient_with_the_structure_on_some_images_those_count() -> None:
    images, masks = [square(2, 2, 4), square(9, 9, 2)], [square(2, 2, 4), torch.full((16, 16), -1.0)]
    (told,) = score_outlines(Copies(), cohort(images, masks, [[0, 1]]), FORM)
    assert told.dice.tolist() == [1.0]
    assert np.isnan(told.wrongly).all()


@pytest.mark.parametrize("axes", [2, 3])
def test_the_distance_is_a_shift_as_a_fraction_of_the_diagonal(axes: int) -> None:
    mask = np.zeros((20,) * axes, bool)
    mask[(slice(5, 12),) * axes] = True
    assert hausdorff(mask, mask) == 0
    moved = np.roll(mask, 3, axis=0)
    assert hausdorff(mask, moved) == hausdorff(moved, mask) == pytest.approx(3 / math.sqrt(axes * 400), rel=1e-6)
    assert hausdorff(mask, np.zeros_like(mask)) == hausdorff(np.zeros_like(mask), mask) == 1


def test_a_few_stray_pixels_do_not_decide_the_distance() -> None:
    mask = np.zeros((64, 64), bool)
    mask[10:40, 10:40] = True
    stray = mask.copy()
    stray[63, 63] = True
    assert hausdorff(stray, mask) < 0.02


def test_a_network_that_does_not_outline_is_told_apart() -> None:
    plain = Cohort(torch.zeros(1, 1, 16, 16), torch.zeros(1, 2), [torch.tensor([0])])
    with pytest.raises(ValueError, match="does not outline"):
        score_outlines(Copies(), plain, FORM)


class Twice(nn.Module):
    """Outlines two structures alike, the second one less surely."""

    def forward(self, inputs: Tensor) -> Tensor:
        pixels = inputs.flatten(1)
        return torch.cat([pixels[:, :1], pixels, pixels / 2], dim=1)


def test_a_place_that_a_more_probable_structure_has_taken_is_not_marked_for_one_that_it_excludes() -> None:
    truth = square(2, 2, 4)
    patients = cohort([truth], [truth], [[0]])
    assert patients.masks is not None
    patients = replace(patients, masks=patients.masks.expand(-1, 2, -1, -1))
    free, bound = (
        score_outlines(Twice(), patients, InputSpec((1, 16, 16), structures=2, exclusive=groups))
        for groups in ((), ((0, 1),))
    )
    assert [float(one.dice[0]) for one in free] == [1.0, 1.0]
    assert [float(one.dice[0]) for one in bound] == [1.0, 0.0]
