"""Scattering of volumes against a plain convolution in space and against what the mathematics promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from tasks.models.scattering3d import Scattering3D, _directions

SMALL = Scattering3D(shape=(16, 16, 16), J=2, L=7)


def noise(volumes: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(volumes, 1, *shape, generator=torch.Generator().manual_seed(seed))


def in_space(volume: np.ndarray, sigma: float, frequency: np.ndarray) -> np.ndarray:
    """A wave under a Gaussian of integral 1, laid over a periodic volume voxel by voxel."""
    reach = range(-12, 13)
    made = np.zeros(volume.shape, complex)
    for step in itertools.product(reach, repeat=3):
        along = np.array(step)
        weight = math.exp(-(along @ along) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) ** 3
        made += weight * np.exp(1j * frequency @ along) * np.roll(volume, step, axis=(0, 1, 2))
    return made


def test_a_band_of_the_first_order_is_what_convolution_in_space_gives() -> None:
    """The smallest scale, the first space diagonal; averaged as order 0 is, on a volume whose border is mirrored."""
    J, sigma, xi = 1, 0.8, 3 * math.pi / 4
    volume = noise(1, 8, 8, 8)
    way = np.ones(3) / math.sqrt(3)
    padded = np.pad(volume[0, 0].double().numpy(), 2**J, mode="reflect")
    wave, bare = in_space(padded, sigma, xi * way), in_space(padded, sigma, np.zeros(3))
    share = in_space(np.ones((1, 1, 1)), sigma, xi * way) / in_space(np.ones((1, 1, 1)), sigma, np.zeros(3))
    modulus = np.abs(wave - share * bare)
    averaged = in_space(modulus, 0.8 * 2 ** (J - 1), np.zeros(3)).real[2:-2:2, 2:-2:2, 2:-2:2]
    mine = Scattering3D(shape=(8, 8, 8), J=J, L=7, max_order=1)(volume)[0, 1 + 3].numpy()
    np.testing.assert_allclose(mine, averaged, rtol=1e-4)


@pytest.mark.parametrize(("J", "L", "order"), [(1, 3, 1), (2, 7, 1), (2, 3, 2)])
def test_has_one_channel_for_each_path(J: int, L: int, order: int) -> None:
    scattering = Scattering3D(shape=(8, 16, 24), J=J, L=L, max_order=order)
    expected = 1 + J * L + (L**2 * J * (J - 1) // 2 if order == 2 else 0)
    assert scattering.channels == expected
    assert scattering(noise(2, 8, 16, 24)).shape == (2, expected, 8 // 2**J, 16 // 2**J, 24 // 2**J)
    assert scattering(noise(0, 8, 16, 24)).shape == (0, expected, 8 // 2**J, 16 // 2**J, 24 // 2**J)


def test_a_flat_volume_has_only_its_mean() -> None:
    scattered = SMALL(torch.full((1, 1, 16, 16, 16), 0.7))
    assert torch.allclose(scattered[:, 0], torch.tensor(0.7), atol=1e-5)
    assert scattered[:, 1:].abs().max() < 1e-5


def test_brightness_scales_every_coefficient() -> None:
    assert torch.allclose(SMALL(3 * noise(1, 16, 16, 16)), 3 * SMALL(noise(1, 16, 16, 16)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("L", [3, 7, 13])
def test_no_axis_is_treated_unlike_another(L: int) -> None:
    """A volume that is turned has the same coefficients, in turned cells and in the order of turned directions."""
    scattering = Scattering3D(shape=(16, 16, 16), J=1, L=L, max_order=1)
    volume = noise(1, 16, 16, 16)
    plain = scattering(volume)[:, 1:]
    turned = scattering(volume.permute(0, 1, 3, 4, 2))[:, 1:].permute(0, 1, 4, 2, 3)
    assert torch.allclose(plain.mean(dim=1), turned.mean(dim=1), atol=1e-5)
    assert not torch.allclose(plain[:, 0], turned[:, 0], atol=1e-3)


def test_a_wave_is_found_at_its_scale_and_along_its_direction() -> None:
    slices, rows, columns = np.mgrid[0:16, 0:16, 0:16]
    for number, way in enumerate(_directions(13)):
        frequency = 3 * math.pi / 4 * way
        wave = np.cos(frequency[0] * slices + frequency[1] * rows + frequency[2] * columns).astype(np.float32)
        scattering = Scattering3D(shape=(16, 16, 16), J=2, L=13, max_order=1)
        found = scattering(torch.from_numpy(wave)[None, None])[0, 1:].mean(dim=(1, 2, 3))
        assert int(found.argmax()) == number


def test_a_small_shift_changes_scattering_far_less_than_voxels() -> None:
    volume = noise(1, 16, 16, 16)
    moved = volume.roll(1, dims=4)
    before, after = SMALL(volume), SMALL(moved)
    assert (after - before).norm() / before.norm() < 0.15 * (moved - volume).norm() / volume.norm()


def test_holds_nothing_that_could_be_trained_or_sent() -> None:
    assert not list(SMALL.parameters())
    assert not SMALL.state_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (30, 32, 32), "J": 2}, "multiples of 4"),
        ({"shape": (8, 32, 32), "J": 3}, "lower J"),
        ({"shape": (32, 32, 32), "J": 0}, "1 or more"),
        ({"shape": (32, 32, 32), "J": 2, "L": 4}, "use 3, 7 or 13"),
        ({"shape": (32, 32, 32), "J": 2, "max_order": 3}, "use 1 or 2"),
    ],
)
def test_refuses_what_cannot_be_scattered(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scattering3D(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (1, 3, 16, 16, 16), (1, 1, 32, 16, 16)])
def test_refuses_volumes_that_the_filters_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pass"):
        SMALL(torch.zeros(shape))
