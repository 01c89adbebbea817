"""From volumes in the patient's space to one grid: nothing is mirrored, moved, or made up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from tasks.imaging.volumes import (
    NoExample,
    VoxelGrid,
    axial_grid,
    head_centre_mm,
    largest_centre_mm,
    resampled,
    resampled_masks,
    standardised,
)
from tasks.task import Volume

GRID = axial_grid(np.array([3.0, -4.0, 50.0]), (8, 10, 12), (2.0, 2.0, 2.0))


def _places(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each voxel in the patient, float64 (*shape, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return np.asarray(indices @ affine[:3, :3].T + affine[:3, 3])


def _oriented(seed: int, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """An affine of any orientation, handedness included, with the grid's centre in the volume's."""
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0] * spacing
    affine[:3, 3] = [3.0, -4.0, 50.0] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def test_slices_go_to_the_head_rows_to_the_back_columns_to_the_left() -> None:
    np.testing.assert_allclose(GRID.affine @ [3.5, 4.5, 5.5, 1], [3, -4, 50, 1])
    np.testing.assert_allclose(GRID.affine[:3, 0], [0, 0, 2])
    np.testing.assert_allclose(GRID.affine[:3, 1], [0, 2, 0])
    np.testing.assert_allclose(GRID.affine[:3, 2], [2, 0, 0])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spacing=st.tuples(*[st.floats(0.8, 2.5)] * 3))
def test_what_is_linear_in_space_is_found_again(seed: int, spacing: tuple[float, float, float]) -> None:
    shape = (60, 62, 64)
    affine, slope = _oriented(seed, spacing, shape), np.array([0.3, -1.1, 2.0])
    volume = Volume((_places(shape, affine) @ slope + 7).astype(np.float32), affine)
    found = resampled({"any": volume}, GRID)["any"]
    np.testing.assert_allclose(found, _places(GRID.shape, GRID.affine) @ slope + 7, atol=2e-3)


def test_it_is_what_scipy_finds_where_nothing_is_blurred() -> None:
    shape = (20, 24, 28)
    affine = _oriented(1, (2.6, 2.2, 2.4), shape)  # coarser than the grid
    volume = Volume(np.random.default_rng(0).random(shape, dtype=np.float32), affine)
    fine = VoxelGrid((12, 12, 12), axial_grid(np.array([3.0, -4.0, 50.0]), (12, 12, 12), (1.0, 1.0, 1.0)).affine)
    at = np.linalg.inv(affine) @ fine.affine
    places = _places(fine.shape, at)
    expected = map_coordinates(volume.values, np.moveaxis(places, -1, 0), order=1)
    np.testing.assert_allclose(resampled({"any": volume}, fine)["any"], expected, atol=1e-4)


def test_left_stays_left_from_dicoms_axes_to_monais() -> None:
    """One bright voxel to the left, the back and the head of the grid's centre."""
    values = np.zeros((40, 40, 40), dtype=np.float32)
    affine = axial_grid(np.array([3.0, -4.0, 50.0]), (40, 40, 40), (1.0, 1.0, 1.0)).affine
    values[28:31, 26:29, 30:33] = 1
    found = resampled({"any": Volume(values, affine)}, GRID)["any"]
    assert np.unravel_index(found.argmax(), found.shape) in {(8 - 1, 8, 11), (8 - 1, 7, 11), (8 - 1, 8, 10)}
    np.testing.assert_array_equal(found > 0.5, resampled_masks({"any": Volume(values > 0, affine)}, GRID)["any"])


def test_a_sheared_volume_is_put_upright() -> None:
    """As with a tilted gantry: each slice is shifted against the one before."""
    shape, affine = (40, 60, 60), np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0.4, 1, 0], [1, 0, 0]])
    affine[:3, 3] = [3.0, -4.0, 50.0] - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    volume = Volume(_places(shape, affine)[..., 1].astype(np.float32), affine)
    found = resampled({"any": volume}, GRID)["any"]
    np.testing.assert_allclose(found, _places(GRID.shape, GRID.affine)[..., 1], atol=2e-3)


def test_a_coarse_grid_averages_noise_and_does_not_pick_it() -> None:
    shape = (60, 60, 60)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    volume = Volume(noise, axial_grid(np.array([3.0, -4.0, 50.0]), shape, (0.5, 0.5, 0.5)).affine)
    assert resampled({"any": volume}, GRID)["any"].std() < 0.25


