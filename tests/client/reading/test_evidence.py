"""What pixels tell: JPEG is found whatever the header says, and nothing is found where nothing was."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from client.reading.evidence import examine
from tasks.phantoms.fields import smooth_noise

Picture = NDArray[np.float32]


def _texture(seed: int, rows: int = 320, columns: int = 400) -> Picture:
    """Smooth shapes and fine grain, on whole 8-bit levels."""
    rng = np.random.default_rng(seed)
    shapes = smooth_noise(rng, (rows, columns), (24, 24)) + 0.3 * smooth_noise(rng, (rows, columns), (2, 3))
    grey = np.clip(128 + 40 * shapes + rng.normal(0, 3, (rows, columns)), 0, 255)
    return (grey.round() / 255).astype(np.float32)


def _through_jpeg(pixels: Picture, quality: int) -> Picture:
    stream = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("quality", [30, 50, 75, 85, 90])
def test_jpeg_leaves_a_trace(quality: int) -> None:
    for seed in range(3):
        found = examine(_through_jpeg(_texture(seed), quality), 8).jpeg
        assert found is not None
        assert found > 0.25


def test_pixels_that_never_were_jpeg_have_none() -> None:
    for seed in range(8):
        found = examine(_texture(seed), 8).jpeg
        assert found is not None
        assert found < 0.1


def test_an_8_bit_jpeg_in_a_deeper_container_is_found_and_has_few_levels() -> None:
    found = examine(_through_jpeg(_texture(1), 80), 12)
    assert found.jpeg is not None
    assert found.jpeg > 0.25
    assert found.levels <= 256


def test_a_flat_or_small_image_cannot_tell() -> None:
    assert examine(np.zeros((400, 400), np.float32), 8).jpeg is None
    assert examine(_texture(0, 32, 32), 8).jpeg is None
    assert examine(np.zeros((3, 5), np.float32), 8) == examine(np.zeros((3, 5), np.float32), None)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_levels_are_counted_over_the_stored_range(bits: int) -> None:
    stored = np.arange(0, 2**bits, max(1, 2**bits // 1000)).astype(np.float32)
    pixels = np.tile(stored / np.float32(2**bits - 1), (3, 1))
    assert examine(pixels, bits).levels == len(stored)
