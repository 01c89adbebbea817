"""Real archives: what comes out is what went in; their deaths, refusals and slowness are survived or named."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from client.errors import ArchiveRefused, ArchiveUnreachable, EmptySource
from client.pixels.header import NATIVE
from client.sources.listing import list_source
from client.sources.pacs.dimse import DimseArchive
from client.sources.pacs.integrity import examine
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import DicomwebSource, DimseSource, FolderSource
from tasks.breast_ultrasound import TASK
from tests.e2e.pacs.servers import Orthanc, dcmqrscp, orthanc
from tests.e2e.pacs.slow_proxy import delaying

NOBODY: frozenset[str] = frozenset()
WAYS = ("dicomweb", "dimse")


@pytest.fixture(scope="package")
def archive(tmp_path_factory: pytest.TempPathFactory, files: list[Path], own_network: None) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("archive") / "orthanc", files) as one:
        yield one


def _settings(hospital: Path, files: list[Path], spool: Path) -> dict[str, Any]:
    return {
        "task": TASK.name,
        "issuer": "alder",
        "path": spool,
        "labels": hospital / "labels.csv",
        "scope": {"modalities": sorted({dcmread(path, stop_before_pixels=True).Modality for path in files})},
        "attempts": 8,
        "first_wait_seconds": 0.1,
        "connect_seconds": 2,
        "silence_seconds": 10,
        "request_seconds": 20,
    }


def _source(way: str, archive: Orthanc, settings: dict[str, Any]) -> DicomwebSource | DimseSource:
    if way == "dicomweb":
        return DicomwebSource.model_validate({"kind": way, "url": archive.url, **settings})
    where = {"host": "127.0.0.1", "port": archive.dicom, "called_ae": "ORTHANC"}
    return DimseSource.model_validate({"kind": way, **where, **settings})


def _digests(paths: Any) -> dict[str, tuple[str, str]]:
    return {e.sop_instance: (e.transfer_syntax, e.pixel_sha256) for e in map(examine, paths)}


def _spooled(spool: Path) -> dict[str, tuple[str, str]]:
    return _digests((spool / "images").rglob("*.dcm"))


def _read(record: Record) -> Any:
    try:
        return record.read().pixels
    except Unreadable as error:
        return error.reason


def _folder(hospital: Path) -> Listing:
    folder = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=hospital / "dicom", labels=hospital / "labels.csv"
    )
    return list_source(folder, TASK, NOBODY)


def _assert_same(listing: Listing, other: Listing) -> None:
    mine = {r.image_id: (r.patient_id, r.label) for r in listing.records}
    assert mine == {r.image_id: (r.patient_id, r.label) for r in other.records}
    others = {record.image_id: record for record in other.records}
    for record in listing.records:
        assert np.array_equal(_read(record), _read(others[record.image_id]))


@pytest.mark.parametrize("way", WAYS)
def test_pixels_are_those_of_the_folder(
    way: str, archive: Orthanc, hospital: Path, files: list[Path], tmp_path: Path
) -> None:
    listing = list_source(_source(way, archive, _settings(hospital, files, tmp_path / "spool")), TASK, NOBODY)
    originals = _digests(files)
    assert _spooled(tmp_path / "spool") == originals
    assert len({syntax for syntax, _ in originals.values()} - NATIVE) >= 5
    _assert_same(listing, _folder(hospital))
    assert not listing.left_out
    assert [warning.split(":")[0] for warning in listing.warnings] == ["UNPROVEN"]  # Orthanc 1.10 tells no (0008,3002)


@contextmanager
def _accident(spool: Path, number: int, action: Callable[[], None]) -> Iterator[None]:
    """Act as soon as so many images are spooled, or not at all if the block ends before."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            if len(list((spool / "images").rglob("*.dcm"))) >= number:
                return action()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_that_dies_and_comes_back_is_survived(
    way: str, hospital: Path, files: list[Path], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    with orthanc(tmp_path / "orthanc", files) as archive:

        def die_and_come_back() -> None:
            archive.kill()
            time.sleep(0.5)
            archive.start()

        with _accident(spool, 10, die_and_come_back):
            listing = list_source(_source(way, archive, _settings(hospital, files, spool)), TASK, NOBODY)
        assert archive.starts == 2
    assert len(listing.records) == len(files)
    assert _spooled(spool) == _digests(files)


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_that_stays_dead_is_named_and_resumed(
    way: str, hospital: Path, files: list[Path], tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    with orthanc(tmp_path / "orthanc", files) as archive:
        source = _source(way, archive, _settings(hospital, files, spool) | {"attempts": 3})
        with (
            _accident(spool, 10, archive.kill),
            pytest.raises(ArchiveUnreachable, match="the next ingest resumes from there"),
        ):
            list_source(source, TASK, NOBODY)
        before = {path: path.stat().st_mtime_ns for path in (spool / "images").rglob("*.dcm")}
        assert 10 <= len(before) < len(files)
        archive.start()
        assert len(list_source(source, TASK, NOBODY).records) == len(files)
    assert _spooled(spool) == _digests(files)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # none was fetched twice


def test_a_wrong_password_is_named(hospital: Path, files: list[Path], tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("wrong\n", "utf-8")
    password.chmod(0o600)
    users = {"AuthenticationEnabled": True, "RegisteredUsers": {"consilium": "right"}}
    settings = _settings(hospital, files[:3], tmp_path / "spool") | {"user": "consilium", "password": password}
    with orthanc(tmp_path / "orthanc", files[:3], **users) as archive:
        source = _source("dicomweb", archive, settings)
        with pytest.raises(ArchiveRefused, match="responds 401"):
            list_source(source, TASK, NOBODY)
        password.write_text("right\n", "utf-8")
        assert len(list_source(source, TASK, NOBODY).records) == 3
    assert "right" not in source.model_dump_json()


@pytest.mark.parametrize("way", WAYS)
def test_a_slow_archive_is_waited_for(
    way: str, archive: Orthanc, hospital: Path, files: list[Path], tmp_path: Path
) -> None:
    only = {"scope": {"modalities": ["CT"]}}
    settings = _settings(hospital, files, tmp_path / "spool") | only
    with delaying(archive.http if way == "dicomweb" else archive.dicom, 0.3) as port:
        source = _source(way, archive, settings)
        behind = {"url": f"http://127.0.0.1:{port}/dicom-web"} if way == "dicomweb" else {"port": port}
        listing = list_source(source.model_copy(update=behind), TASK, NOBODY)
    assert len(listing.records) == sum(dcmread(f, stop_before_pixels=True).Modality == "CT" for f in files) > 0


@pytest.mark.parametrize("way", WAYS)
def test_an_archive_slower_than_the_limit_is_named(
    way: str, archive: Orthanc, hospital: Path, files: list[Path], tmp_path: Path
) -> None:
    limits = {"silence_seconds": 0.5, "request_seconds": 0.5, "connect_seconds": 0.5, "attempts": 2}
    settings = _settings(hospital, files, tmp_path / "spool") | limits
    started = time.monotonic()
    with delaying(archive.http if way == "dicomweb" else archive.dicom, 3) as port:
        source = _source(way, archive, settings)
        behind = {"url": f"http://127.0.0.1:{port}/dicom-web"} if way == "dicomweb" else {"port": port}
        with pytest.raises(ArchiveUnreachable, match="failed 2 times"):
            list_source(source.model_copy(update=behind), TASK, NOBODY)
    assert time.monotonic() - started < 15


def test_an_archive_that_decompresses_is_named(hospital: Path, files: list[Path], tmp_path: Path) -> None:
    """Orthanc with compressed transfer syntaxes disabled decompresses silently: the status is success."""
    settings = _settings(hospital, files, tmp_path / "spool")
    compressed = [path for path in files if path.name.endswith(("MR_small_RLE.dcm", "examples_ybr_color.dcm"))]
    holds = sorted({examine(path).transfer_syntax for path in compressed})
    plain = [path for path in files if "CT_small" in path.name]
    with orthanc(tmp_path / "orthanc", compressed + plain, AcceptedTransferSyntaxes=["1.2.840.10008.1.2.1"]) as archive:
        unaware = list_source(_source("dimse", archive, settings), TASK, NOBODY)
        assert [w.split(":")[0] for w in unaware.warnings] == ["UNPROVEN", "NO_COMPRESSED_TRANSFER"]
        came = {syntax for syntax, _ in _spooled(tmp_path / "spool").values()}
        assert came == {str(ExplicitVRLittleEndian)}  # so it was decompressed indeed
        mixed = {"holds": [*holds, str(ExplicitVRLittleEndian)]}
        again = list_source(_source("dimse", archive, settings | mixed), TASK, NOBODY)
        assert [w.split(":")[0] for w in again.warnings] == ["UNPROVEN", "NO_COMPRESSED_TRANSFER"]
        only = {"scope": {"modalities": ["MR", "US"]}, "holds": holds, "path": tmp_path / "other"}
        with pytest.raises(EmptySource, match=f"TRANSCODED {len(compressed)}"):
            list_source(_source("dimse", archive, settings | only), TASK, NOBODY)


def test_what_dcmqrscp_does_to_images_is_named(hospital: Path, files: list[Path], tmp_path: Path) -> None:
    """It accepts no compressed transfer syntax, so it withholds what it stores so, and re-encodes the rest."""
    by_syntax: dict[str, list[Path]] = {}
    for path in files:
        by_syntax.setdefault(examine(path).transfer_syntax, []).append(path)
    reencoded = by_syntax[ExplicitVRBigEndian] + by_syntax[DeflatedExplicitVRLittleEndian]
    as_held = by_syntax[ExplicitVRLittleEndian][:3]
    compressed = [path for syntax, paths in by_syntax.items() if syntax not in NATIVE for path in paths][:4]
    with dcmqrscp(tmp_path / "qr", reencoded + as_held + compressed) as port:
        source = _dcmqrscp(port, _settings(hospital, files, tmp_path / "spool") | {"holds": sorted(by_syntax)})
        DimseArchive(source).check()
        listing = list_source(source, TASK, NOBODY)
    assert listing.left_out["ARCHIVE_FAILED"] == len(compressed)
    assert [w.split(":")[0] for w in listing.warnings] == ["UNPROVEN", "NO_COMPRESSED_TRANSFER"]
    originals = _digests(files)
    spooled = _spooled(tmp_path / "spool")
    assert {uid for uid, found in spooled.items() if found != originals[uid]} == set(_digests(reencoded))
    assert len(spooled) == len(reencoded) + len(as_held)


def test_a_dcmqrscp_that_reencodes_is_named(hospital: Path, files: list[Path], tmp_path: Path) -> None:
    reencoded = [path for path in files if examine(path).transfer_syntax == ExplicitVRBigEndian]
    with dcmqrscp(tmp_path / "qr", reencoded) as port:
        settings = _settings(hospital, files, tmp_path / "spool") | {"holds": [str(ExplicitVRBigEndian)]}
        listing = list_source(_dcmqrscp(port, settings), TASK, NOBODY)
    assert any(w.startswith(f"REENCODED: {len(reencoded)} image(s)") for w in listing.warnings)
    originals = {record.image_id: record for record in _folder(hospital).records}
    for record in listing.records:  # other bytes, the same values
        assert np.array_equal(_read(record), _read(originals[record.image_id]))


def _dcmqrscp(port: int, settings: dict[str, Any]) -> DimseSource:
    where = {"kind": "dimse", "host": "127.0.0.1", "port": port, "called_ae": "QR"}
    return DimseSource.model_validate(where | settings)
