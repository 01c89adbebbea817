"""The declared transform of breast ultrasound pictures: the image area in its proportions."""

import numpy as np

from tasks.breast_ultrasound.example import read_example
from tasks.task import Picture


def test_taller_than_wide_stays_so_and_marks_outside_the_region_are_not_seen() -> None:
    pixels = np.ones((200, 300), dtype=np.float32)
    pixels[20:120, 30:80] = 0.25
    example = read_example(Picture(pixels, regions=((30, 20, 80, 120),)))[0]
    np.testing.assert_allclose(example[:, 32:96], 0.25, atol=1e-6)
    assert not example[:, :32].any()
    assert not example[:, 96:].any()
