"""Squares of pictures: nothing is stretched, nothing aliased, and only the image area is seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.imaging.frames import central_square, fitted_square, image_area, masks_from_square
from tasks.task import Picture


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 300), side=st.sampled_from([16, 28, 128]))
def test_any_size_gives_a_square_in_range(rows: int, columns: int, side: int) -> None:
    pixels = np.random.default_rng(rows).random((rows, columns), dtype=np.float32)
    before = pixels.copy()
    for square in (fitted_square(pixels, None, side), central_square(pixels, side)):
        assert (square.shape, square.dtype) == ((1, side, side), np.float32)
        assert np.all((square >= 0) & (square <= 1))
    np.testing.assert_array_equal(pixels, before)


def test_a_square_of_the_right_size_passes_unchanged() -> None:
    pixels = np.random.default_rng(0).random((128, 128), dtype=np.float32)
    np.testing.assert_allclose(fitted_square(pixels, None, 128)[0], pixels, atol=1e-6)
    np.testing.assert_allclose(central_square(pixels, 128)[0], pixels, atol=1e-6)


def test_only_the_largest_region_is_seen() -> None:
    pixels = np.ones((200, 300), dtype=np.float32)
    pixels[20:120, 30:130] = 0.25
    assert (image_area(Picture(pixels, regions=((0, 0, 40, 10), (30, 20, 130, 120)))) == 0.25).all()
    np.testing.assert_array_equal(image_area(Picture(pixels)), pixels)


def test_a_wide_image_is_padded_with_black_and_not_stretched() -> None:
    square = fitted_square(np.ones((50, 100), dtype=np.float32), None, 128)[0]
    assert (square[32:96] == 1).all()
    assert not square[:32].any()
    assert not square[96:].any()


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(20, 300), st.integers(20, 300)),
    inset=st.tuples(*[st.integers(0, 5)] * 4),
    spacing=st.none() | st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
)
def test_masks_of_a_square_return_to_the_image_area_and_nowhere_else(
    size: tuple[int, int], inset: tuple[int, int, int, int], spacing: tuple[float, float] | None
) -> None:
    left, top, right, bottom = inset[0], inset[1], size[1] - inset[2], size[0] - inset[3]
    picture = Picture(np.ones(size, np.float32), ((left, top, right, bottom),), spacing)
    everything = masks_from_square(picture, np.ones((2, 64, 64), np.bool_))
    expected = np.zeros((2, *size), np.bool_)
    expected[:, top:bottom, left:right] = True
    np.testing.assert_array_equal(everything, expected)
    assert not masks_from_square(picture, np.zeros((1, 64, 64), np.bool_)).any()


def test_pixels_that_are_not_square_are_made_so() -> None:
    assert (fitted_square(np.ones((50, 100), dtype=np.float32), (0.2, 0.1), 128) == 1).all()


def test_the_central_square_leaves_out_both_ends() -> None:
    pixels = np.zeros((10, 40), dtype=np.float32)
    pixels[:, 15:25] = 1
    np.testing.assert_allclose(central_square(pixels, 5), 1, atol=1e-6)


@pytest.mark.parametrize("resize", [lambda pixels: fitted_square(pixels, None, 128), lambda p: central_square(p, 128)])
def test_resizing_is_antialiased(resize: object) -> None:
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2).astype(np.float32)
    assert callable(resize)
    np.testing.assert_allclose(resize(checkerboard)[0, 2:-2, 2:-2], 0.5, atol=0.02)
