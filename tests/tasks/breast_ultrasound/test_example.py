"""The declared transform of breast ultrasound pictures: the image area in its proportions."""

from dataclasses import replace

import numpy as np
import pytest

from tasks.breast_ultrasound.example import read_example, read_masks
from tasks.task import Picture


def test_taller_than_wide_stays_so_and_marks_outside_the_region_are_not_seen() -> None:
    pixels = np.ones((200, 300), dtype=np.float32)
    pixels[20:120, 30:80] = 0.25
    example = read_example(Picture(pixels, regions=((30, 20, 80, 120),)))[0]
    np.testing.assert_allclose(example[:, 32:96], 0.25, atol=1e-6)
    assert not example[:, :32].any()
    assert not example[:, 96:].any()


def test_the_outline_lies_on_the_lesion_of_the_example() -> None:
    pixels, mask = np.full((200, 300), 0.5, dtype=np.float32), np.zeros((1, 200, 300), dtype=np.bool_)
    rows, columns = np.indices(pixels.shape)
    mask[0] = (rows - 70) ** 2 / 20**2 + (columns - 150) ** 2 / 45**2 < 1
    pixels[mask[0]] = 0.1
    picture = Picture(pixels, regions=((30, 20, 250, 190),), spacing_mm=(0.2, 0.1), masks=mask)
    outline, example = read_masks(picture), read_example(picture)
    assert (outline.shape, outline.dtype) == ((1, *example.shape[1:]), np.bool_)
    dark = (example[0] < 0.3) & (example[0] > 0.05)
    both, either = (outline[0] & dark).sum(), (outline[0] | dark).sum()
    assert both / either > 0.95
    empty = replace(picture, masks=np.zeros_like(mask))
    assert not read_masks(empty).any()
    with pytest.raises(ValueError, match="nobody has outlined"):
        read_masks(replace(picture, masks=None))
