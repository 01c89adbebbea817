"""C-FIND and C-GET against pynetdicom's own provider on loopback."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom import Dataset
from pydicom.uid import RLELossless
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.events import Event

from client.errors import ArchiveRefused, ArchiveUnreachable, EmptySource, SpoolFull
from client.sources.pacs.association import COMPRESSED, MOST_CONTEXTS, SYNTAXES, in_groups, storage_contexts
from client.sources.pacs.dimse import DimseArchive, list_dimse
from client.sources.pacs.integrity import examine
from client.sources.settings import DimseSource
from tasks.breast_ultrasound import TASK
from tests.client.sources import small_hospital
from tests.client.sources.pacs.certificates import Certificates
from tests.client.sources.pacs.dimse_server import NATIVE, Provider, running

NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return small_hospital.fill(tmp_path)


@pytest.fixture
def provider(files: list[Path]) -> Iterator[Provider]:
    with running(Provider(files)) as one:
        yield one


def _source(tmp_path: Path, provider: Provider, **settings: Any) -> DimseSource:
    defaults: dict[str, Any] = {
        "kind": "dimse",
        "task": TASK.name,
        "issuer": "alder",
        "path": tmp_path / "spool",
        "labels": tmp_path / "labels.csv",
        "scope": {"modalities": ["US"]},
        "host": "127.0.0.1",
        "port": provider.port,
        "called_ae": "ARCHIVE",
        "attempts": 3,
        "first_wait_seconds": 0.01,
        "connect_seconds": 2,
        "silence_seconds": 5,
        "request_seconds": 5,
    }
    return DimseSource.model_validate(defaults | settings)


def _digests(paths: Any) -> dict[str, tuple[str, str]]:
    return {e.sop_instance: (e.transfer_syntax, e.pixel_sha256) for e in map(examine, paths)}


def _spooled(tmp_path: Path) -> dict[str, tuple[str, str]]:
    return _digests((tmp_path / "spool" / "images").rglob("*.dcm"))


def test_what_comes_is_what_the_archive_holds(tmp_path: Path, provider: Provider) -> None:
    listing = list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert len(listing.records) == 8
    assert _spooled(tmp_path) == _digests(provider.files)
    assert RLELossless in {syntax for syntax, _ in _spooled(tmp_path).values()}
    assert not listing.left_out
    assert not listing.warnings
    assert all(record.read().pixels.shape == (24, 16) for record in listing.records)
    assert set(provider.requests) == {"FIND STUDY", "FIND SERIES", "FIND IMAGE", "GET IMAGE"}


def test_no_answer_is_lost_to_the_librarys_own_thread(
    tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the machine always stopped that thread just before it looks for a message; see ``association._Awaited``."""
    look = DIMSEServiceProvider.get_msg

    def late(self: DIMSEServiceProvider, block: bool = False) -> Any:
        if not block and self.assoc.is_requestor:
            time.sleep(0.02)
        return look(self, block)

    monkeypatch.setattr(DIMSEServiceProvider, "get_msg", late)
    monkeypatch.setattr(Association, "_is_paused", property(lambda self: True, lambda self, value: None), raising=False)
    listing = list_dimse(_source(tmp_path, provider, silence_seconds=10, request_seconds=10), TASK, NOBODY)
    assert len(listing.records) == 8
    assert _spooled(tmp_path) == _digests(provider.files)


def test_what_is_spooled_is_not_fetched_again(tmp_path: Path, provider: Provider) -> None:
    source = _source(tmp_path, provider)
    list_dimse(source, TASK, NOBODY)
    next((tmp_path / "spool" / "images").rglob("*.dcm")).unlink()
    provider.requests.clear()
    assert len(list_dimse(source, TASK, NOBODY).records) == 8
    assert provider.requests.count("GET IMAGE") == 1


def test_an_archive_that_tells_no_class_is_asked_for_the_usual_ones(tmp_path: Path, provider: Provider) -> None:
    provider.tells_class = False
    list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert _spooled(tmp_path) == _digests(provider.files)


def test_a_silently_decompressed_image_is_named_and_not_used(tmp_path: Path, provider: Provider) -> None:
    provider.decompresses = True
    listing = list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert listing.left_out == {"TRANSCODED": 4}
    assert len(listing.records) == 4
    assert any(warning.startswith("TRANSCODED: 4 image(s)") for warning in listing.warnings)


