"""Wavelet scattering against Kymatio's numbers and against what the mathematics promises.

``golden_scattering.npz`` holds what ``kymatio.torch.Scattering2D`` of Kymatio 0.3.0 (Andreux et al., JMLR 21:60, 2020)
gave for ``formula_image(32)``, J of 2 and 3 and L of 4 and 8: arrays ``J2_L4`` to ``J3_L8``, float32 (channels, rows,
columns). Its import needs one line beside a current SciPy, ``scipy.special.sph_harm = None``, a name that only its
3D transform uses. Kymatio takes 3.1415 for pi where it scales a filter, 3e-5 too little in each of up to three filters;
that is all of the difference seen here.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.models.scattering import Scattering2D

GOLDEN = Path(__file__).with_name("golden_scattering.npz")
SMALL = Scattering2D(shape=(32, 32), J=3, L=4)


def formula_image(side: int) -> torch.Tensor:
    """A ridge, a chirp and a step, so that every band has something to find; float32 (1, 1, side, side)."""
    y, x = np.mgrid[0:side, 0:side] / side
    values = 0.5 + 0.25 * np.sin(40 * x * y + 3 * y) + 0.15 * np.cos(25 * (x - y) ** 2) + 0.1 * (x + 2 * y > 1.4)
    return torch.from_numpy(values.astype(np.float32))[None, None]


def noise(images: int, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(images, 1, rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("J", [2, 3])
@pytest.mark.parametrize("L", [4, 8])
def test_agrees_with_kymatio(J: int, L: int) -> None:
    with np.load(GOLDEN) as golden:
        expected: NDArray[np.float32] = golden[f"J{J}_L{L}"]
    mine = Scattering2D(shape=(32, 32), J=J, L=L)(formula_image(32))[0].numpy()
    assert mine.shape == expected.shape
    largest = np.abs(expected).max(axis=(1, 2), keepdims=True)
    assert np.all(np.abs(mine - expected) <= 1e-4 * largest)


@pytest.mark.parametrize(("J", "L", "order"), [(1, 3, 2), (2, 4, 1), (2, 4, 2), (3, 2, 2), (3, 1, 2)])
def test_has_one_channel_for_each_path(J: int, L: int, order: int) -> None:
    scattering = Scattering2D(shape=(16, 24), J=J, L=L, max_order=order)
    expected = 1 + J * L + (L**2 * J * (J - 1) // 2 if order == 2 else 0)
    assert scattering.channels == expected
    assert scattering(noise(2, 16, 24)).shape == (2, expected, 16 // 2**J, 24 // 2**J)


def test_first_order_alone_is_the_beginning_of_both_orders() -> None:
    image = noise(1, 32, 32)
    first = Scattering2D(shape=(32, 32), J=3, L=4, max_order=1)(image)
    assert torch.equal(first, SMALL(image)[:, : first.shape[1]])


def test_a_flat_image_has_only_its_mean() -> None:
    scattered = SMALL(torch.full((1, 1, 32, 32), 0.7))
    assert torch.allclose(scattered[:, 0], torch.tensor(0.7), atol=1e-5)
    assert scattered[:, 1:].abs().max() < 1e-5


def test_brightness_scales_every_coefficient() -> None:
    image = noise(1, 32, 32)
    assert torch.allclose(SMALL(3 * image), 3 * SMALL(image), rtol=1e-4, atol=1e-5)


def test_a_shift_by_one_cell_shifts_the_cells() -> None:
    large = Scattering2D(shape=(64, 64), J=2, L=4)
    image = torch.zeros(1, 1, 64, 64)
    image[..., 24:40, 24:40] = formula_image(16)
    moved = large(image.roll((4, 4), dims=(2, 3)))
    assert torch.allclose(moved, large(image).roll((1, 1), dims=(2, 3)), atol=1e-3)


def test_a_small_shift_changes_scattering_far_less_than_pixels() -> None:
    image = noise(1, 32, 32)
    moved = image.roll(1, dims=3)
    before, after = SMALL(image), SMALL(moved)
    assert (after - before).norm() / before.norm() < 0.1 * (moved - image).norm() / image.norm()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    distance=st.floats(1e-2, 10),
    wave=st.tuples(st.floats(0, 3), st.floats(-3, 3), st.floats(0, 6.3)),
)
def test_does_not_move_images_apart(seed: int, distance: float, wave: tuple[float, float, float]) -> None:
    """Scattering contracts, Mallat 2012, on an endless plane and averaged at every pixel.

    Here one of 4**J averages is kept and counts 4**J times. A wave in step with that grid counts for more than its
    mean, and so does what stands at the mirrored border: the worst of 6,000 waves was moved apart by 1.17.
    """
    x = noise(1, 32, 32, seed)
    row, column = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    difference = torch.cos(wave[0] * row + wave[1] * column + wave[2]) + 0.1 * noise(1, 32, 32, seed + 1)
    y = x + distance * difference
    assert (SMALL(x) - SMALL(y)).norm() * 2**SMALL.J <= 1.25 * (x - y).norm()
    z = x + distance * (noise(1, 32, 32, seed + 2) - 0.5)
    assert (SMALL(x) - SMALL(z)).norm() * 2**SMALL.J <= (x - z).norm()


def test_an_image_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(5, 32, 32)
    together = SMALL(images)
    monkeypatch.setattr("tasks.models.scattering._VALUES_AT_ONCE", 1)
    assert torch.allclose(together, SMALL(images), atol=1e-6)
    assert SMALL(images[:0]).shape == (0, *together.shape[1:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (30, 32), "J": 2}, "multiples of 4"),
        ({"shape": (8, 32), "J": 3}, "lower J"),
        ({"shape": (32, 32), "J": 0}, "1 or more"),
        ({"shape": (32, 32), "J": 2, "L": 0}, "1 or more"),
        ({"shape": (32, 32), "J": 2, "max_order": 3}, "use 1 or 2"),
    ],
)
def test_refuses_what_cannot_be_scattered(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scattering2D(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 16, 16), (1, 3, 32, 32), (1, 1, 32, 16)])
def test_refuses_images_that_the_filters_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pass"):
        SMALL(torch.zeros(shape))
