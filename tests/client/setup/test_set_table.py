"""Columns are guessed from what is in them, and files are found as people name them."""

from pathlib import Path

import pytest

from client.errors import SiteMisconfigured
from client.setup.set_table import Files, columns, guess
from client.sources.labels.rows import TextTable, read_table
from tasks.breast_ultrasound import TASK


def _set(folder: Path, files: list[str], text: str) -> tuple[TextTable, Files]:
    for name in files:
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(b"x")
    (folder / "table.csv").write_text(text, "utf-8")
    return read_table(folder / "table.csv"), Files(folder / "set")


def test_columns_are_guessed_from_their_content(tmp_path: Path) -> None:
    table, files = _set(
        tmp_path,
        ["images/a.png", "images/b.png"],
        "image_note,Case ID,Image Index,Diagnosis,fold,usage\n"
        "none,P1,a,benign,0,Training\nnone,P2,b,malignant,1,Test\n",
    )
    found: dict[str, str] = {}
    for what in ("file", "patient", "label", "split"):
        found[what] = guess(table, what, found.values(), files, TASK)
    assert found == {"file": "Image Index", "patient": "Case ID", "label": "Diagnosis", "split": "usage"}
    assert columns(table)[3].texts == ("benign", "malignant")


def test_nothing_is_guessed_where_nothing_looks_like_it(tmp_path: Path) -> None:
    table, files = _set(tmp_path, ["a.png"], "alpha,beta\n1,2\n")
    assert [guess(table, what, (), files, TASK) for what in ("file", "patient", "label", "split")] == [""] * 4


@pytest.mark.parametrize(
    ("files", "rows", "pattern"),
    [
        (["a.png", "b.png"], ["a.png,x", "b.png,y"], "{}"),
        (["a.png", "b.png"], ["a,x", "b,y"], "{}.png"),
        (["deep/er/a.nii.gz"], ["a,x"], "deep/er/{}.nii.gz"),
        (["x/a (1).png", "y/b (1).png", "y/c (1).png"], ["a (1),x", "b (1),y", "c (1),y"], "{kind}/{}.png"),
        (["img/x/1.jpg", "img/y/1.jpg"], ["1,x", "1,y"], "img/{kind}/{}.jpg"),
        (["a{1}.png"], ["a{1},x"], "{}.png"),
        (["b{r}/a.png"], ["a,x"], "b{{r}}/{}.png"),
        (["z.png"], ["a,x"], "{}"),
    ],
)
def test_the_pattern_that_finds_most_files(tmp_path: Path, files: list[str], rows: list[str], pattern: str) -> None:
    table, found = _set(tmp_path, files, "\n".join(["name,kind", *rows, ""]))
    assert found.pattern(table.rows, "name") == pattern


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(SiteMisconfigured, match="there is no file under"):
        Files(tmp_path / "set")