def test_an_archive_that_refuses_compression_is_named(tmp_path: Path, files: list[Path]) -> None:
    with running(Provider(files, tells_syntax=False, decompresses=True, syntaxes=list(NATIVE))) as provider:
        listing = list_dimse(_source(tmp_path, provider), TASK, NOBODY)
        assert len(listing.records) == 8
        assert [w.split(":")[0] for w in listing.warnings] == ["UNPROVEN", "NO_COMPRESSED_TRANSFER"]
        holds = [*map(str, NATIVE), str(RLELossless)]
        again = list_dimse(_source(tmp_path, provider, holds=holds), TASK, NOBODY)
        assert [w.split(":")[0] for w in again.warnings] == ["UNPROVEN", "NO_COMPRESSED_TRANSFER"]  # both are stored
        only_compressed = _source(tmp_path, provider, holds=[str(RLELossless)])
        with pytest.raises(EmptySource, match=r"none of 6 images could be retrieved .* TRANSCODED 6"):
            list_dimse(only_compressed, TASK, frozenset({"ALDER-0001"}))


def test_failed_sub_operations_are_counted(tmp_path: Path, provider: Provider) -> None:
    victim = examine(provider.files[2]).sop_instance

    def fails(event: Event, dataset: Dataset) -> int | None:
        return 0xC000 if dataset.SOPInstanceUID == victim else None

    provider.before_image = fails
    listing = list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert listing.left_out == {"ARCHIVE_FAILED": 1}
    assert len(listing.records) == 7


def test_what_fails_is_asked_for_with_compressed_contexts_only(tmp_path: Path, provider: Provider) -> None:
    """As dcmqrscp does: it takes the first context of the class, and cannot decompress."""

    def first_context(event: Event, dataset: Dataset) -> int | None:
        accepted = [
            c.transfer_syntax[0] for c in event.assoc.accepted_contexts if c.abstract_syntax == dataset.SOPClassUID
        ]
        compressed = dataset.file_meta.TransferSyntaxUID not in NATIVE
        return 0xA702 if compressed and accepted[0] in NATIVE else None

    provider.before_image = first_context
    list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert _spooled(tmp_path) == _digests(provider.files)


def test_an_aborted_association_is_opened_again(tmp_path: Path, provider: Provider) -> None:
    aborted = []

    def aborts(event: Event, dataset: Dataset) -> int | None:
        if provider.sent in (2, 5) and provider.sent not in aborted:
            aborted.append(provider.sent)
            event.assoc.abort()
            return 0xFE00
        return None

    provider.before_image = aborts
    list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert aborted == [2, 5]
    assert _spooled(tmp_path) == _digests(provider.files)


def test_one_image_that_kills_the_association_costs_one_image(tmp_path: Path, provider: Provider) -> None:
    victim = examine(provider.files[0]).sop_instance

    def aborts(event: Event, dataset: Dataset) -> int | None:
        if dataset.SOPInstanceUID == victim:
            event.assoc.abort()
            return 0xFE00
        return None

    provider.before_image = aborts
    listing = list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert listing.left_out == {"ARCHIVE_FAILED": 1}
    assert len(listing.records) == 7


def test_an_archive_that_dies_leaves_what_was_fetched(tmp_path: Path, provider: Provider) -> None:
    provider.dies_after = 3
    with pytest.raises(ArchiveUnreachable, match="the next ingest resumes from there"):
        list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert len(_spooled(tmp_path)) == 3
    provider.dies_after = None
    list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert provider.sent == 8
    assert _spooled(tmp_path) == _digests(provider.files)


def test_the_spool_has_a_limit(tmp_path: Path, provider: Provider) -> None:
    half = sum(path.stat().st_size for path in provider.files) / 2e9
    with pytest.raises(SpoolFull):
        list_dimse(_source(tmp_path, provider, max_gigabytes=half), TASK, NOBODY)
    assert 0 < len(_spooled(tmp_path)) < 8
    list_dimse(_source(tmp_path, provider), TASK, NOBODY)
    assert _spooled(tmp_path) == _digests(provider.files)


