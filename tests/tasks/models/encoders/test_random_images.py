"""Images of nothing: the same for everybody, in range, with edges and with textures."""

from __future__ import annotations

import pytest
import torch

from tasks.models.encoders.random_images import drawn


@pytest.mark.parametrize("size", [(24, 24), (10, 12, 14)])
def test_they_are_grey_values_and_repeat(size: tuple[int, ...]) -> None:
    images = drawn(6, size)
    assert images.shape == (6, 1, *size)
    assert images.dtype == torch.float32
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert torch.equal(images, drawn(6, size))
    assert not torch.equal(images, drawn(6, size, seed=1))


def test_every_other_one_has_areas_of_one_grey() -> None:
    noise, leaves = drawn(2, (64, 64))
    assert len(leaves.unique()) < 400 < len(noise.unique())
