"""Phantom lungs: stills and clips as their own kinds of DICOM, and signs that mean what a reader takes them for."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from client.reading.dicom import DicomImage
from tasks.lung_ultrasound import TASK
from tasks.phantoms.lung_ultrasound.lung import FINDINGS, ScanPlane, echo_of, lung_of
from tasks.phantoms.lung_ultrasound.probe import probe_of
from tasks.phantoms.probe import on_screen
from tasks.task import PhantomHospital

CONVEX = PhantomHospital("alder", patients=5, prevalence=0.5, frequency_mhz=3.5, images_per_patient=(2, 2))
LINEAR = replace(CONVEX, name="cedar", frequency_mhz=9.0)
CLEAR = ScanPlane(b_lines=(), roughness_mm=0.0, a_lines_db=15.0, sliding_mm=5.0, consolidation=None, effusion=None)


def test_stills_and_clips_say_which_they_are(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, CONVEX, 0)
    headers = [dcmread(path) for path in (tmp_path / "dicom").glob("*/*.dcm")]
    clips = [header for header in headers if "NumberOfFrames" in header]
    assert 0 < len(clips) < len(headers)
    for header in headers:
        assert header.SequenceOfUltrasoundRegions[0].TransducerFrequency == 3500
        assert (header.BodyPartExamined, header.Modality) == ("LUNG", "US")
        assert header.SOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1" if header not in clips else True
    for header in clips:
        assert header.SOPClassUID == header.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"
        assert header.FrameIncrementPointer == 0x00181063
        assert header.FrameTime > 0
        assert header.NumberOfFrames > 1
        assert len(header.PixelData) in (size := header.NumberOfFrames * header.Rows * header.Columns, size + 1)


def test_the_lung_slides_in_a_clip_and_the_chest_wall_does_not(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, replace(LINEAR, prevalence=0.0, patients=8), 0)
    wall, lung = [], []
    for path in (tmp_path / "dicom").glob("*/*.dcm"):
        with DicomImage(path) as image:
            if image.form.frames < 2:
                continue
            left, top, right, bottom = image.picture(0).regions[0]
            first, second = (image.picture(n).pixels[top:bottom, left:right] for n in (0, image.form.frames // 2))
            rows = len(first)
            wall.append(_likeness(first[: rows // 8], second[: rows // 8]))
            lung.append(_likeness(first[rows * 2 // 3 :], second[rows * 2 // 3 :]))
    assert len(wall) > 2
    assert np.mean(wall) > np.mean(lung) + 0.2


def _likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.corrcoef(_fine(one).ravel(), _fine(other).ravel())[0, 1])


def _fine(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Without what both have in common in each row."""
    return np.asarray(image - image.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("hospital", [CONVEX, LINEAR])
def test_the_screen_shows_what_the_probe_sees(hospital: PhantomHospital) -> None:
    probe = probe_of(hospital)
    white = on_screen(probe, np.ones((probe.samples, probe.beams), dtype=np.float32))
    left, top, right, bottom = probe.region
    assert white.shape == (bottom - top, right - left)
    height_mm, width_mm = probe.size_mm
    assert height_mm / len(white) == pytest.approx(width_mm / white.shape[1], rel=0.02), "pixels are square"
    if hospital is LINEAR:
        assert (white == 255).all()
    else:
        assert set(np.unique(white)) == {0, 255}
        assert white[-1, white.shape[1] // 2] == 255
        assert not white[0, [0, -1]].any()
        seen_mm2 = (white == 255).mean() * height_mm * width_mm
        sector = probe.opening / 2 * ((probe.radius_mm + probe.depth_mm) ** 2 - probe.radius_mm**2)
        assert seen_mm2 == pytest.approx(sector, rel=0.02)


def _echo(view: ScanPlane) -> NDArray[np.float32]:
    """Echo behind a flat pleura at 20 mm depth, 0.5 mm a sample, 0.5 mm a beam."""
    z_mm, x_mm = np.arange(0, 100, 0.5, dtype=np.float32), np.arange(-20, 20, 0.5, dtype=np.float32)
    pleura = np.full_like(x_mm, 20.0)
    return echo_of(view, np.random.default_rng(0), x_mm, z_mm[:, None] - pleura, pleura, pleura)


def test_a_lines_repeat_the_pleura_at_multiples_of_its_depth() -> None:
    profile = _echo(CLEAR).mean(axis=1)
    for order in (2, 3):
        around = profile[order * 40 - 10 : order * 40 + 11]
        assert abs(int(np.argmax(around)) - 10) <= 1
    assert profile[80] > profile[120] > profile[100]


def test_a_b_line_reaches_the_lower_edge_and_wipes_out_a_lines() -> None:
    echo, without = _echo(replace(CLEAR, b_lines=((0.0, 2.0, 16.0),))), _echo(CLEAR)
    gained = (echo - without)[45:]
    assert gained[:, 40].min() > -3
    assert gained[-1, 40] > 10
    assert np.abs(gained[:, :10]).max() < 1
    beside = echo[76:85, 10].max() - echo[95:105, 10].mean()
    behind = echo[76:85, 40].max() - echo[95:105, 40].mean()
    assert behind < beside / 2


def test_a_consolidation_looks_like_tissue_and_ends_below() -> None:
    gained = _echo(replace(CLEAR, consolidation=(0.0, 12.0, 15.0))) - _echo(CLEAR)
    assert gained[44:60, 38:42].mean() > 3
    assert np.abs(gained[110:, 40]).max() < 1
    assert np.abs(gained[44:60, :10]).max() < 1


def test_an_effusion_is_a_dark_layer_that_pushes_the_lung_away() -> None:
    wet = replace(CLEAR, effusion=(10.0, 10.0))
    echo = _echo(wet)
    assert echo[42:58].max() < -40, "fluid gives no echo"
    assert abs(int(np.argmax(echo[50:75].mean(axis=1))) - 10) <= 1, "the lung's surface lies 10 mm deeper"
    assert echo[78:83].mean() - echo[95:105].mean() < 6, "no A-line of the pleura"
    half = _echo(replace(CLEAR, effusion=(10.0, -10.0)))
    assert half[43, 5] < -40
    np.testing.assert_allclose(half[60:, 60:], _echo(CLEAR)[60:, 60:], atol=1e-4)


def test_findings_say_what_is_drawn() -> None:
    b_lines = tuple((float(x), 2.0, 16.0) for x in (-10, 0, 10))
    shown = {
        (0, 0, 0, 1, 0): CLEAR,
        (1, 0, 0, 0, 0): replace(CLEAR, b_lines=b_lines),
        (0, 1, 0, 1, 0): replace(CLEAR, b_lines=b_lines[:2], consolidation=(0.0, 12.0, 15.0)),
        (0, 0, 1, 0, 1): replace(CLEAR, effusion=(3.0, 9.0), roughness_mm=1.0),
        (0, 0, 0, 0, 0): replace(CLEAR, a_lines_db=4.0),
    }
    assert [view.findings() for view in shown.values()] == list(shown)
    assert tuple(finding.name for finding in TASK.secondary_findings) == FINDINGS


def test_a_hospital_does_not_know_all_findings(tmp_path: Path) -> None:
    columns = {}
    for hospital in (CONVEX, LINEAR):
        TASK.draw_phantom(tmp_path / hospital.name, replace(hospital, patients=12), 0)
        with (tmp_path / hospital.name / "labels.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns[hospital.name] = {name: {row[name] for row in rows} for name in FINDINGS}
    for told in columns.values():
        assert told["b_lines"] == {"0", "1", ""}, "of some files nobody has noted it"
    unknown = {name: {finding for finding, values in told.items() if values == {""}} for name, told in columns.items()}
    assert any(unknown.values())
    assert unknown["alder"] != unknown["cedar"], "hospitals note different findings"


def test_signs_overlap_between_healthy_and_diseased_lungs() -> None:
    rng = np.random.default_rng(0)
    healthy, ill = ([lung_of(rng, diseased) for _ in range(200)] for diseased in (False, True))
    for told in (lambda lung: lung.b_lines, lambda lung: lung.roughness_mm, lambda lung: -lung.a_lines_db):
        one, other = sorted(map(told, healthy)), sorted(map(told, ill))
        assert other[100] > one[100], "most ill lungs show more"
        assert one[-10] > other[10], "and some healthy ones as much as some ill ones"