def test_nobody_listens(tmp_path: Path, files: list[Path]) -> None:
    with running(Provider(files)) as provider:
        source = _source(tmp_path, provider)
        DimseArchive(source).check()
    with pytest.raises(ArchiveUnreachable, match="failed 3 times"):
        DimseArchive(source).check()


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [({"called_ae": "OTHER"}, "correct called_ae"), ({"calling_ae": "STRANGER"}, "add our AE title 'STRANGER'")],
)
def test_a_rejection_says_what_to_do(tmp_path: Path, files: list[Path], settings: Any, remedy: str) -> None:
    with (
        running(Provider(files, known_callers=["CONSILIUM"])) as provider,
        pytest.raises(ArchiveRefused, match=remedy),
    ):
        list_dimse(_source(tmp_path, provider, **settings), TASK, NOBODY)


def test_an_archive_without_c_get_is_named(tmp_path: Path, files: list[Path]) -> None:
    with running(Provider(files, offers_get=False)) as provider, pytest.raises(ArchiveRefused, match="no C-GET"):
        list_dimse(_source(tmp_path, provider), TASK, NOBODY)


def test_certificates_are_checked_both_ways(tmp_path: Path, files: list[Path]) -> None:
    own = Certificates(tmp_path / "tls")
    with running(Provider(files), tls=own.server(ask_for_client=True)) as provider:
        with pytest.raises(ArchiveRefused, match="not trusted"):
            list_dimse(_source(tmp_path, provider, host="localhost", tls=True), TASK, NOBODY)
        client = {"certificate": own.path / "client.pem", "certificate_key": own.path / "client.key"}
        trusted = {"host": "localhost", "tls": True, "authority": own.path / "ca.pem"} | client
        assert len(list_dimse(_source(tmp_path, provider, **trusted), TASK, NOBODY).records) == 8
        with pytest.raises(ArchiveRefused, match=r"requires TLS at this port.*`tls: true`"):
            list_dimse(_source(tmp_path, provider), TASK, NOBODY)


def test_a_port_without_tls_is_named(tmp_path: Path, provider: Provider) -> None:
    """DICOM's own answer to a ClientHello is an A-ABORT; others close the connection, or speak something else."""
    with pytest.raises(ArchiveRefused, match="does not speak TLS at this port"):
        DimseArchive(_source(tmp_path, provider, tls=True)).check()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (b"", ArchiveUnreachable, "Does it speak TLS at this port"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ArchiveRefused, "does not speak TLS at this port"),
        (b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00", ArchiveRefused, "does not speak TLS at this port"),
    ],
)
def test_whatever_a_port_without_tls_answers_tls_is_named(
    tmp_path: Path, answer: bytes, error: type[Exception], told: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        peer = Provider([], port=server.getsockname()[1])
        with pytest.raises(error, match=told):
            DimseArchive(_source(tmp_path, peer, tls=True)).check()


def test_an_archive_that_answers_only_whom_it_knows_is_asked_about_our_ae_title(
    tmp_path: Path, files: list[Path]
) -> None:
    """It accepts anybody's association, and aborts at the first search."""

    class Shy(Provider):
        def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
            event.assoc.abort()
            return iter(())

    with running(Shy(files)) as provider:
        source = _source(tmp_path, provider, attempts=1, silence_seconds=2)
        with pytest.raises(ArchiveUnreachable, match=r"no answer to C-FIND.*whether it knows our AE title 'CONSILIUM'"):
            list_dimse(source, TASK, NOBODY)


def test_certificates_without_tls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="authority and certificate need `tls: true`"):
        _source(tmp_path, Provider([]), port=104, authority="ca.pem")


@pytest.mark.parametrize("syntaxes", [SYNTAXES, COMPRESSED])
def test_contexts_fit_into_an_association(syntaxes: tuple[str, ...]) -> None:
    classes = [f"1.2.{number}" for number in range(40)]
    groups = list(in_groups(classes, syntaxes))
    assert [c for group in groups for c in group] == classes
    for group in groups:
        contexts = storage_contexts(group, syntaxes)
        assert len(contexts) + 1 <= MOST_CONTEXTS
        assert all(len(context.transfer_syntax) == 1 for context in contexts)
