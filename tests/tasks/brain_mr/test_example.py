"""Sequences on one grid: those that are missing are 0, those of other orientation lie where the others do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.brain_mr import TASK
from tasks.brain_mr.brain import brain_of
from tasks.brain_mr.example import augment, read_example, read_masks
from tasks.imaging.volumes import NoExample, axial_grid, resampled
from tasks.phantoms.brain_mr.head import AT, STEP_MM, head_of, tumour_of
from tasks.phantoms.brain_mr.head import SHAPE as HEAD
from tasks.phantoms.brain_mr.scanner import scanner_of, signal
from tasks.task import PhantomHospital, Scan, Volume
from tests.drawn import draw

NAMES = [sequence.name for sequence in TASK.sequences]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Scan]:
    """Of a hospital whose contrast-enhanced series is sagittal and whose others are axial."""
    name = next(f"site{n}" for n in range(100) if scanner_of(PhantomHospital(f"site{n}", 1)).protocols[0].sagittal)
    folder = tmp_path_factory.mktemp(name)
    draw(TASK, folder, PhantomHospital(name, patients=4, prevalence=0.5), 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer=name, path=folder / "dicom", labels=folder / "labels.csv"
    )
    records = list_folder(source, TASK, frozenset()).records
    return [record.read_scan(None) for record in records if record.read_scan is not None]


def test_a_sagittal_series_lies_on_the_axial_ones(scans: list[Scan]) -> None:
    for scan in scans:
        assert scan.volumes["T1ce"].values.shape[1:] != scan.volumes["FLAIR"].values.shape[1:]
        example = read_example(scan)
        t1ce, flair = (example[NAMES.index(name)] > 0 for name in ("T1ce", "FLAIR"))
        overlap = 2 * (t1ce & flair).sum() / (t1ce.sum() + flair.sum())
        assert overlap > 0.85
        mirrored = 2 * (t1ce[:, ::-1] & flair).sum() / (t1ce.sum() + flair.sum())
        assert overlap > mirrored


def test_the_tumour_is_bright_on_flair_where_the_sagittal_outline_says(scans: list[Scan]) -> None:
    for scan in scans:
        example, masks = read_example(scan), read_masks(scan)
        flair = example[NAMES.index("FLAIR")]
        whole, inside = masks[0], flair > 0
        assert whole.sum() > 20
        assert flair[whole].mean() > flair[inside & ~whole].mean() + 0.1
        assert not (masks[1] & ~masks[0]).any(), "nested"
        assert not (masks[2] & ~masks[1]).any(), "nested"


def test_a_missing_sequence_is_an_empty_channel(scans: list[Scan]) -> None:
    scan = scans[0]
    alone = read_example(Scan({"T1ce": scan.volumes["T1ce"]}, scan.masks))
    np.testing.assert_array_equal(alone[0], read_example(scan)[0])
    assert not alone[1:].any()


def test_sequences_of_another_grid_and_gain_agree() -> None:
    rng = np.random.default_rng(0)
    shape = (40, 44, 44)
    affine = axial_grid(np.zeros(3), shape, (4.0, 4.0, 4.0)).affine
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) @ affine[:3, :3].T + affine[:3, 3]
    head = np.linalg.norm(places / [70, 85, 75], axis=-1) < 1
    values = (head * (1 + 0.1 * rng.standard_normal(shape)) + 0.02 * rng.random(shape)).astype(np.float32)
    turned = affine.copy()  # the same voxels, stored as coronal slices from the back
    turned[:3, :3] = np.stack([-affine[:3, 1], affine[:3, 0], affine[:3, 2]], axis=1)
    turned[:3, 3] += affine[:3, 1] * (shape[1] - 1)
    other = np.ascontiguousarray(values[:, ::-1].transpose(1, 0, 2)) * 37
    example = read_example(Scan({"T1ce": Volume(values, affine), "T2": Volume(other, turned)}))
    np.testing.assert_allclose(example[0], example[NAMES.index("T2")], atol=2e-3)


@pytest.mark.parametrize("skull", [True, False])
def test_the_brain_is_told_from_the_scalp(skull: bool) -> None:
    """On phantoms whose tissue is known, at 4 mm; and a brain whose skull was taken away before stays a brain."""
    affine = axial_grid(np.zeros(3), HEAD, STEP_MM).affine
    grid = axial_grid(np.zeros(3), (48, 48, 48), (4.0, 4.0, 4.0))
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shares = head_of(rng, tumour_of(rng, high_grade=bool(seed % 2)))
        outside = shares[AT["scalp"]] + shares[AT["bone"]]
        scanner = scanner_of(PhantomHospital("alder", 1))
        image = signal(scanner, scanner.protocols[0], shares) * (1 if skull else outside < 0.1)
        maps = {"image": image, "outside": outside, "all": shares.sum(axis=0)}
        found = resampled({name: Volume(values, affine) for name, values in maps.items()}, grid)
        brain = brain_of(found["image"])
        true = (found["all"] > 0.5) & (found["outside"] < 0.5)
        assert 2 * (brain & true).sum() / (brain.sum() + true.sum()) > 0.93
        assert brain[found["outside"] > 0.8].mean() < 0.1, "little of the scalp"


def test_nothing_has_no_brain_and_what_has_no_inside_is_all() -> None:
    assert not brain_of(np.zeros((5, 5, 5), dtype=np.float32)).any()
    thin = np.zeros((9, 9, 9), dtype=np.float32)
    thin[4, 4, 2:7] = 1
    np.testing.assert_array_equal(brain_of(thin), thin > 0)


def test_an_empty_volume_is_refused() -> None:
    with pytest.raises(NoExample, match="CONSTANT_IMAGE"):
        read_example(Scan({"T1ce": Volume(np.zeros((4, 4, 4), dtype=np.float32), np.eye(4))}))


def test_what_was_not_acquired_stays_empty_when_it_is_augmented(scans: list[Scan]) -> None:
    scan = scans[0]
    example = torch.from_numpy(read_example(Scan({"T1ce": scan.volumes["T1ce"]}, scan.masks)))
    masks = torch.from_numpy(read_masks(scan))
    changed = 0
    for seed in range(8):
        found, outlines = augment(example, masks, torch.Generator().manual_seed(seed))
        assert not found[1:].any()
        changed += not torch.equal(found[0], example[0])
        volume = outlines[0].sum() / masks[0].sum()
        assert 0.6 < float(volume) < 1.6
    assert changed >= 7
