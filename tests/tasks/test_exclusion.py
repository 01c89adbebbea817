"""Structures that exclude each other: what is marked of them, and what cannot be."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tasks import task as tasks
from tasks.exclusion import contradicted, first_of_each, marked, shares

GROUP = ((0, 2),)
"""Of three structures the first and the last exclude each other."""


def _logits(*images: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(images)[:, :, None]


def test_of_structures_that_exclude_each_other_the_most_probable_is_marked_and_others_as_ever() -> None:
    logits = _logits((1.0, 2.0, 3.0), (3.0, -1.0, 1.0), (-1.0, 0.5, -2.0), (2.0, 0.1, 2.0))
    told = marked(logits, GROUP)[:, :, 0].tolist()
    assert told == [[False, True, True], [True, False, False], [False, True, False], [True, True, False]]
    assert marked(logits, ()).equal(logits > 0), "without a group nothing is different"


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_no_number_marks_nothing_and_takes_nothing_from_others(odd: float) -> None:
    told = marked(_logits((odd, odd, 1.0), (1.0, 1.0, odd)), GROUP)[:, :, 0]
    high = odd == math.inf
    assert told.tolist() == [[high, high, not high], [not high, True, high]]


def test_never_two_of_a_group_at_one_place() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randint(-2, 3, (50, 4, 6, 5), generator=draw).float()  # many are equal
    found = marked(logits, ((0, 1), (2, 3))).numpy()
    assert found.any()
    assert all(contradicted(image, ((0, 1), (2, 3))) == 0 for image in found)
    most = logits[:, :2].argmax(dim=1)
    agree = found[:, :2].any(axis=1) == (logits[:, :2] > 0).any(dim=1).numpy()
    assert agree.all(), "something is marked wherever something is more probable than the background"
    chosen = np.where(found[:, 0], 0, np.where(found[:, 1], 1, most))
    assert np.take_along_axis(logits[:, :2].numpy(), chosen[:, None], 1).max() == 2


def test_halves_of_a_pixel_are_shared_and_whole_ones_are_not() -> None:
    masks = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]])
    assert shares(masks, (0, 2)).tolist() == [[[0.5, 1.0, 0.0], [0.5, 0.0, 0.0]]]
    apart = first_of_each(masks[0].numpy().astype(bool), GROUP)
    assert apart.tolist() == [[True, True, False], [False, True, True], [False, False, False]]
    assert contradicted(masks[0].numpy().astype(bool), GROUP) == 1
    assert contradicted(apart, GROUP) == 0


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ((("left_atrium",),), "a group needs two structures or more"),
        ((("left_atrium", "aorta"),), "aorta is no structure"),
        ((("left_atrium", "myocardium"), ("left_atrium", "left_ventricle")), "one group, once"),
        ((("left_atrium", "left_atrium"),), "one group, once"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups: tuple[tuple[str, ...], ...], problem: str) -> None:
    heart = tasks.get("left_heart")
    assert heart.form.exclusive == ((0, 1, 2),)
    with pytest.raises(ValueError, match=problem):
        replace(heart, exclusive=groups)
