"""An example as a person sees it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.cohort.picture import COLOURS, plane_of, png


def _shown(example: NDArray[np.float32], marked: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png(example, marked))))


def _is(shown: NDArray[np.uint8], colour: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (shown == tuple(bytes.fromhex(COLOURS[colour][1:]))).all(axis=-1)
    return found


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


def test_outlines_run_along_the_inner_edge_of_what_is_marked_each_in_its_colour() -> None:
    marked = np.zeros((2, 64, 48), np.bool_)
    marked[0, 10:20, 5:15] = True
    marked[1, 40:, 30:40] = True  # up to the border of the picture
    shown = _shown(np.full((1, 64, 48), 0.5, np.float32), marked)
    assert shown.shape == (192, 144, 3)
    for structure, (rows, columns) in enumerate([((30, 60), (15, 45)), ((120, 192), (90, 120))]):
        expected = np.zeros((192, 144), np.bool_)
        expected[slice(*rows), slice(*columns)] = True
        expected[rows[0] + 1 : rows[1] - 1, columns[0] + 1 : columns[1] - 1] = False
        np.testing.assert_array_equal(_is(shown, structure), expected)
    grey = ~_is(shown, 0) & ~_is(shown, 1)
    assert set(shown[grey].ravel().tolist()) == {127}


def test_nothing_marked_is_the_picture_itself_and_a_large_one_keeps_its_size() -> None:
    example = np.random.default_rng(0).random((1, 200, 210), np.float32)
    shown = _shown(example, np.zeros((1, 200, 210), np.bool_))
    np.testing.assert_array_equal(shown, np.stack([_shown(example)] * 3, axis=-1))


def test_of_a_volume_that_slice_is_shown_of_which_most_is_marked_on_every_channel() -> None:
    example = np.zeros((3, 7, 48, 48), np.float32)
    example[:, 5] = 0.5
    marked = np.zeros((2, 7, 48, 48), np.bool_)
    marked[0, 5, 10:20, 10:20] = True
    marked[1, 2, 10:12, 10:12] = True
    shown = _shown(example, marked)
    assert shown.shape == (192, 192, 3), "2 x 2 tiles, enlarged twice"
    assert not _is(shown, 1).any()
    tiles = [_is(shown, 0)[96 * down : 96 * down + 96, 96 * across : 96 * across + 96].sum() for down, across in
             ((0, 0), (0, 1), (1, 0), (1, 1))]  # fmt: skip
    edge = 4 * 20 - 4
    assert tiles == [edge, edge, edge, 0]
