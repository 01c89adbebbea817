"""A finished example that is not what it claims to be is refused by a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from client.cohort.soundness import require_apart, require_sound_example, require_sound_picture, require_sound_scan
from client.sources.record import Unreadable
from tasks import task as tasks
from tasks.task import Picture, Scan, Volume

LUNG = tasks.get("lung_ct")


def _reason(work: Callable[[], None]) -> str:
    with pytest.raises(Unreadable) as refused:
        work()
    return refused.value.reason


def _ct(**changes: Any) -> Volume:
    values = np.full((10, 12, 14), -1000, np.float32)
    values[2:8, 2:10, 2:12] = 40
    return replace(Volume(values, np.eye(4), "HU"), **changes)


def _mask(*where: slice, shift: float = 0.0) -> Volume:
    mask = np.zeros((10, 12, 14), np.bool_)
    mask[where] = True
    affine = np.eye(4)
    affine[0, 3] = shift
    return Volume(mask, affine)


INSIDE = (slice(3, 6), slice(3, 6), slice(3, 6))


def _scan(ct: Volume, mask: Volume | None = None) -> Scan:
    return Scan({"CT": ct}, None if mask is None else {"nodule": mask})


def test_examples_show_something_finite_between_0_and_1() -> None:
    good = np.linspace(0, 1, 32, dtype=np.float32).reshape(1, 4, 8)
    require_sound_example(good)
    require_sound_example(np.concatenate([good, np.zeros_like(good)]))  # a sequence that was not acquired
    assert _reason(lambda: require_sound_example(np.zeros_like(good))) == "CONSTANT_EXAMPLE"
    assert _reason(lambda: require_sound_example(np.concatenate([0 * good, good]))) == "CONSTANT_EXAMPLE"
    assert _reason(lambda: require_sound_example(good * 2)) == "VALUES_NOT_IN_RANGE"
    assert _reason(lambda: require_sound_example(good - 1)) == "VALUES_NOT_IN_RANGE"
    assert _reason(lambda: require_sound_example(good * np.float32("nan"))) == "NOT_FINITE"


def test_a_sound_scan_passes_outlined_or_not() -> None:
    require_sound_scan(_scan(_ct()), LUNG)
    require_sound_scan(_scan(_ct(), _mask(*INSIDE)), LUNG)
    require_sound_scan(_scan(_ct(), _mask(slice(0, 0))), LUNG)


@pytest.mark.parametrize("shift", [1024.0, 60000.0])
def test_hounsfield_units_have_air_and_no_impossible_metal(shift: float) -> None:
    values = _ct().values + (shift if shift < 2000 else 0)
    values[0, 0, 0] = shift if shift > 2000 else values[0, 0, 0]
    assert _reason(lambda: require_sound_scan(_scan(_ct(values=values)), LUNG)) == "NOT_HOUNSFIELD"
    require_sound_scan(_scan(_ct(values=values, unit="")), LUNG)  # of other units nothing is known


def test_padding_is_no_proof_of_air() -> None:
    imaged = _ct().values > -500
    assert _reason(lambda: require_sound_scan(_scan(_ct(imaged=imaged)), LUNG)) == "NOT_HOUNSFIELD"


def test_outlines_lie_on_what_was_imaged() -> None:
    beside = _mask(*INSIDE, shift=50.0)
    assert _reason(lambda: require_sound_scan(_scan(_ct(), beside), LUNG)) == "MASK_OUTSIDE_IMAGE"
    a_little = _mask(*INSIDE, shift=-4.0)  # one of three slices is below the first
    require_sound_scan(_scan(_ct(), a_little), LUNG)
    imaged = np.ones((10, 12, 14), np.bool_)
    imaged[INSIDE] = False
    assert _reason(lambda: require_sound_scan(_scan(_ct(imaged=imaged), _mask(*INSIDE)), LUNG)) == "MASK_OUTSIDE_IMAGE"


def test_scans_without_contrast_or_number_are_refused() -> None:
    flat = np.full((10, 12, 14), -1000, np.float32)
    assert _reason(lambda: require_sound_scan(_scan(_ct(values=flat)), LUNG)) == "CONSTANT_IMAGE"
    values = _ct().values.copy()
    values[1, 1, 1] = np.nan
    assert _reason(lambda: require_sound_scan(_scan(_ct(values=values)), LUNG)) == "NOT_FINITE"


def test_outlines_of_a_picture_lie_in_its_image_area() -> None:
    pixels = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    masks = np.zeros((1, 20, 20), np.bool_)
    masks[0, 2:6, 2:6] = True
    good = Picture(pixels, ((0, 0, 10, 10),), None, masks)
    require_sound_picture(good, pixels[None])
    away = replace(good, regions=((10, 10, 20, 20),))
    assert _reason(lambda: require_sound_picture(away, pixels[None])) == "MASK_OUTSIDE_IMAGE"
    require_sound_picture(replace(away, regions=()), pixels[None])


HEART = tasks.get("left_heart")


def test_a_place_in_two_structures_that_exclude_each_other_costs_the_picture() -> None:
    masks = np.zeros((4, 20, 20), np.bool_)
    masks[0, 2:6, 2:6] = masks[1, 6:9, 2:6] = True
    masks[3] = masks[0] | masks[1]
    require_apart(masks, HEART)
    require_apart(None, HEART)
    masks[2, 5, 5] = True
    assert _reason(lambda: require_apart(masks, HEART)) == "EXCLUSIVE_STRUCTURES_OVERLAP"
    require_apart(masks, replace(HEART, exclusive=()))


def test_of_a_scan_they_are_compared_voxel_by_voxel_or_not_at_all() -> None:
    nested = tasks.get("brain_mr")
    apart = replace(nested, exclusive=(("tumour_core", "enhancing_tumour"),))
    masks = {structure.name: _mask(*INSIDE) for structure in nested.structures}
    require_apart(masks, nested)
    assert _reason(lambda: require_apart(masks, apart)) == "EXCLUSIVE_STRUCTURES_OVERLAP"
    beside = masks | {"enhancing_tumour": _mask(slice(7, 9), slice(3, 6), slice(3, 6))}
    require_apart(beside, apart)
    moved = beside | {"enhancing_tumour": _mask(slice(7, 9), shift=2.0)}
    assert _reason(lambda: require_apart(moved, apart)) == "EXCLUSIVE_STRUCTURES_ON_TWO_GRIDS"
