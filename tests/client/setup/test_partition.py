"""Who gets which patients: every patient belongs to one hospital, and the same seed divides the same way."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from client.setup.partition import partition
from conf.schema.federation import ManifestFederation
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
