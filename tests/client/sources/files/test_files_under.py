"""What lies in a source's folder and is no file, or no image, has a word of its own."""

import gzip
import io
import os
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from client.errors import EmptySource
from client.sources.files.files_under import files_under
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.chest_xray import TASK


def _walked(folder: Path) -> tuple[list[str], Counter[str]]:
    left_out: Counter[str] = Counter()
    found = files_under(folder, lambda path, reason: left_out.update([reason]))
    return [path.relative_to(folder).as_posix() for path in found], left_out


def test_links_pipes_and_folders_that_may_not_be_read_are_counted(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "a", tmp_path / "elsewhere"
    for path in (folder / "b", elsewhere):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"x")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nothing")
    (folder / "to-file").symlink_to(elsewhere / "file")
    os.mkfifo(folder / "pipe")
    assert _walked(folder) == (["b/file", "to-file"], {"LINKED_FOLDER": 2, "FILE_ABSENT": 1, "NOT_A_FILE": 1})


def test_a_folder_that_may_not_be_read_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "file").write_bytes(b"x")
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> object:  # root may read everything, and tests may run as root
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert _walked(tmp_path) == (["open/file"], {"UNREADABLE_FOLDER": 1})


def test_packed_files_are_named_and_a_folder_of_nothing_usable_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("x", "x")
    (tmp_path / "b.dcm.gz").write_bytes(gzip.compress(b"x"))
    with tarfile.open(tmp_path / "c.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    (tmp_path / "d.txt").write_text("hello")
    labels = tmp_path.parent / f"{tmp_path.name}.csv"
    labels.write_text("PatientID,label\nA,1\n")
    source = FolderSource(kind="folder", task=TASK.name, issuer="x", path=tmp_path, labels=labels)
    with pytest.raises(EmptySource, match=r"cannot be used \(NOT_DICOM 1, PACKED_FILE 3\)") as refusal:
        list_folder(source, TASK, frozenset())
    assert refusal.value.left_out == {"NOT_DICOM": 1, "PACKED_FILE": 3}
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(EmptySource, match="is the volume mounted") as refusal:
        list_folder(source, TASK, frozenset())
    assert refusal.value.left_out == {}
