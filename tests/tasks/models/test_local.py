"""Features of places, and the linear heads that read them: bounded, small, and the same whoever computes them."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import interpolate

from tasks.models import local
from tasks.models.linear import LinearOutlines
from tasks.models.local import FeatureGrid, LocalFeatures

SHAPES = [(1, 64, 64), (2, 32, 48), (1, 16, 24, 16), (3, 16, 16, 16)]


def images_of(shape: tuple[int, ...], number: int = 2) -> torch.Tensor:
    return torch.rand(number, *shape, generator=torch.Generator().manual_seed(0))


def by_grid(features: LocalFeatures, flat: torch.Tensor) -> list[torch.Tensor]:
    """Of each grid (images, places, values)."""
    sizes = [math.prod(grid.cells) * grid.values for grid in features.grids]
    parts = torch.split(flat, sizes, dim=1)
    return [part.reshape(len(flat), -1, grid.values) for part, grid in zip(parts, features.grids, strict=True)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_all_vectors_of_a_place_together_are_short(shape: tuple[int, ...]) -> None:
    features = LocalFeatures(shape=shape)
    for images in (images_of(shape), 1e3 * images_of(shape), torch.zeros(1, *shape)):
        made = features(images)
        assert made.dtype == torch.float32
        assert made.shape == (len(images), features.features)
        assert torch.isfinite(made).all()
        squares = [float((part**2).sum(dim=2).max()) for part in by_grid(features, made)]
        assert sum(squares) < local.REACH**2 * (1 + 1e-5)
        assert torch.equal(made, features(images))


@pytest.mark.parametrize(
    ("shape", "kilobytes"),
    [
        ((1, 128, 128), 200),
        ((1, 256, 256), 200),
        ((1, 48, 48, 48), 400),
        ((4, 48, 48, 48), 450),
        ((1, 64, 64, 64), 400),
    ],
)
def test_an_image_takes_little_of_the_cache(shape: tuple[int, ...], kilobytes: int) -> None:
    assert 4 * LocalFeatures(shape=shape).features <= 1000 * kilobytes


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_of_an_image_do_not_depend_on_other_images_or_on_chance(shape: tuple[int, ...]) -> None:
    images = images_of(shape, 3)
    torch.manual_seed(1)
    one = LocalFeatures(shape=shape)(images[:1])
    torch.manual_seed(2)
    assert torch.allclose(one, LocalFeatures(shape=shape)(images)[:1], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (32, 40, 48)], ids=str)
def test_what_a_grid_finds_lies_where_it_is_in_the_image(size: tuple[int, ...]) -> None:
    """A bump's centre of mass, at every scale; on the coarse ones to a twentieth of what lies between two places."""
    centre = [n * share for n, share in zip(size, (0.47, 0.53, 0.5), strict=False)]
    axes = torch.meshgrid(*[torch.arange(float(n)) for n in size], indexing="ij")
    image = torch.exp(-sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)) / 18)[None, None]
    for scale, maps in enumerate(local._maps(image, oriented=True), start=1):
        found = interpolate(maps[:, :1], size=size, mode="bilinear" if len(size) == 2 else "trilinear")[0, 0]
        for axis, c in zip(axes, centre, strict=True):
            assert float((found * axis).sum() / found.sum()) == pytest.approx(c, abs=0.05 * 2**scale)


def test_a_sequence_that_is_missing_adds_nothing_to_any_scale() -> None:
    shape = (2, 16, 16, 16)
    features = LocalFeatures(shape=shape)
    whole = images_of(shape)
    without = whole.clone()
    without[:, 1] = 0
    for grid, part in zip(features.grids[:-2], by_grid(features, features(without)), strict=False):
        first, second = torch.split(part, grid.values // 2, dim=2)
        assert (second == 0).all()
        assert (first != 0).any()


@pytest.mark.parametrize("pixels", [(24, 20), (12, 16, 8)], ids=str)
def test_logits_are_those_of_a_linear_model_on_interpolated_features(pixels: tuple[int, ...]) -> None:
    cells = tuple(n // 4 for n in pixels)
    grids = (FeatureGrid(tuple(n // 2 for n in pixels), 3), FeatureGrid(cells, 5), FeatureGrid(cells, 2))
    heads = LinearOutlines(7, 2, 2, grids, pixels)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in heads.parameters():
            assert (p == 0).all()
            p.copy_(torch.randn(p.shape, generator=draw))
    maps = [torch.randn(2, grid.values, *grid.cells, generator=draw) for grid in grids]
    whole = torch.randn(2, 7, generator=draw)
    made = heads(torch.cat([whole, *(m.flatten(2).transpose(1, 2).flatten(1) for m in maps)], dim=1))

    mode = "bilinear" if len(pixels) == 2 else "trilinear"
    fine, *coarser = (interpolate(m, size=grids[0].cells, mode=mode) for m in maps)
    places = interpolate(torch.cat([fine, *coarser], dim=1), size=pixels, mode=mode)
    weight = torch.cat([linear.weight for linear in heads.structures], dim=1)  # type: ignore[arg-type]
    outlines = torch.einsum("sf,nf...->ns...", weight, places) + heads.level.view(1, 2, *[1] * len(pixels))
    assert made.shape == (2, 2 + 2 * math.prod(pixels))
    torch.testing.assert_close(made[:, :2], heads.findings(whole))
    torch.testing.assert_close(made[:, 2:], outlines.flatten(1), rtol=1e-4, atol=1e-4)


def test_a_dark_disc_is_outlined_after_a_few_steps() -> None:
    """Where nothing but grey value tells, ten images suffice."""
    draw = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    middles, radii = 20 + 24 * torch.rand(20, 2, generator=draw), 6 + 6 * torch.rand(20, generator=draw)
    discs = torch.stack(
        [(rows - m[0]) ** 2 + (columns - m[1]) ** 2 < r**2 for m, r in zip(middles, radii, strict=True)]
    )
    images = (0.5 + 0.2 * torch.randn(20, 64, 64, generator=draw) - 0.3 * discs).clamp(0, 1)[:, None]
    features = LocalFeatures(shape=(1, 64, 64))
    kept = torch.cat([torch.zeros(20, 1), features(images)], dim=1)
    heads = LinearOutlines(1, 1, 1, features.grids, (64, 64))
    optimizer = torch.optim.Adam(heads.parameters(), lr=1.0)
    for _ in range(60):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            heads(kept[:10])[:, 1:], discs[:10].flatten(1).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = heads(kept[10:])[:, 1:].reshape(10, 64, 64) > 0
    dice = 2 * (found & discs[10:]).sum() / (found.sum() + discs[10:].sum())
    assert dice > 0.8
