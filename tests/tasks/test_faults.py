"""What goes wrong outside is told in one sentence with what to do; nobody sees a traceback who has not asked for it."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from pydantic import BaseModel, Field, ValidationError

from tasks import faults


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOENT, "there is no such file"),
        (errno.EACCES, "change its owner or mode"),
        (errno.EISDIR, "name a file"),
        (errno.ENOTDIR, "name another path"),
        (errno.ENAMETOOLONG, "name another path"),
        (errno.EROFS, "another disk"),
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
    ],
)
def test_what_the_system_refuses_has_a_remedy(number: int, told: str) -> None:
    said = faults.of_system(OSError(number, os.strerror(number), "there"))
    assert said.startswith("there: ")
    assert told in said
    assert "Errno" not in said


def test_what_has_no_words_of_ours_keeps_those_of_the_system() -> None:
    assert faults.of_system(OSError(errno.EDOM, "Out of domain")) == "Out of domain"
    assert faults.of_system(OSError("plain")) == "plain"
    assert faults.of_system(OSError(errno.ENOENT, "x", b"\xff")).startswith("\udcff: ")


class Settings(BaseModel):
    number: int = 1
    share: float = Field(default=0.5, gt=0, lt=1)
    sure: bool = True
    name: str = Field(default="x", pattern=r"^[A-Za-z0-9.-]+:\d{1,5}$")
    several: list[str] = Field(default=["a"], min_length=1)


class Needed(BaseModel):
    a: int
    b: int
    c: int


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"number": "three"}, "number: must be a whole number, not 'three'"),
        ({"number": 1.5}, "number: must be a whole number, not 1.5"),
        ({"number": None}, "number: must be a whole number, not nothing"),
        ({"share": "0,3"}, "share: must be a number, not '0,3'"),
        ({"share": 2}, "share: must be less than 1, not 2"),
        ({"share": -1}, "share: must be greater than 0, not -1"),
        ({"sure": "perhaps"}, "sure: must be true or false, not 'perhaps'"),
        ({"name": "https://x"}, "name: must be HOST:PORT, such as federation.example.org:8443, not 'https://x'"),
        ({"several": []}, "several: must have at least 1 entries"),
        ({"several": 3}, "several: must be a list, not 3"),
        ({"name": 3}, "name: must be text, not 3; put it in quotes"),
        (3, "must be NAME: VALUE pairs, not 3"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(values: object, told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(values)
    assert faults.of_values(caught.value) == told


def test_what_is_missing_is_told_together() -> None:
    with pytest.raises(ValidationError) as caught:
        Needed.model_validate({"c": "x"})
    assert faults.of_values(caught.value) == "c: must be a whole number, not 'x'; a, b are missing"


def test_a_database_that_cannot_be_used_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(b"x" * 4096)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        sqlite3.connect(tmp_path / "damaged").execute("SELECT * FROM sqlite_master")
    assert "it is damaged; restore it" in faults.of_database(caught.value)
    with pytest.raises(sqlite3.OperationalError) as unopened:
        sqlite3.connect(tmp_path)
    assert "it cannot be opened" in faults.of_database(unopened.value)


def test_only_so_many_faults_are_listed() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"number": "a", "share": "b", "sure": "c"})
    assert faults.of_values(caught.value, 1) == "number: must be a whole number, not 'a'; and 2 more"


def test_who_interrupts_sees_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, faults.told("consilium"):
        raise KeyboardInterrupt
    assert (ended.value.code, capsys.readouterr().err) == (faults.INTERRUPTED, "Interrupted.\n")


def test_a_defect_is_a_sentence_and_its_place_is_for_who_asks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for asked in (False, True):
        if asked:
            monkeypatch.setenv(faults.SHOW, "1")
        with pytest.raises(SystemExit) as ended, faults.told("consilium-site"):
            (tmp_path / "x").read_text()
        said = capsys.readouterr().err
        assert ended.value.code == faults.UNFORESEEN
        assert "consilium-site has met something that it did not foresee (FileNotFoundError" in said
        assert ("Traceback" in said) is asked
