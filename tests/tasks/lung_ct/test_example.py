"""The cube about a nodule: where it is, what its values mean, and who is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.imaging.volumes import NoExample, axial_grid
from tasks.lung_ct import TASK
from tasks.lung_ct.example import SHAPE, read_example, read_masks
from tasks.task import Scan, Volume

CENTRE = np.array([70.0, -20.0, -120.0])


def _scan(spacing: tuple[float, float, float], density: float = 50.0, radius: float = 8.0, flip: bool = False) -> Scan:
    """A ball in a lung of -850 HU, 70 mm beside the scan's own centre."""
    shape = (int(60 / spacing[0]), int(90 / spacing[1]), int(90 / spacing[2]))
    affine = axial_grid(np.add(CENTRE, (3.0, -2.0, 1.0)), shape, spacing).affine
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    ball = np.linalg.norm(places - CENTRE, axis=-1) < radius
    values = np.where(ball, density, -850).astype(np.float32)
    if flip:
        values, ball = values[::-1], ball[::-1]
        affine[:3, 3] += affine[:3, 0] * (shape[0] - 1)
        affine[:3, 0] *= -1
    return Scan({"CT": Volume(values, affine, "HU")}, {"nodule": Volume(ball, affine)})


def test_hounsfield_units_become_the_window() -> None:
    example = read_example(_scan((1.0, 0.7, 0.7)))[0]
    assert example[20, 20, 20] == pytest.approx((50 + 1000) / 1400, abs=0.01)
    assert example[0, 0, 0] == pytest.approx((-850 + 1000) / 1400, abs=0.01)
    assert read_example(_scan((1.0, 0.7, 0.7), density=2000.0))[0, 20, 20, 20] == 1


def test_the_nodule_has_its_size_whatever_the_spacing() -> None:
    volume = 4 / 3 * np.pi * 8**3
    for spacing in ((1.0, 0.7, 0.7), (2.5, 0.6, 0.6), (0.8, 1.0, 1.0)):
        scan = _scan(spacing)
        masks = read_masks(scan)
        assert masks.sum() == pytest.approx(volume, rel=0.1)
        example = read_example(scan)[0]
        assert example[masks[0]].mean() - example[~masks[0]].mean() > 0.5, "the mask lies on the nodule"
        np.testing.assert_allclose(np.argwhere(masks[0]).mean(axis=0), 19.5, atol=0.6)


def test_a_scan_from_above_is_the_same_scan() -> None:
    np.testing.assert_allclose(
        read_example(_scan((1.2, 0.8, 0.8))), read_example(_scan((1.2, 0.8, 0.8), flip=True)), atol=1e-4
    )


def test_the_scans_end_is_air() -> None:
    scan = _scan((1.0, 0.7, 0.7))
    ct, nodule = scan.volumes["CT"], (scan.masks or {})["nodule"]
    cut = Scan({"CT": Volume(ct.values[:35], ct.affine, "HU")}, {"nodule": Volume(nodule.values[:35], ct.affine)})
    example = read_example(cut)[0]
    assert example.shape == SHAPE
    assert (example[-5:] == 0).all()


@pytest.mark.parametrize("masks", ["none", "empty"])
def test_without_an_outline_nobody_knows_which_nodule_is_meant(masks: str) -> None:
    scan = _scan((1.0, 1.0, 1.0))
    ct = scan.volumes["CT"]
    empty = {"nodule": Volume(np.zeros(ct.values.shape, dtype=np.bool_), ct.affine)}
    with pytest.raises(NoExample, match="NO_OUTLINE") as refusal:
        read_example(Scan(scan.volumes, None if masks == "none" else empty))
    assert refusal.value.reason == "NO_OUTLINE"


@pytest.mark.parametrize(
    ("description", "taken"),
    [
        ("Thorax 1.0 B60f", True),
        ("CHEST W/O 1.25 LUNG", True),
        ("", True),
        ("lung 1.0 I50f 3", True),
        ("Topogram 0.6 T20s", False),
        ("SCOUT", False),
        ("MIP AXIAL 10", False),
        ("Coronal 3.0", False),
        ("Thorax SAG 2.0", False),
        ("Dose Report", False),
    ],
)
def test_axial_series_are_read(description: str, taken: bool) -> None:
    assert TASK.sequences[0].finds(description) is taken
