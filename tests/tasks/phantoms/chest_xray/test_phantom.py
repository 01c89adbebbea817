"""Phantom chest X-rays: their geometry, their findings, and what their header says."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from client.reading.dicom import read_frame
from client.sources.acquisition import acquisition_reader
from client.sources.settings import FolderSource
from tasks.chest_xray import TASK
from tasks.phantoms.chest_xray.illness import FINDINGS, Illness, Opacity, illness_of
from tasks.phantoms.chest_xray.radiography import radiography_of, stored_values
from tasks.phantoms.chest_xray.thorax import Projection, Thorax, attenuation_of
from tasks.task import PhantomHospital

ALDER = PhantomHospital("alder", patients=12, prevalence=0.5, images_per_patient=(1, 1))
SIX = [replace(ALDER, name=name, patients=1) for name in ("alder", "birch", "cedar", "elder", "hazel", "larch")]
BUILD = Thorax(wide=158, deep=100, tall=142, seed=1)
STANDING, LYING = Projection(False, 1800, 0.0, (0.0, 0.0)), Projection(True, 1000, 0.0, (0.0, 0.0))
PLACE = np.linspace(-190, 190, 191, dtype=np.float32)
LEFT, RIGHT = slice(125, 160), slice(31, 66)  # of the patient, columns


@pytest.fixture(scope="module", params=["alder", "cedar"])
def drawn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    TASK.draw_phantom(folder, replace(ALDER, name=request.param, patients=25), 0)
    return folder


def _seen(illness: Illness, view: Projection = STANDING) -> NDArray[np.float32]:
    return attenuation_of(BUILD, illness, view, PLACE, PLACE, np.random.default_rng(0))


def test_what_lies_far_from_the_detector_is_shown_larger() -> None:
    assert STANDING.magnification(BUILD, -90) > STANDING.magnification(BUILD, 90) > 1, "the front is at the detector"
    assert LYING.magnification(BUILD, 90) > LYING.magnification(BUILD, -90) > 1
    widths = []
    for view in (STANDING, LYING):
        shade = _seen(Illness(heart=1.0), view) - _seen(Illness(heart=0.05), view)
        widths.append(int((shade > 0.5 * shade.max()).any(axis=0).sum()))
    assert widths[1] > 1.1 * widths[0], "the heart is larger in bed"


def test_findings_are_where_they_are_drawn() -> None:
    clear = _seen(Illness())
    opacity = Opacity(side=1, across=0.2, down=0.0, deep=0.0, extent_mm=25, density=0.8)
    gained = _seen(Illness((opacity,))) - clear
    assert gained[85:110, LEFT].max() > 0.5
    assert np.abs(gained[:, RIGHT]).max() < 0.01
    fluid = _seen(Illness(effusions=((-1, 50.0),))) - clear
    assert fluid[115:140, RIGHT].max() > 0.5, "in the lowest corner"
    assert np.abs(fluid[:80, RIGHT]).max() < 0.01
    veil = _seen(Illness(effusions=((-1, 50.0),)), LYING) - _seen(Illness(), LYING)
    assert veil[50:80, RIGHT].mean() > 0.05, "it spreads out behind the lung"
    collapse = _seen(Illness(collapse=(1, 0.3))) - clear
    assert collapse[50:100, 155:165].mean() < -0.02, "air at the edge"
    large = _seen(Illness(heart=1.45)) - clear
    assert large[100:125, LEFT].max() > 0.5


def test_findings_say_what_is_drawn_and_the_classes_overlap() -> None:
    assert Illness(heart=1.3, collapse=(1, 0.2)).findings() == (0, 0, 1, 1)
    assert Illness((Opacity(1, 0, 0, 0, 20, 0.8),), ((1, 30.0),)).findings() == (1, 1, 0, 0)
    assert Illness((Opacity(1, 0, 0, 0, 20, 0.2),)).findings() == (0, 0, 0, 0)
    rng = np.random.default_rng(0)
    drawn = {covid: np.array([illness_of(rng, covid).findings() for _ in range(400)]) for covid in (False, True)}
    for number, name in enumerate(FINDINGS):
        assert drawn[False][:, number].any(), name
    assert 0.1 < drawn[True][:, 0].mean() < 0.7
    assert 0.1 < drawn[False][:, 0].mean() < 0.4
    bulk = {c: sorted(illness_of(rng, c).burden for _ in range(300)) for c in (False, True)}
    assert bulk[False][-30] > bulk[True][30], "some of the others are more ill than some with COVID-19"


def test_a_hospital_has_its_own_rooms_and_the_reader_sees_bone_bright_in_all(tmp_path: Path) -> None:
    rooms = [radiography_of(hospital) for hospital in SIX]
    assert {room.plates for room in rooms} == {True, False}
    assert {room.photometric for room in rooms} == {"MONOCHROME1", "MONOCHROME2"}
    for hospital, room in zip(SIX, rooms, strict=True):
        TASK.draw_phantom(tmp_path / hospital.name, hospital, 0)
        path = tmp_path / hospital.name / "dicom" / f"{hospital.name.upper()}-0001" / "1.dcm"
        header = dcmread(path)
        assert header.Modality == ("CR" if room.plates else "DX")
        assert header.SOPClassUID.name.startswith("Computed" if room.plates else "Digital X-Ray")
        assert header.PhotometricInterpretation == room.photometric
        example = TASK.read_example(read_frame(path))[0]
        assert example[40:90, 60:68].mean() > example[40:90, 25:45].mean() + 0.1, "spine brighter than lung"


def test_views_are_told_and_a_lateral_one_is_refused(drawn: Path) -> None:
    headers = [dcmread(path, stop_before_pixels=True) for path in sorted((drawn / "dicom").glob("*/*.dcm"))]
    views = [header.ViewPosition for header in headers]
    assert {"PA", "AP"} == set(views)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=drawn / "dicom", labels=drawn / "labels.csv"
    )
    read = acquisition_reader(source, TASK)
    for header, view in zip(headers, views, strict=True):
        judgement = read(header).judgement
        assert judgement.rejected == ()
        assert ("bedside" in judgement.warned) == (view == "AP")
    headers[0].ViewPosition = "LL"
    assert "view" in read(headers[0]).judgement.rejected


def test_fewer_photons_are_noisier() -> None:
    attenuation = _seen(Illness())
    noise = []
    for exposure in (0.2, 5.0):
        room = replace(radiography_of(ALDER), exposure=exposure, photometric="MONOCHROME2", sharpening=0.0)
        one, two = (stored_values(room, attenuation, False, np.random.default_rng(seed)) for seed in (1, 2))
        noise.append(float(np.std(one.astype(float) - two)))
    assert noise[0] > 2 * noise[1] > 0


def test_some_findings_are_not_known(drawn: Path) -> None:
    with (drawn / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[3:] == list(FINDINGS) == [finding.name for finding in TASK.secondary_findings]
    told = [{row[finding] for row in rows} for finding in FINDINGS]
    assert all(values <= {"0", "1", ""} and "" in values for values in told)
    assert any(values > {""} for values in told)
