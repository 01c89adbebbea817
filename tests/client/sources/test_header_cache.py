"""Headers of unchanged files are not read again, and who has the cache without the key reads none of it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.pixels.refusal import UnreadableDicom
from client.reading.contract import NOTHING_DECLARED, Declared
from client.sources import headers
from client.sources.acquisition import reader_under
from client.sources.header_cache import FILE, HeaderCache, opened
from client.sources.headers import FileHeader, Known, read_headers
from tasks import task as tasks
from tests.client.dicom_files import write

KEY, OTHER = b"k" * 32, b"o" * 32
XRAY = tasks.get("chest_xray")
READER = reader_under(NOTHING_DECLARED, XRAY)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(5):
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
        write(folder / f"{number}.dcm", pixels, PatientID=f"Müller-{number}", SOPInstanceUID=f"1.2.{number}")
    (folder / "9.txt").write_text("no image")
    return sorted(folder.iterdir())


def _seen(cache: HeaderCache, files: list[Path], scope: str = "a") -> dict[str, str]:
    answers = read_headers(files, READER, known=Known(cache, scope))
    return {
        path.name: answer.texts["PatientID"] if isinstance(answer, FileHeader) else str(answer.reason)
        for path, answer in answers
    }


def _nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(paths: list[Path], *more: object) -> object:
        assert not paths, f"{paths} would be read"
        return iter(())

    monkeypatch.setattr(headers, "_read", read)


def test_unchanged_files_are_not_opened_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        first = _seen(cache, files)
        assert first == {f"{n}.dcm": f"Müller-{n}" for n in range(5)} | {"9.txt": "NOT_DICOM"}
        plain = list(read_headers(files, READER))
        _nobody_reads(monkeypatch)
        assert _seen(cache, files) == first
        known = list(read_headers(files, READER, known=Known(cache, "a")))
    for (path, one), (same, other) in zip(plain, known, strict=True):
        assert path == same
        assert str(one) == str(other) if isinstance(one, UnreadableDicom) else one == other


def test_a_changed_file_another_way_of_reading_and_another_key_are_read_anew(files: list[Path], tmp_path: Path) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        before = _seen(cache, files)
        write(files[0], np.arange(64, dtype=np.uint16).reshape(8, 8), PatientID="Other", SOPInstanceUID="1.2.0")
        os.utime(files[0], ns=(1, 1))
        assert _seen(cache, files) == before | {"0.dcm": "Other"}
        organ = reader_under(Declared(organ="chest"), XRAY)
        (_, plain), (_, declared) = (
            next(read_headers(files, READER)),
            next(read_headers(files, organ, known=Known(cache, "a"))),
        )
        assert isinstance(plain, FileHeader)
        assert isinstance(declared, FileHeader)
        assert plain.acquisition != declared.acquisition
    with opened(tmp_path / "catalog", OTHER) as cache:
        assert [text for _, text in cache.get(files, "x")] == [None] * len(files)


def test_what_a_source_no_longer_has_is_forgotten_and_other_sources_stay(files: list[Path], tmp_path: Path) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        _seen(cache, files[:3], "a")
        _seen(cache, files[3:], "b")
        _seen(cache, files[:1], "a")
    rows = sqlite3.connect(tmp_path / "catalog" / FILE).execute("SELECT count(*) FROM headers").fetchone()[0]
    assert rows == 1 + len(files[3:])


def test_the_file_names_nobody_and_only_its_owner_may_read_it(files: list[Path], tmp_path: Path) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        _seen(cache, files)
    for path in (tmp_path / "catalog").iterdir():
        content = path.read_bytes()
        assert "Müller".encode() not in content
        assert b"0.dcm" not in content
        assert path.stat().st_mode & 0o077 == 0


def test_a_row_that_was_changed_or_moved_counts_as_unknown(files: list[Path], tmp_path: Path) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        (one, _), (other, _) = cache.get(files[:2], "x")
        cache.put("a", [(one, "first"), (other, "second")])
        assert [text for _, text in cache.get(files[:2], "x")] == ["first", "second"]
        with sqlite3.connect(tmp_path / "catalog" / FILE) as database:
            database.execute("UPDATE headers SET sealed = (SELECT sealed FROM headers WHERE name = ?)", (one,))
        assert [text for _, text in cache.get(files[:2], "x")] == ["first", None]


def test_a_damaged_cache_is_made_again(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / FILE).write_bytes(b"no database" * 1000)
    with opened(tmp_path / "catalog", KEY) as cache:
        assert len(_seen(cache, files)) == len(files)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.text(max_size=200), st.text(max_size=20))
def test_any_text_comes_back_whole(tmp_path: Path, text: str, how: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with opened(tmp_path / "catalog", KEY) as cache:
        ((name, _),) = cache.get([path], how)
        cache.put("a", [(name, text)])
        assert cache.get([path], how) == [(name, text)]


def test_a_file_that_has_gone_is_neither_kept_nor_found(tmp_path: Path) -> None:
    with opened(tmp_path / "catalog", KEY) as cache:
        assert cache.get([tmp_path / "gone"], "x") == [(b"", None)]
        cache.put("a", [(b"", "text")])
        assert cache.get([tmp_path / "gone"], "x") == [(b"", None)]
