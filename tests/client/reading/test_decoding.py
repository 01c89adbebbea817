"""Decoding elsewhere: the same values, and a bad file costs one file."""

from __future__ import annotations

import os
import signal
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from client.pixels.refusal import Reason, UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.dicom import read_frame, read_values
from client.reading.processes import DecoderNotStarted
from tests.client.dicom_files import bundled, write, write_compressed

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with Decoder(time_limit_s=20, memory_mb=400) as decoder:
        yield decoder


def _refused(decoder: Decoder, path: Path, frame: int = 0) -> Reason:
    with pytest.raises(UnreadableDicom) as refusal:
        decoder.read(path, frame)
    return refusal.value.reason


def test_pictures_and_values_are_those_of_this_process(decoder: Decoder) -> None:
    for name in ("CT_small.dcm", "examples_ybr_color.dcm", "rtdose.dcm", "JPEG2000.dcm"):
        path = bundled(name)
        here, there = read_frame(path), decoder.read(path)
        np.testing.assert_array_equal(there.pixels, here.pixels)
        assert (there.regions, there.spacing_mm) == (here.regions, here.spacing_mm)
        assert there.pixels.flags.writeable
    dose = bundled("rtdose.dcm")
    here_values, there_values = read_values(dose, 3), decoder.read_values(dose, 3)
    np.testing.assert_array_equal(there_values.values, here_values.values)
    assert there_values.unit == here_values.unit
    assert there_values.values.dtype == here_values.values.dtype


def test_refusals_arrive_with_reason_and_detail(decoder: Decoder) -> None:
    assert _refused(decoder, bundled("rtplan.dcm")) is Reason.NO_PIXEL_DATA
    with pytest.raises(UnreadableDicom, match="7 of 1"):
        decoder.read(bundled("CT_small.dcm"), 7)


def test_names_that_are_no_text_arrive(decoder: Decoder, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xe4.dcm")
    write(path, RAMP)
    np.testing.assert_array_equal(decoder.read(path).pixels, read_frame(path).pixels)


def test_a_panic_costs_one_file_and_no_process(decoder: Decoder, tmp_path: Path) -> None:
    runs = b"".join(bytes([129, 1]) for _ in range(64))
    segments = bytearray(64) + runs + runs
    segments[:12] = b"".join(n.to_bytes(4, "little") for n in (2, 64, 64 + len(runs)))
    path = write(tmp_path / "a.dcm", RAMP, encapsulate([bytes(segments)]), RLELossless)
    before = decoder._processes.processes[0]._process.pid
    assert _refused(decoder, path) is Reason.DECODE_FAILED
    assert decoder._processes.processes[0]._process.pid == before
    decoder.read(bundled("CT_small.dcm"))


def test_a_hang_ends_at_the_time_limit_and_the_next_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs.dcm")  # to open it waits for a writer that never comes
    with Decoder(time_limit_s=2) as decoder:
        decoder.read(bundled("CT_small.dcm"))
        start = time.monotonic()
        assert _refused(decoder, tmp_path / "hangs.dcm") is Reason.TIME_LIMIT
        assert time.monotonic() - start < 30
    with Decoder(time_limit_s=20) as decoder:
        _kill_when_busy(decoder, signal.SIGSEGV)
        assert _refused(decoder, tmp_path / "hangs.dcm") is Reason.DECODER_DIED
        decoder.read(bundled("CT_small.dcm"))


def _kill_when_busy(decoder: Decoder, with_signal: signal.Signals) -> None:
    decoder.read(bundled("CT_small.dcm"))
    threading.Timer(1, os.kill, (decoder._processes.processes[0]._process.pid, with_signal)).start()


def test_the_kernel_keeps_a_decoder_from_taking_memory(tmp_path: Path) -> None:
    large = np.zeros((6000, 6000), dtype=np.uint8)
    large[0] = 1
    path = write_compressed(tmp_path / "a.dcm", [large], RLELossless)
    assert path.stat().st_size < 2_000_000
    with Decoder(memory_mb=60) as decoder:
        assert _refused(decoder, path) in (Reason.MEMORY_LIMIT, Reason.DECODER_DIED)
        decoder.read(bundled("CT_small.dcm"))


def test_a_deflated_bomb_is_refused(decoder: Decoder, tmp_path: Path) -> None:
    stream = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    path = write(tmp_path / "a.dcm", RAMP)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    bomb = b"".join(stream.compress(bytes(1 << 24)) for _ in range(40)) + stream.flush()
    meta = content[132:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"\x10\x00UI\x14\x00", b"\x10\x00UI\x16\x00")
    meta = meta[:8] + (len(meta) - 12).to_bytes(4, "little") + meta[12:]
    path.write_bytes(content[:132] + meta + bomb)
    assert path.stat().st_size < 4_000_000
    assert DeflatedExplicitVRLittleEndian.encode() in meta
    assert _refused(decoder, path) in (Reason.TOO_LARGE, Reason.MEMORY_LIMIT)


@pytest.mark.parametrize("depth", [300, 20_000])
def test_nested_sequences_are_refused(decoder: Decoder, tmp_path: Path, depth: int) -> None:
    opened = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    path = write(tmp_path / "a.dcm", RAMP)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:start] + opened * depth + content[start:])
    assert _refused(decoder, path) is Reason.IMPLAUSIBLE_HEADER


def test_a_header_of_endless_pieces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.pixels.header.MAX_READS", 10_000)
    opened, item = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\0\0\0\0"
    path = write(tmp_path / "a.dcm", RAMP)
    content = path.read_bytes()
    start = 132 + 12 + int.from_bytes(content[140:144], "little")
    path.write_bytes(content[:start] + opened + item * 100_000 + content[start:])
    with pytest.raises(UnreadableDicom, match="more than 10000 pieces"):
        read_frame(path)


def test_threads_may_share_a_decoder(decoder: Decoder) -> None:
    path, wanted = bundled("CT_small.dcm"), read_frame(bundled("CT_small.dcm")).pixels
    wrong: list[int] = []

    def read(number: int) -> None:
        if not np.array_equal(decoder.read(path).pixels, wanted):
            wrong.append(number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_processes_end_with_the_block_and_nothing_works_outside_it() -> None:
    with Decoder(workers=2) as decoder:
        processes = [worker._process for worker in decoder._processes.processes]
    assert all(process.poll() is not None for process in processes)
    with pytest.raises(RuntimeError, match="with"):
        decoder.read(bundled("CT_small.dcm"))


def test_a_decoder_that_cannot_start_is_nobody_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.reading.processes.sys.executable", "/bin/false")
    with Decoder() as decoder, pytest.raises(DecoderNotStarted):
        decoder.read(bundled("CT_small.dcm"))
