"""`conf/federation/README.md` followed: pictures and a table of one's own, by the command that stands there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from conf import load
from server import api, command_line
from server.__main__ import client_app, provision_hospitals
from tests.federation.embedded import TINY

PAGE = (load.FOLDER / "federation" / "README.md").read_text("utf-8")
SMALL = [word for word in TINY if not word.startswith(("experiment", "federation.hospitals"))]


def words_of_the_page() -> list[str]:
    block = re.search(r"```\n(consilium .*?)```", PAGE, re.DOTALL)
    assert block is not None
    return shlex.split(block[1].replace("\\\n", " "))[1:]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page has, with more rows: forty-two patients, whose names have a space, of three diagnoses."""
    folder = tmp_path / "my_images"
    folder.mkdir()
    header = re.search(r"```\n(image,.*)\n", PAGE)
    assert header is not None
    rng, lines = np.random.default_rng(0), [header[1]]
    for number in range(42):
        kind = ("malignant", "benign", "normal")[number % 3]
        picture = rng.integers(0, 120 + 100 * (kind == "malignant"), (140, 140), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
        lines.append(f"{number}.png,case {number},{kind}")
    (folder / "labels.csv").write_text("\n".join(lines), "utf-8")
    monkeypatch.chdir(tmp_path)
    return folder


def test_the_pages_command_is_a_study(images: Path) -> None:
    more = ["federation.rounds=1", "evaluation.arms=[]", "federation.min_patients=2"]
    found = api.run(api.configure(*words_of_the_page(), *SMALL, *more))
    assert set(found.to_frame()["hospital"]) == {"block0", "block1", "block2"}
    assert any("one set of images distributed over 3" in note for note in found.results.notes)
    assert sum(len(path.read_text().splitlines()) for path in Path("outputs").rglob("*.patients.txt")) == 42


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"data_root": "nowhere"}, "data_root=nowhere: there is no such folder; set data_root=FOLDER"),
        ({"federation.table": "list.csv"}, "data_root=my_images: list.csv is not in that folder; it has labels.csv"),
        (
            {"federation.file_column": "file", "federation.label_column": "label", "federation.patient_column": "id"},
            "federation.file_column=file, federation.patient_column=id, federation.label_column=label: labels.csv has "
            "no such column; its columns are image, case, diagnosis",
        ),
        ({"federation.blocks": "0"}, "federation.site_column=site: labels.csv has no such column"),
        ({"federation.blocks": "0", "federation.site_column": "case"}, "not usable as hospital names"),
        ({"federation.left_out_labels": "[]"}, "normal"),
    ],
    ids=["folder", "table", "columns", "no site", "names with spaces", "a word without meaning"],
)
def test_what_is_wrong_is_one_sentence_exit_code_2_and_leaves_no_study_behind(
    images: Path,
    changed: dict[str, Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    GlobalHydra.instance().clear()
    said = dict(word.split("=", 1) for word in words_of_the_page()) | changed
    monkeypatch.setattr(sys, "argv", ["consilium", *(f"{key}={value}" for key, value in said.items())])
    with pytest.raises(SystemExit) as caught:
        command_line.main(provision_hospitals, client_app)
    shown = capsys.readouterr().out
    assert caught.value.code == 2
    assert told in shown
    assert "Traceback" not in shown
    assert list(Path("outputs/studies").iterdir()) == []
