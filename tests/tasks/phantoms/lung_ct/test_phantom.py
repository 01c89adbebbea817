"""Phantom chest CT: Hounsfield units, noise and slices of the hospital's scanner, signs of the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.lung_ct import TASK
from tasks.phantoms.lung_ct.nodule import nodule_of
from tasks.phantoms.lung_ct.scanner import reconstructed, scanner_of
from tasks.task import PhantomHospital, Scan


def _scans(folder: Path, hospital: PhantomHospital) -> list[tuple[int, Scan]]:
    TASK.draw_phantom(folder, hospital, 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv"
    )
    records = list_folder(source, TASK, frozenset()).records
    return [(record.label, record.read_scan(None)) for record in records if record.read_scan is not None]


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, Scan]]:
    return _scans(tmp_path_factory.mktemp("alder"), PhantomHospital("alder", patients=4, prevalence=0.5))


def test_lung_is_dark_and_the_nodule_is_not(scans: list[tuple[int, Scan]]) -> None:
    for _, scan in scans:
        assert scan.masks is not None
        values, nodule = scan.volumes["CT"].values, scan.masks["nodule"].values
        assert -960 < np.percentile(values, 20) < -750
        assert nodule.any()
        assert values[nodule].mean() > np.percentile(values, 20) + 150


def test_the_affine_has_the_scanners_slices(scans: list[tuple[int, Scan]]) -> None:
    scanner = scanner_of(PhantomHospital("alder", 1))
    for _, scan in scans:
        spacing = np.linalg.norm(scan.volumes["CT"].affine[:3, :3], axis=0)
        np.testing.assert_allclose(spacing, [scanner.spacing_mm, scanner.pixel_mm, scanner.pixel_mm], atol=1e-3)


def test_malignant_nodules_are_larger_but_not_all() -> None:
    radii = {kind: [nodule_of(np.random.default_rng(n), kind).radius for n in range(300)] for kind in (False, True)}
    assert np.median(radii[True]) > 1.3 * np.median(radii[False])
    assert max(radii[False]) > np.median(radii[True])
    assert all(2.2 <= radius <= 13 for some in radii.values() for radius in some), "no nodule has more than 30 mm"


def test_noise_falls_with_the_root_of_the_dose() -> None:
    flat = np.full((12, 64, 64), -850, dtype=np.float32)
    noise = []
    for gain in (1.0, 4.0):
        scanner = scanner_of(PhantomHospital("alder", 1, gain=gain))
        noise.append(float(reconstructed(scanner, flat, np.random.default_rng(0)).std()))
    assert noise[0] / noise[1] == pytest.approx(2, rel=0.05)
    assert 5 < noise[0] < 80


def test_hospitals_differ_in_kernel_slices_and_direction(tmp_path: Path) -> None:
    scanners = [scanner_of(PhantomHospital(f"site{n}", 1)) for n in range(30)]
    assert len({scanner.kernel for scanner in scanners}) == 4
    assert len({scanner.spacing_mm for scanner in scanners}) >= 4
    assert {scanner.descending for scanner in scanners} == {True, False}
    assert all(1.0 <= scanner.spacing_mm <= 2.25 for scanner in scanners)
    name = next(f"site{n}" for n, scanner in enumerate(scanners) if scanner.descending)
    TASK.draw_phantom(tmp_path, PhantomHospital(name, 1), 0)
    images = [dcmread(path) for path in (tmp_path / "dicom").glob("*/*.dcm")]
    images = sorted((d for d in images if d.Modality == "CT"), key=lambda d: int(d.InstanceNumber))
    heights = [float(d.ImagePositionPatient[2]) for d in images]
    assert heights == sorted(heights, reverse=True)
