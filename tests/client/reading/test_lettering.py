"""Lines of text at the edges of a frame are found, speckle and anatomy are not taken for them."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from client.reading.lettering import glyphs
from tests.client.dicom_files import ROBUSTNESS, needs_robustness_set

NAME = "DOE^JANE 1970-01-01"


def _written(size: int, ground: float, ink: float, at: tuple[int, int], text: str = NAME) -> NDArray[np.float32]:
    image = Image.new("L", (800, 600), int(ground * 255))
    ImageDraw.Draw(image).text(at, text, fill=int(ink * 255), font=ImageFont.load_default(size))
    return np.asarray(image, np.float32) / 255


def _speckle(seed: int, blur: tuple[float, float]) -> NDArray[np.float32]:
    draw = np.random.default_rng(seed)
    real, imaginary = (gaussian_filter(draw.normal(size=(600, 800)), blur) for _ in range(2))
    values = np.hypot(real, imaginary)
    return np.asarray(values / values.max(), np.float32)


@pytest.mark.parametrize("size", [8, 12, 16, 24, 40])
@pytest.mark.parametrize(("ground", "ink"), [(0.0, 1.0), (0.4, 1.0), (1.0, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize("at", [(20, 10), (300, 540)])
def test_text_of_any_size_and_shade_is_found(size: int, ground: float, ink: float, at: tuple[int, int]) -> None:
    assert glyphs(_written(size, ground, ink, at)) >= 8


def test_text_beside_an_image_is_found_and_a_letter_alone_is_not() -> None:
    shown = 0.5 * _speckle(0, (1.5, 3))
    shown[:60] = 0
    assert glyphs(np.maximum(shown, _written(16, 0.0, 1.0, (20, 10)))) >= 8
    assert glyphs(_written(40, 0.0, 1.0, (20, 10), "L")) < 6


@pytest.mark.parametrize("blur", [(0.5, 0.5), (1, 1), (1.5, 3), (2, 2), (5, 5)])
def test_speckle_is_no_text(blur: tuple[float, float]) -> None:
    assert max(glyphs(_speckle(seed, blur)) for seed in range(4)) < 6


def test_flat_images_have_none() -> None:
    assert glyphs(np.zeros((100, 100), np.float32)) == 0
    assert glyphs(np.full((30, 20), 0.5, np.float32)) == 0


def test_a_frame_takes_no_longer_than_its_decoding() -> None:
    frame = _speckle(0, (1.5, 3))
    glyphs(frame)
    start = time.process_time()
    glyphs(frame)
    assert time.process_time() - start < 1.0


@needs_robustness_set
def test_real_scanners_texts_are_found() -> None:
    """Frames of pydicom's test files on which one reads a line of text."""
    from client.reading.dicom import read_frame

    names = ("pydicom__examples_jpeg2k.dcm", "pydicomdata__OBXXXX1A.dcm", "pydicomdata__US1_UNCI.dcm")
    for name in names:
        assert glyphs(read_frame(ROBUSTNESS / "files" / name).pixels) >= 8
