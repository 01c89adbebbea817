"""A phantom hospital's folder: complete or redone, never mixed, and never somebody else's."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.phantoms.dicom_writer import pixel_attributes
from tasks.phantoms.hospital import Described, Recipe, fill
from tasks.task import PhantomHospital

ALDER = PhantomHospital("alder", patients=6, prevalence=0.5, images_per_patient=(1, 2))


def _draw(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[dict[str, Any]]:
    least, most = hospital.images_per_patient
    for _ in range(int(rng.integers(least, most + 1))):
        pixels = rng.integers(0, 128, (4, 4), dtype=np.uint8) + np.uint8(100 * positive)
        yield pixel_attributes(pixels, 8, "MONOCHROME2") | {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1",
            "Modality": "US",
        }


RECIPE = Recipe("dots", 1, ("dark", "bright"), _draw)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_more_patients_leave_the_first_ones_as_they_were(tmp_path: Path) -> None:
    fill(tmp_path / "few", ALDER, 0, RECIPE)
    fill(tmp_path / "more", replace(ALDER, patients=8), 0, RECIPE)
    few, more = _files(tmp_path / "few" / "dicom"), _files(tmp_path / "more" / "dicom")
    assert few.items() <= more.items()
    assert len(more) > len(few)


def test_a_complete_folder_is_left_alone_and_an_interrupted_one_redone(tmp_path: Path) -> None:
    fill(tmp_path, ALDER, 0, RECIPE)
    whole, path = _files(tmp_path), tmp_path / "dicom" / "ALDER-0001" / "1.dcm"
    drawn = path.stat().st_mtime_ns
    fill(tmp_path, ALDER, 0, RECIPE)
    assert path.stat().st_mtime_ns == drawn
    (tmp_path / "labels.csv").unlink()
    path.write_bytes(b"half a file")
    fill(tmp_path, ALDER, 0, RECIPE)
    assert _files(tmp_path) == whole
    fill(tmp_path, replace(ALDER, patients=2), 0, RECIPE)
    assert {r["PatientID"] for r in _rows(tmp_path)} == {"ALDER-0001", "ALDER-0002"}
    assert len(list((tmp_path / "dicom").iterdir())) == 2


def test_files_of_somebody_else_are_not_removed(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    (tmp_path / "dicom" / "precious.dcm").write_bytes(b"")
    with pytest.raises(FileExistsError):
        fill(tmp_path, ALDER, 0, RECIPE)
    assert (tmp_path / "dicom" / "precious.dcm").exists()


def test_prevalence_is_a_chance_of_each_patient(tmp_path: Path) -> None:
    fill(tmp_path, replace(ALDER, patients=200, prevalence=0.2, images_per_patient=(1, 1)), 0, RECIPE)
    assert 20 < sum(row["label"] == "bright" for row in _rows(tmp_path)) < 60


@pytest.mark.parametrize("positives", [0, 1, 6])
def test_a_rare_finding_has_as_many_patients_as_said(tmp_path: Path, positives: int) -> None:
    some = replace(ALDER, positives=positives)
    fill(tmp_path / "one", some, 0, RECIPE)
    bright = {row["PatientID"] for row in _rows(tmp_path / "one") if row["label"] == "bright"}
    assert len(bright) == positives
    fill(tmp_path / "two", some, 1, RECIPE)
    assert len({row["PatientID"] for row in _rows(tmp_path / "two") if row["label"] == "bright"}) == positives


def test_what_a_reader_has_noted_has_columns_of_its_own(tmp_path: Path) -> None:
    def draw(hospital: PhantomHospital, rng: np.random.Generator, positive: bool) -> Iterator[Described]:
        for image in _draw(hospital, rng, positive):
            yield Described(image, (1, None))
        yield Described(next(_draw(hospital, rng, positive)))

    fill(
        tmp_path,
        replace(ALDER, patients=2, images_per_patient=(1, 1)),
        0,
        replace(RECIPE, draw_patient=draw, secondary=("a", "b")),
    )
    assert [(row["a"], row["b"]) for row in _rows(tmp_path)] == [("1", ""), ("", "")] * 2
