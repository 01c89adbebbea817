"""The declared transform of chest X-rays."""

import numpy as np

from tasks.chest_xray.example import read_example
from tasks.task import Picture


def test_proportions_stay_and_the_range_of_the_maker_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.random((240, 160), dtype=np.float32)
    example = read_example(Picture(pixels, spacing_mm=(1.0, 1.0)))[0]
    assert not example[:, :21].any()
    assert not example[:, 107:].any()
    np.testing.assert_allclose(example, read_example(Picture(0.2 + 0.3 * pixels))[0], atol=1e-4)
    letter = pixels.copy()
    letter[5:14, 5:14] = 4.0  # a lead letter
    np.testing.assert_allclose(read_example(Picture(letter))[0][20:], example[20:], atol=0.01)
