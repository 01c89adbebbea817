"""The declared transform of breast ultrasound pictures."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.breast_ultrasound.example import read_example
from tasks.task import Picture


def _picture(rows: int, columns: int, seed: int = 0, **others: object) -> Picture:
    pixels = np.random.default_rng(seed).random((rows, columns), dtype=np.float32)
    return Picture(pixels, **others)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 300), columns=st.integers(1, 300), seed=st.integers(0, 9))
def test_any_size_gives_a_square_in_range(rows: int, columns: int, seed: int) -> None:
    example = read_example(_picture(rows, columns, seed))
    assert example.shape == (1, 128, 128)
    assert example.dtype == np.float32
    assert example.min() >= 0
    assert example.max() <= 1
    assert np.isfinite(example).all()


def test_it_is_deterministic_and_leaves_the_picture_alone() -> None:
    picture = _picture(200, 170)
    before = picture.pixels.copy()
    np.testing.assert_array_equal(read_example(picture), read_example(picture))
    np.testing.assert_array_equal(picture.pixels, before)


def test_a_square_of_the_right_size_passes_unchanged() -> None:
    picture = _picture(128, 128)
    np.testing.assert_allclose(read_example(picture)[0], picture.pixels, atol=1e-6)


def test_only_the_largest_region_is_seen() -> None:
    pixels = np.ones((200, 300), dtype=np.float32)
    pixels[20:120, 30:130] = 0.25
    example = read_example(Picture(pixels, regions=((0, 0, 40, 10), (30, 20, 130, 120))))
    np.testing.assert_allclose(example, 0.25, atol=1e-6)


def test_a_wide_image_is_padded_with_black_and_not_stretched() -> None:
    example = read_example(Picture(np.ones((50, 100), dtype=np.float32)))[0]
    assert (example[32:96] == 1).all()
    assert not example[:32].any()
    assert not example[96:].any()


def test_pixels_that_are_not_square_are_made_so() -> None:
    example = read_example(Picture(np.ones((50, 100), dtype=np.float32), spacing_mm=(0.2, 0.1)))[0]
    assert (example == 1).all()


def test_resizing_is_antialiased() -> None:
    checkerboard = (np.indices((512, 512)).sum(axis=0) % 2).astype(np.float32)
    np.testing.assert_allclose(read_example(Picture(checkerboard))[0, 2:-2, 2:-2], 0.5, atol=0.02)
