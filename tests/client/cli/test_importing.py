"""A published set becomes a source by one command, and all that is wrong with it is said at once."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner, Result

from client.cli.main import app
from client.cohort.catalog import entries, report
from client.site import load
from tasks import task as tasks
from tests.client.dicom_files import write


def _import(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["import", *map(str, arguments)])


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Twenty images in folders named by their class, and a table without endings."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(20):
        kind = ("benign", "malignant", "normal")[number % 3]
        (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (140, 140), dtype=np.uint8)).save(
            tmp_path / "set" / kind / f"{number}.png"
        )
        rows.append(f"{number},case {number},{kind},{'test' if number > 16 else 'val' if number > 11 else 'train'}")
    table = tmp_path / "set" / "labels.tsv"
    table.write_text("\n".join(["img\tsubject\tdx\tsubset", *(row.replace(",", "\t") for row in rows)]), "utf-8")
    return table


def test_from_a_table_to_a_catalog(public: Path, tmp_path: Path) -> None:
    site = tmp_path / "new" / "site.yaml"
    said = ("--file", "img", "--patient", "subject", "--label", "dx", "--leave-out", "normal", "--split", "subset")
    result = _import(public, "--task", "breast_ultrasound", *said, "--name", "birch", "--site", site, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["source"]["file_pattern"] == "{dx}/{}.png"
    assert told["rows"] == {"ROWS": 20, "LABEL_LEFT_OUT": 6, "HELD_OUT": 3, "benign": 6, "malignant": 6}
    ingested = CliRunner().invoke(app, ["ingest", "--site", str(site)])
    assert ingested.exit_code == 0, ingested.output
    settings, task = load(site), tasks.get("breast_ultrasound")
    assert report(settings, task).patients == {"train": 8, "validation": 4}
    assert {len(entries(settings, task, side)) for side in ("train", "validation")} == {8, 4}


def test_what_is_missing_is_told_at_once_with_guesses(public: Path, tmp_path: Path) -> None:
    result = _import(
        public, "--task", "breast_ultrasound", "--patient", "who", "--name", "b", "--site", tmp_path / "s.yaml"
    )
    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert "--patient: there is no column 'who'" in told
    assert "--file is missing: the column of the image's file; 'img' looks like it" in told
    assert "--label is missing: the column of the label; 'dx' looks like it" in told
    assert "dx: 'benign', 'malignant', 'normal'" in told
    assert not (tmp_path / "s.yaml").exists()


def test_words_and_folders_that_are_wrong_leave_nothing_behind(public: Path, tmp_path: Path) -> None:
    said = ("--task", "breast_ultrasound", "--file", "img", "--patient", "subject", "--label", "dx", "--name", "b")
    words = _import(public, *said, "--site", tmp_path / "s.yaml")
    assert "'normal' (6, first in line 4)" in " ".join(words.stderr.split())
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    (empty / "note.txt").write_text("x")
    away = _import(public, *said, "--leave-out", "normal", "--folder", empty, "--site", tmp_path / "s.yaml")
    assert "none of the 20 files" in " ".join(away.stderr.split())
    assert (words.exit_code, away.exit_code) == (2, 2)
    assert not (tmp_path / "s.yaml").exists()


def test_derived_images_are_refused_where_patients_are_real(public: Path, tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    CliRunner().invoke(app, ["init", "--name", "real", "--site", str(site)])
    before = site.read_bytes()
    said = ("--file", "img", "--patient", "subject", "--label", "dx", "--leave-out", "normal")
    result = _import(public, "--task", "breast_ultrasound", *said, "--site", site)
    assert result.exit_code == 2
    assert "only a hospital with `simulated: true`" in " ".join(result.stderr.split())
    assert site.read_bytes() == before


def test_dicom_of_a_real_hospital_gets_a_labels_file(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    CliRunner().invoke(app, ["init", "--name", "real", "--site", str(site)])
    folder = tmp_path / "dicom"
    folder.mkdir()
    uids = [f"1.2.{number}" for number in range(3)]
    for number, uid in enumerate(uids):
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
        write(folder / f"{number}.dcm", pixels, SOPInstanceUID=uid, PatientID=f"P{number}")
    table = tmp_path / "read.csv"
    table.write_text("name;who;read as\n0;a;ill\n1;b;well\n2;c;\n", "utf-8")
    said = ("--file", "name", "--patient", "who", "--label", "read as", "--positive", "ill", "--negative", "Well")
    result = _import(table, "--task", "chest_xray", *said, "--folder", folder, "--site", site, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"] == {"ROWS": 3, "labelled": 2, "IMAGE_WITHOUT_LABEL": 1}
    labels = tmp_path / "read.labels.csv"
    assert labels.read_text("utf-8").splitlines() == ["SOPInstanceUID,label", f"{uids[0]},1", f"{uids[1]},0"]
    assert os.stat(labels).st_mode & 0o777 == 0o600
    source: dict[str, Any] = yaml.safe_load(site.read_text("utf-8"))["sources"][0]
    assert source == {
        "kind": "folder",
        "task": "chest_xray",
        "issuer": "real",
        "path": str(folder),
        "labels": str(labels),
    }
    assert "# The settings of one hospital." in site.read_text("utf-8")
