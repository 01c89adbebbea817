"""Random transforms of pictures: masks go with the image, chances come from the generator alone."""

from __future__ import annotations

import pytest
import torch

from tasks.imaging.augmentation import of_pictures


def _square() -> tuple[torch.Tensor, torch.Tensor]:
    example, masks = torch.zeros(1, 64, 64), torch.zeros(2, 64, 64, dtype=torch.bool)
    example[0, 8:30, 12:28] = 0.8
    masks[0, 8:30, 12:28] = True
    return example, masks


def test_masks_move_with_the_image() -> None:
    example, masks = _square()
    augment = of_pictures(mirrored=True)
    sides = set()
    for seed in range(12):
        image, outlines = augment(example, masks, torch.Generator().manual_seed(seed))
        assert (image.shape, image.dtype, outlines.shape, outlines.dtype) == (
            example.shape,
            torch.float32,
            masks.shape,
            torch.bool,
        )
        assert type(image) is torch.Tensor
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        bright = image[0] > 0.4
        both = (bright & outlines[0]).sum() / (bright | outlines[0]).sum()
        assert both > 0.9, seed
        assert not outlines[1].any()
        sides.add(bool(outlines[0, :, :32].sum() > outlines[0, :, 32:].sum()))
    assert sides == {True, False}
    kept, _ = _square()
    assert torch.equal(example, kept), "what is cached is not changed"


def test_left_and_right_stay_where_they_mean_something() -> None:
    example, masks = _square()
    augment = of_pictures(mirrored=False)
    for seed in range(12):
        _, outlines = augment(example, masks, torch.Generator().manual_seed(seed))
        assert outlines[0, :, :32].sum() > outlines[0, :, 32:].sum()


@pytest.mark.parametrize("structures", [0, 2])
def test_the_same_generator_draws_the_same(structures: int) -> None:
    example, masks = _square()
    augment = of_pictures(mirrored=True)
    one, two, other = (
        augment(example, masks[:structures], torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
