"""Who gets which patients: every patient belongs to one hospital, and the same seed divides the same way."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from client.setup.partition import partition
from conf.schema.federation import ManifestFederation, MedmnistFederation
from conf.schema.study import Study
from tasks import task as tasks

XRAY = tasks.get("pneumonia_xray")


def _manifest_study(folder: Path, rows: list[tuple[str, str, str]], **federation: object) -> Study:
    """A study on a manifest with columns site, patient_id and split."""
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "site", "patient_id", "split", "label"))
        writer.writerows((f"{n}.png", site, patient, split, n % 2) for n, (site, patient, split) in enumerate(rows))
    study = Study(federation=ManifestFederation(**federation))  # type: ignore[arg-type]
    study.task.name, study.data_root = XRAY.name, str(folder)
    return study


def _patients(source: dict[str, str]) -> list[str]:
    return Path(source["patients"]).read_text("utf-8").split()


def test_a_patient_seen_in_two_hospitals_is_given_wholly_to_one(tmp_path: Path) -> None:
    rows = [
        ("north", "p1", "a"),
        ("south", "p1", "a"),
        ("south", "p1", "a"),
        ("north", "p2", "a"),
        ("south", "p3", "a"),
    ]
    divided = partition(_manifest_study(tmp_path, rows), XRAY, tmp_path)
    assert {name: _patients(sources[0]) for name, sources in divided.sources.items()} == {
        "north": ["p2"],
        "south": ["p1", "p3"],
    }
    assert divided.notes[1] == "1 patients had images in several of them, and each was assigned to one."


def test_only_the_wanted_rows_make_hospitals(tmp_path: Path) -> None:
    rows = [("north", "p1", "a"), ("north", "", "a"), ("south", "p2", "b")]
    divided = partition(_manifest_study(tmp_path, rows, where={"split": ["a"]}), XRAY, tmp_path)
    assert {name: _patients(sources[0]) for name, sources in divided.sources.items()} == {"north": ["p1"]}


@pytest.mark.parametrize("site", ["../north", "pooled", "", "a hospital"])
def test_a_value_that_cannot_name_a_hospital_is_refused(tmp_path: Path, site: str) -> None:
    with pytest.raises(ValueError, match="not usable as hospital names"):
        partition(_manifest_study(tmp_path, [(site, "p1", "a")]), XRAY, tmp_path)


def test_a_cap_for_a_hospital_that_is_not_there_is_refused(tmp_path: Path) -> None:
    study = _manifest_study(tmp_path, [("north", "p1", "a")], max_training_patients={"nort": 5})
    with pytest.raises(ValueError, match=r"\['nort'\]; hospitals are \['north'\]"):
        partition(study, XRAY, tmp_path)


def test_without_a_column_patients_are_dealt_out_to_blocks(tmp_path: Path) -> None:
    rows = [("", f"p{n % 40}", "a") for n in range(60)]
    divided = partition(_manifest_study(tmp_path, rows, site_column="absent", blocks=3), XRAY, tmp_path)
    assert sorted(divided.sources) == ["block0", "block1", "block2"]
    patients = [_patients(sources[0]) for sources in divided.sources.values()]
    assert sorted(p for some in patients for p in some) == sorted({patient for _, patient, _ in rows})
    assert min(map(len, patients)) > 5
    assert divided.notes == ["Hospitals are simulated: the patients of one set of images distributed over 3."]


def test_columns_of_findings_and_masks_reach_the_sources(tmp_path: Path) -> None:
    study = _manifest_study(tmp_path, [("north", "p1", "a")], mask_columns={"lesion": "split"})
    (source,) = partition(study, XRAY, tmp_path).sources["north"]
    assert source["mask_columns"] == {"lesion": "split"}
    assert "finding_columns" not in source


def _medmnist_study(folder: Path, sizes: dict[str, int], seed: int = 1, skew: float = 1.0) -> Study:
    labels = np.arange(60).reshape(-1, 1) % 4 == 0
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}
    arrays = {f"{part}_labels": labels[where].astype(np.uint8) for part, where in parts.items()}
    arrays |= {f"{part}_images": np.zeros((len(labels[where]), 4, 4), np.uint8) for part, where in parts.items()}
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    federation = MedmnistFederation(archive="set.npz", sizes=sizes, label_skew=skew)
    study = Study(federation=federation, data_root=str(folder), seed=seed)
    study.task.name = XRAY.name
    return study


def _indices(folder: Path, study: Study) -> dict[str, list[int]]:
    divided = partition(study, XRAY, folder)
    return {n: [int(i) for i in Path(s[0]["indices"]).read_text().split()] for n, s in divided.sources.items()}


def test_no_image_of_an_archive_is_given_twice(tmp_path: Path) -> None:
    study = _medmnist_study(tmp_path, {"a": 20, "b": 10, "c": 5})
    given = _indices(tmp_path, study)
    everything = [index for indices in given.values() for index in indices]
    assert len(everything) == len(set(everything))
    assert _indices(tmp_path, study) == given
    study.seed = 2
    assert _indices(tmp_path, study) != given


def test_a_hospital_that_gets_fewer_than_it_should_is_noted(tmp_path: Path) -> None:
    divided = partition(_medmnist_study(tmp_path, {"a": 50, "b": 50}, skew=100), XRAY, tmp_path)
    sizes = {name: len(Path(s[0]["indices"]).read_text().split()) for name, s in divided.sources.items()}
    short = [name for name, size in sizes.items() if size < 50]
    assert "b" in short
    for name in short:
        assert any(note.startswith(f"{name} has {sizes[name]} patients, not 50") for note in divided.notes)
