"""Phantom hearts: what a cardiologist would find in them, and outlines that lie where it is drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from client.reading.segments import is_segmentation
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.cardiac_ultrasound import TASK
from tasks.cardiac_ultrasound.example import read_masks
from tasks.phantoms.cardiac_ultrasound.heart import Heart, anatomy_of, heart_of
from tasks.phantoms.cardiac_ultrasound.scanner import mirrored, probe_of
from tasks.phantoms.probe import beam_places_mm, on_screen, pixel_places_mm
from tasks.task import PhantomHospital

ALDER = PhantomHospital("alder", patients=6, prevalence=0.5, images_per_patient=(2, 2))
HEART = Heart(
    length=82,
    width=22,
    wall=9,
    atrium=(20, 22),
    tilt=0.0,
    apex=(0, 25),
    contraction=0.2,
    right=0.8,
    right_width=17,
    bend=0.0,
)
X, Z = np.arange(-80, 80, 0.5, dtype=np.float32)[None, :], np.arange(0, 160, 0.5, dtype=np.float32)[:, None]


def _area_mm2(field: NDArray[np.float32]) -> float:
    return float(field.sum()) / 4


def test_a_systole_is_smaller_and_its_wall_thicker() -> None:
    diastole, systole = (anatomy_of(HEART, phase, X, Z) for phase in (False, True))
    assert _area_mm2(systole.left_ventricle) < 0.8 * _area_mm2(diastole.left_ventricle)
    assert _area_mm2(systole.left_atrium) > _area_mm2(diastole.left_atrium), "the atrium fills meanwhile"
    row = (25 + 40) * 2
    assert systole.myocardium[row].sum() > diastole.myocardium[row].sum()


def test_structures_touch_and_do_not_overlap() -> None:
    for phase in (False, True):
        there = anatomy_of(HEART, phase, X, Z)
        masks = np.stack([there.left_ventricle, there.myocardium, there.left_atrium, there.right]) > 0.5
        assert masks.sum(axis=0).max() == 1
        rows = [np.flatnonzero(mask.any(axis=1)) for mask in masks]
        assert rows[1][0] < rows[0][0], "muscle around the apex"
        assert 0 < rows[2][0] - rows[0][-1] < 15, "the atrium begins behind the valve"
        base = rows[0][-1]
        columns = np.flatnonzero(masks[:2, base - 4].any(axis=0))
        assert masks[0, base - 4, columns[len(columns) // 2]], "the muscle is open at the base"


def test_the_right_heart_lies_left_of_the_septum_and_only_where_the_plane_shows_it() -> None:
    right = anatomy_of(HEART, False, X, Z).right > 0.5
    assert right.any()
    assert not right[:, X[0] > -15].any()
    assert not anatomy_of(replace(HEART, right=0.0), False, X, Z).right.any()
    rng = np.random.default_rng(0)
    shown = {four: sorted(heart_of(rng, four).right for _ in range(300)) for four in (False, True)}
    assert shown[True][150] > 0.4 > shown[False][150]
    assert shown[False][-15] > shown[True][15], "no reader can be right about every patient"


def test_what_is_drawn_on_beams_is_outlined_on_pixels() -> None:
    probe = probe_of(ALDER)
    beams, pixels = beam_places_mm(probe), pixel_places_mm(probe)
    drawn = on_screen(probe, anatomy_of(HEART, False, *beams).left_ventricle) > 127
    outlined = (anatomy_of(HEART, False, *pixels[:2]).left_ventricle > 0.5) & pixels[2]
    assert (drawn & outlined).sum() / (drawn | outlined).sum() > 0.97


def test_a_patient_has_one_segmentation_of_all_images(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, ALDER, 0)
    for folder in (tmp_path / "dicom").iterdir():
        files = {path: dcmread(path) for path in folder.iterdir()}
        segmentations = [path for path, file in files.items() if is_segmentation(file)]
        images = [file for path, file in files.items() if path not in segmentations]
        assert {file.ImageComments for file in images} == {"END DIASTOLE", "END SYSTOLE"}
        (path,) = segmentations
        read = hd.seg.segread(path)
        assert [read.get_segment_description(n).segmented_property_type.value for n in read.segment_numbers] == [
            structure.code.value for structure in TASK.structures
        ]
        masks = read.get_pixels_by_source_instance([file.SOPInstanceUID for file in images])
        assert masks.any(axis=(1, 2)).all(), "each structure on each image"


def test_cavities_are_dark_and_muscle_is_bright(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, replace(ALDER, patients=10), 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=tmp_path / "dicom", labels=tmp_path / "labels.csv"
    )
    listing = list_folder(source, TASK, frozenset())
    assert not listing.left_out
    for record in listing.records:
        assert record.read_masks is not None
        picture = replace(record.read(), masks=record.read_masks())
        example, (cavity, muscle, atrium) = TASK.read_example(picture)[0], read_masks(picture)
        assert cavity.sum() > 200
        assert example[muscle].mean() > 1.3 * example[cavity].mean()
        assert atrium.any()
        assert not (cavity & muscle).any()


def test_some_laboratories_show_the_left_ventricle_on_the_left(tmp_path: Path) -> None:
    names = [f"lab{number}" for number in range(40)]
    assert 3 < sum(mirrored(PhantomHospital(name, 1)) for name in names) < 20
