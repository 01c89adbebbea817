"""Series of phantoms: the Image Plane module says where the voxels are, partial volume is an average, and a
segmentation refers to the slices that it outlines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from client.reading.dicom import read_header
from client.reading.slices import slices_of
from client.reading.stacks import arrange
from client.reading.volume import affine_of, read_volume
from tasks.codes import Code
from tasks.phantoms.dicom_writer import uid
from tasks.phantoms.hospital import Attributes, Dependent, Recipe, fill
from tasks.phantoms.volume import averaged, outlines, slices
from tasks.task import PhantomHospital, Structure

STRUCTURES = (Structure("one", Code("SCT", "27925004", "Nodule")), Structure("two", Code("SCT", "52988006", "Lesion")))
VALUES = np.arange(5 * 6 * 7, dtype=np.uint16).reshape(5, 6, 7)
MASKS = np.random.default_rng(0).random((2, 5, 6, 7)) < 0.3


def _affine() -> Any:
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    affine[:3, 0] = np.cross(affine[:3, 2], affine[:3, 1])  # a row's direction, a column's and the slices' are a triad
    affine[:3, :3] *= (2.5, 0.8, 0.9)
    affine[:3, 3] = (-40, 12.5, 300)
    return affine


def _draw(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Attributes | Dependent]:
    common = {"SOPClassUID": CTImageStorage, "Modality": "CT", "PatientSex": "O"}
    for series in (1, 2):
        for plane in slices(VALUES[:: 1 if series == 1 else -1], _affine(), 2.0, series):
            yield common | plane
    yield outlines(MASKS, STRUCTURES, 1)


def _drawn(folder: Path) -> list[Path]:
    fill(folder, PhantomHospital("alder", 2), 0, Recipe("dots", 1, ("no", "yes"), _draw, labelled="StudyInstanceUID"))
    return sorted((folder / "dicom" / "ALDER-0001").glob("*.dcm"), key=lambda path: int(path.stem))


def test_voxels_lie_where_the_affine_says(tmp_path: Path) -> None:
    paths = _drawn(tmp_path)[:5]
    (stack,) = arrange([one for path in paths for one in slices_of(path, read_header(path))])
    assert (stack.refusal, stack.notes, stack.left_out) == (None, frozenset(), 0)
    found = affine_of(stack)
    forward = found[:3, 0] @ _affine()[:3, 0] > 0
    np.testing.assert_array_equal(read_volume(stack).values, VALUES if forward else VALUES[::-1])
    np.testing.assert_allclose(np.abs(found[:3, :3]), np.abs(_affine()[:3, :3]), atol=1e-3)


def test_a_patient_has_one_study_one_space_and_two_series(tmp_path: Path) -> None:
    datasets = [dcmread(path) for path in _drawn(tmp_path)]
    assert len(datasets) == 11
    assert len({d.StudyInstanceUID for d in datasets}) == len({d.FrameOfReferenceUID for d in datasets}) == 1
    assert len({d.SeriesInstanceUID for d in datasets}) == 3
    assert len({d.SOPInstanceUID for d in datasets}) == 11
    text = (tmp_path / "labels.csv").read_text("utf-8").splitlines()
    assert text[0] == "PatientID,StudyInstanceUID,label"
    assert len(text) == 3, "one row an examination"


def test_highdicom_finds_the_outlines_on_the_slices(tmp_path: Path) -> None:
    paths = _drawn(tmp_path)
    segmentation = hd.seg.segread(paths[-1])
    names = [dcmread(path).SOPInstanceUID for path in paths[:5]]
    found = segmentation.get_pixels_by_source_instance(source_sop_instance_uids=names)
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0) > 0, MASKS)


def test_partial_volume_is_an_average_and_gaps_are_not_seen() -> None:
    fine = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 2, 2), dtype=np.float32)
    np.testing.assert_array_equal(averaged(fine, 2, 2)[:, 0, 0], [0.5, 2.5, 4.5, 6.5])
    np.testing.assert_array_equal(averaged(fine, 3, 2)[:, 0, 0], [0.5, 3.5])
    np.testing.assert_array_equal(averaged(fine, 2, 4)[:, 0, 0], [1.5, 3.5, 5.5])


def test_a_dependent_file_sees_all_files_before_it(tmp_path: Path) -> None:
    seen: list[int] = []

    def draw(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Attributes | Dependent]:
        def refer(files: Sequence[Attributes]) -> Attributes:
            seen.append(len(files))
            return dict(files[0]) | {"SOPInstanceUID": uid("dependent", len(files))}

        yield from list(_draw(hospital, rng, positive))[:2]
        yield refer
        yield refer

    fill(tmp_path, PhantomHospital("alder", 1), 0, Recipe("dots", 1, ("no", "yes"), draw))
    assert seen == [2, 3]
    assert len((tmp_path / "labels.csv").read_text("utf-8").splitlines()) == 3, "no label for what refers to others"
