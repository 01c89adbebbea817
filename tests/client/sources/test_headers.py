"""Headers read elsewhere: the same as here, in order, and what is made to kill its reader costs itself only."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.contract import NOTHING_DECLARED
from client.reading.dicom import read_header
from client.reading.slices import slices_of
from client.sources import headers
from client.sources.acquisition import reader_under
from client.sources.headers import FileHeader, plain_headers, read_headers, same_pixels
from tasks import task as tasks
from tests.client.dicom_files import bundled, write, write_compressed

CT = reader_under(NOTHING_DECLARED, tasks.get("lung_ct"))
RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def _one(path: Path) -> FileHeader:
    ((found, header),) = read_headers([path], CT, in_space=True)
    assert found == path
    assert isinstance(header, FileHeader)
    return header


def _reasons(paths: list[Path]) -> list[Reason | None]:
    found = [header for _, header in plain_headers(paths)]
    return [header.reason if isinstance(header, UnreadableDicom) else None for header in found]


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "rtdose.dcm", "eCT_Supplemental.dcm"])
def test_what_comes_back_is_what_this_process_would_read(name: str) -> None:
    path = bundled(name)
    here, there = read_header(path), _one(path)
    assert there.acquisition == CT(here)
    assert there.slices == tuple(slices_of(path, here))
    assert there.size == (here.Rows, here.Columns)
    assert there.frames == int(here.get("NumberOfFrames", 1))
    assert there.texts["SOPInstanceUID"] == here.SOPInstanceUID
    assert there.texts["PatientID"] == str(here.get("PatientID", "")).strip()
    assert len(there.judgements) in (1, there.frames)


def test_many_come_in_their_order_whatever_is_among_them(tmp_path: Path) -> None:
    paths = []
    for number in range(50):
        path = write(tmp_path / f"{number:02}.dcm", RAMP, SOPInstanceUID=f"1.2.{number}")
        if number % 7 == 3:
            path.write_bytes(b"no image")
        paths.append(path)
    found = list(plain_headers(paths))
    assert [path for path, _ in found] == paths
    for number, (_, header) in enumerate(found):
        if number % 7 == 3:
            assert isinstance(header, UnreadableDicom)
            assert header.reason is Reason.NOT_DICOM
        else:
            assert isinstance(header, FileHeader)
            assert header.texts["SOPInstanceUID"] == f"1.2.{number}"


def test_names_that_are_no_text_arrive(tmp_path: Path) -> None:
    path = write(tmp_path / os.fsdecode(b"\xff\xe4.dcm"), RAMP, PatientID="A 1")
    assert _one(path).texts["PatientID"] == "A 1"


def test_a_bomb_a_pipe_and_a_nest_cost_themselves_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bomb inflates in the process that may not take so much; the pipe hangs it until it is killed."""
    limits = headers.DecoderLimits(time_limit_s=3.0, memory_mb=200)
    processes = headers.LimitedProcesses("client.sources.headers", limits, 2)
    monkeypatch.setattr(headers, "_PROCESSES", processes)
    good = [write(tmp_path / f"{n}.dcm", RAMP, SOPInstanceUID=f"1.2.{n}") for n in range(3)]
    os.mkfifo(tmp_path / "pipe.dcm")
    paths = [good[0], _bomb(tmp_path), good[1], tmp_path / "pipe.dcm", _nest(tmp_path), good[2]]
    try:
        reasons = _reasons(paths)
    finally:
        processes.stop()
    assert [reasons[n] for n in (0, 2, 5)] == [None] * 3
    assert reasons[1] in (Reason.TOO_LARGE, Reason.MEMORY_LIMIT)
    assert reasons[3] is Reason.TIME_LIMIT
    assert reasons[4] is Reason.IMPLAUSIBLE_HEADER


def _bomb(folder: Path) -> Path:
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    path = write(folder / "bomb.dcm", RAMP)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    bomb = b"".join(stream.compress(bytes(1 << 24)) for _ in range(30)) + stream.flush()
    meta = content[132:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"\x10\x00UI\x14\x00", b"\x10\x00UI\x16\x00")
    path.write_bytes(content[:132] + meta[:8] + (len(meta) - 12).to_bytes(4, "little") + meta[12:] + bomb)
    return path


def _nest(folder: Path) -> Path:
    opened = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = write(folder / "nest.dcm", RAMP)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:start] + opened * 20_000 + content[start:])
    return path


def test_equal_pixels_are_equal_however_they_are_encoded(tmp_path: Path) -> None:
    native = write(tmp_path / "a.dcm", RAMP, SOPInstanceUID="1.1")
    coded = write_compressed(tmp_path / "b.dcm", [RAMP], RLELossless, SOPInstanceUID="1.2")
    other = write(tmp_path / "c.dcm", RAMP + 1, SOPInstanceUID="1.3")
    cut = tmp_path / "d.dcm"
    cut.write_bytes(native.read_bytes()[:-100])
    one, same, different, broken = (slices_of(p, read_header(p))[0] for p in (native, coded, other, cut))
    assert same_pixels(one, same)
    assert not same_pixels(one, different)
    assert not same_pixels(one, broken)


def test_a_forked_process_leaves_those_of_its_parent_alone() -> None:
    _one(bundled("CT_small.dcm"))
    before = list(headers._PROCESSES.processes)
    child = os.fork()
    if child == 0:
        os._exit(len(headers._PROCESSES.processes))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert headers._PROCESSES.processes == before
    _one(bundled("CT_small.dcm"))
