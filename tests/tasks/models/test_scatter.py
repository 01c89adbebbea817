"""Features of whole images for a linear model: fixed, bounded, and the same whatever other images there are."""

import pytest
import torch

from tasks.models.scatter import ScatterFeatures, natural_noise
from tests.tasks.models.test_scattering import formula_image, noise


def test_holds_nothing_that_could_be_trained_or_sent() -> None:
    features = ScatterFeatures(shape=(1, 32, 32), J=2, L=4, pool=2)
    assert not list(features.parameters())
    assert not features.state_dict()


@pytest.mark.parametrize(("changed", "words"), [({"resolution": 64}, "enlarge"), ({"pool": 0}, "no feature")])
def test_features_refuse_what_they_cannot_make(changed: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScatterFeatures(**({"shape": (1, 32, 32), "resolution": 0, "J": 2, "L": 4, "pool": 2} | changed))  # type: ignore[arg-type]


@pytest.mark.parametrize(("resolution", "pool", "cells"), [(0, 2, 2), (16, 4, 4), (16, 9, 4)])
def test_features_have_norm_one_whatever_the_image_shows(resolution: int, pool: int, cells: int) -> None:
    features = ScatterFeatures(shape=(1, 32, 32), resolution=resolution, J=2, L=4, pool=pool)
    images = torch.cat([formula_image(32), noise(2, 32, 32), 1e3 * noise(1, 32, 32)])
    made = features(images)
    assert made.dtype == torch.float32
    assert made.shape == (4, features.features)
    assert features.features == 25 * cells**2
    assert torch.allclose(made.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.equal(made, features(images))


def test_features_of_a_mirror_image_are_the_same_only_when_asked() -> None:
    images = noise(3, 32, 32)
    both, one = (ScatterFeatures(shape=(1, 32, 32), J=2, L=4, pool=2, mirror=mirror) for mirror in (True, False))
    assert torch.allclose(both(images), both(images.flip(-1)), atol=1e-6)
    assert not torch.allclose(one(images), one(images.flip(-1)), atol=1e-2)


def test_features_of_an_image_do_not_depend_on_other_images_or_on_chance() -> None:
    images = noise(3, 32, 32)
    torch.manual_seed(1)
    one = ScatterFeatures(shape=(1, 32, 32), J=2, L=4, pool=2)(images[:1])
    torch.manual_seed(2)
    assert torch.allclose(one, ScatterFeatures(shape=(1, 32, 32), J=2, L=4, pool=2)(images)[:1], atol=1e-6)


def test_features_of_an_empty_picture_are_finite() -> None:
    made = ScatterFeatures(shape=(1, 32, 32), J=2, L=4, pool=2)(torch.zeros(1, 1, 32, 32))
    assert torch.isfinite(made).all()
    assert made.norm() <= 1 + 1e-5


VOLUME = {"shape": (2, 16, 16, 16), "J": 2, "L": 3, "pool": 2}


def test_volumes_of_several_sequences_have_features_of_norm_one() -> None:
    features = ScatterFeatures(**VOLUME)  # type: ignore[arg-type]
    images = torch.rand(3, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    made = features(images)
    assert made.shape == (3, features.features)
    assert features.features == 2 * (1 + 2 * 3 + 9) * 8
    assert torch.allclose(made.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(made, features(images.flip(-1)), atol=1e-6)
    assert torch.allclose(made[:1], features(images[:1]), atol=1e-6)


def test_a_sequence_that_is_missing_adds_nothing() -> None:
    features = ScatterFeatures(**VOLUME)  # type: ignore[arg-type]
    alone = ScatterFeatures(**(VOLUME | {"shape": (1, 16, 16, 16)}))  # type: ignore[arg-type]
    images = torch.rand(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    images[:, 1] = 0
    made = features(images)
    half = features.features // 2
    assert torch.allclose(made[:, :half], alone(images[:, :1]), atol=1e-6)
    assert (made[:, half:] == 0).all()
    assert (features(torch.zeros(1, 2, 16, 16, 16)) == 0).all()


@pytest.mark.parametrize(("size", "pictures"), [((32, 48), 32), ((16, 24, 16), 8)])
def test_noise_is_the_same_everywhere_and_looks_like_pictures(size: tuple[int, ...], pictures: int) -> None:
    noise = natural_noise(size)
    assert noise.shape == (pictures, 1, *size)
    assert torch.equal(noise, natural_noise(size))
    assert 0 <= float(noise.min()) < float(noise.max()) <= 1
    assert float(noise.mean()) == pytest.approx(0.35, abs=0.01)
    near = (noise[..., 1:] - noise[..., :-1]).std()
    assert near < noise.std(), "neighbours are alike"
