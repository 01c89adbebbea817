"""An example as a person sees it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.cohort.picture import plane_of, png


def _shown(example: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png(example))))


def test_a_picture_is_the_mean_of_its_channels() -> None:
    example = np.stack([np.full((4, 6), 0.2, np.float32), np.full((4, 6), 0.6, np.float32)])
    np.testing.assert_allclose(plane_of(example), 0.4, atol=1e-6)
    assert _shown(example).shape == (4, 6)
    assert set(_shown(example).ravel().tolist()) == {102}


@pytest.mark.parametrize(("channels", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3)])
def test_of_a_volume_the_middle_slice_of_every_channel_stands_in_rows(channels: int, rows: int, columns: int) -> None:
    example = np.zeros((channels, 7, 4, 6), np.float32)
    example[:, 3] = (np.arange(channels, dtype=np.float32) + 1)[:, None, None] / 10
    example[:, 3, 0, 0] = 1  # tells which way up
    example[:, [2, 4]] = 0.9
    shown = _shown(example)
    assert shown.shape == (4 * rows, 6 * columns)
    for place in range(rows * columns):
        down, across = divmod(place, columns)
        tile = shown[4 * down : 4 * down + 4, 6 * across : 6 * across + 6]
        if place < channels:
            assert tile[0, 0] == 255
            assert set(tile.ravel()[1:].tolist()) == {int(np.float32(place + 1) / np.float32(10) * 255)}
        else:
            assert not tile.any()