def test_outside_of_a_volume_is_nothing() -> None:
    far = axial_grid(np.array([500.0, 0.0, 0.0]), (4, 4, 4), (1.0, 1.0, 1.0)).affine
    volumes = {"far": Volume(np.ones((4, 4, 4), dtype=np.float32), far)}
    assert not resampled(volumes, GRID)["far"].any()
    assert not resampled_masks(volumes, GRID)["far"].any()
    assert resampled({}, GRID) == {}


def test_a_mask_keeps_its_volume_and_a_thin_rim_its_share() -> None:
    shape = (80, 80, 80)
    affine = axial_grid(np.array([3.0, -4.0, 50.0]), shape, (1.0, 1.0, 1.0)).affine
    apart = np.linalg.norm(_places(shape, affine) - [3.0, -4.0, 50.0], axis=-1)
    grid = axial_grid(np.array([3.0, -4.0, 50.0]), (20, 20, 20), (4.0, 4.0, 4.0))
    masks = {"ball": Volume(apart < 20, affine), "rim": Volume((apart > 18) & (apart < 20), affine)}
    found = resampled_masks(masks, grid)
    for name, mask in masks.items():
        assert found[name].sum() * 64 == pytest.approx(int(mask.values.sum()), rel=0.15)


def test_the_largest_part_is_the_one_that_is_meant() -> None:
    mask = np.zeros((20, 20, 20), dtype=np.bool_)
    affine = axial_grid(np.zeros(3), (20, 20, 20), (2.0, 1.0, 1.0)).affine
    assert largest_centre_mm(Volume(mask, affine)) is None
    mask[2, 2, 2] = mask[10:13, 11:14, 12:15] = True
    np.testing.assert_allclose(largest_centre_mm(Volume(mask, affine)), affine[:3, :3] @ [11, 12, 13] + affine[:3, 3])


@pytest.mark.parametrize("neck_mm", [0, 60, 120])
def test_the_neck_does_not_move_the_brain(neck_mm: int) -> None:
    shape = (90 + neck_mm // 2, 60, 50)
    affine = axial_grid(np.array([10.0, -20.0, -neck_mm / 2]), shape, (2.0, 4.0, 4.0)).affine
    places = _places(shape, affine)
    head = np.linalg.norm((places - [10.0, -20.0, 0.0]) / [70, 90, 85], axis=-1) < 1
    neck = (np.linalg.norm(places[..., :2] - [10.0, 10.0], axis=-1) < 50) & (places[..., 2] < -40)
    values = (head | neck).astype(np.float32) + 0.01 * np.random.default_rng(0).random(shape, dtype=np.float32)
    np.testing.assert_allclose(head_centre_mm(Volume(values, affine)), [10, -20, 5], atol=6)


def test_a_volume_that_shows_nothing_is_refused() -> None:
    with pytest.raises(NoExample, match="CONSTANT_IMAGE"):
        head_centre_mm(Volume(np.zeros((4, 4, 4), dtype=np.float32), np.eye(4)))


@given(gain=st.floats(0.01, 1000))
def test_standard_scores_do_not_know_the_receivers_gain(gain: float) -> None:
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(0, 0.02, (12, 12, 12)).astype(np.float32))
    values[3:9, 3:9, 3:9] = rng.normal(1, 0.1, (6, 6, 6))
    inside = values > 0.5
    scores = standardised(values, inside, 4.0)
    assert (scores.dtype, scores[0, 0, 0]) == (np.float32, 0)
    assert np.median(scores[3:9, 3:9, 3:9]) == pytest.approx(0.5, abs=0.01)
    np.testing.assert_allclose(standardised(values * np.float32(gain), inside, 4.0), scores, atol=1e-3)


def test_standard_scores_of_nothing_are_nothing() -> None:
    values = np.full((3, 3, 3), 5, dtype=np.float32)
    assert not standardised(values, np.zeros((3, 3, 3), dtype=np.bool_), 4.0).any()
    np.testing.assert_allclose(standardised(values, np.ones((3, 3, 3), dtype=np.bool_), 4.0), 0.5)


def test_monais_transforms_leave_the_threads_random_numbers_alone() -> None:
    """A hospital's noise comes from generators of its own; a transform that seeds torch would be a leak."""
    before = torch.random.get_rng_state()
    resampled({"any": Volume(np.ones((8, 8, 8), dtype=np.float32), GRID.affine)}, GRID)
    assert torch.equal(before, torch.random.get_rng_state())
