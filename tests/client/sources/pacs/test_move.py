"""C-MOVE against pynetdicom's own provider: our port, who may come to it, and what the archive counts."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.events import Event
from pynetdicom.sop_class import UltrasoundImageStorage, Verification  # type: ignore[attr-defined]

from client.errors import ArchiveRefused, SiteMisconfigured, SpoolFull
from client.sources.pacs.dimse import list_dimse
from client.sources.pacs.integrity import examine
from client.sources.pacs.receiver import receiving
from client.sources.settings import DimseSource
from tasks.breast_ultrasound import TASK
from tests.client.sources import small_hospital
from tests.client.sources.pacs.certificates import Certificates
from tests.client.sources.pacs.dimse_server import Provider, running
from tests.client.sources.pacs.test_dimse import NOBODY, _digests, _source, _spooled


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return small_hospital.fill(tmp_path)


@pytest.fixture
def provider(files: list[Path]) -> Iterator[Provider]:
    with running(Provider(files, offers_get=False)) as one:
        yield one


def _moving(tmp_path: Path, provider: Provider, **settings: Any) -> DimseSource:
    port = free_port()
    provider.destinations["CONSILIUM"] = port
    return _source(tmp_path, provider, **{"retrieve": "move", "receive_at": f"127.0.0.1:{port}"} | settings)


def test_what_is_moved_is_what_the_archive_holds(tmp_path: Path, provider: Provider) -> None:
    source = _moving(tmp_path, provider)
    listing = list_dimse(source, TASK, NOBODY)
    assert (len(listing.records), listing.left_out, listing.warnings) == (8, {}, [])
    assert _spooled(tmp_path) == _digests(provider.files)
    provider.requests.clear()
    assert len(list_dimse(source, TASK, NOBODY).records) == 8
    assert not [one for one in provider.requests if one.startswith("MOVE")], "nothing is asked for twice"
    with socket.socket() as probe:
        assert probe.connect_ex(source.endpoint()), "the port is open during an ingest only"


def test_it_is_off_unless_said(tmp_path: Path, provider: Provider) -> None:
    with pytest.raises(ArchiveRefused, match=r"offers no C-GET.*retrieve: move"):
        list_dimse(_source(tmp_path, provider), TASK, NOBODY)


def test_an_archive_that_knows_no_list_is_asked_one_by_one(tmp_path: Path, provider: Provider) -> None:
    provider.knows_lists = False
    assert len(list_dimse(_moving(tmp_path, provider), TASK, NOBODY).records) == 8


def test_what_fails_is_counted_and_told(tmp_path: Path, provider: Provider) -> None:
    victim = examine(provider.files[2]).sop_instance

    def fails(event: Event, dataset: Dataset) -> int | None:
        return 0xC000 if dataset.SOPInstanceUID == victim else None

    provider.before_image = fails
    listing = list_dimse(_moving(tmp_path, provider), TASK, NOBODY)
    assert listing.left_out == {"ARCHIVE_FAILED": 1}
    (warning,) = listing.warnings
    assert warning.startswith("SUBOPERATIONS")
    assert "7 images came" in warning


def test_an_aborted_association_costs_nothing(tmp_path: Path, provider: Provider) -> None:
    aborted: list[int] = []

    def aborts(event: Event, dataset: Dataset) -> int | None:
        if provider.sent == 3 and not aborted:
            aborted.append(provider.sent)
            event.assoc.abort()
            return 0xFE00
        return None

    provider.before_image = aborts
    list_dimse(_moving(tmp_path, provider), TASK, NOBODY)
    assert aborted == [3]
    assert _spooled(tmp_path) == _digests(provider.files)


def test_a_destination_that_the_archive_does_not_know_or_reach_is_named(tmp_path: Path, provider: Provider) -> None:
    source = _moving(tmp_path, provider)
    provider.destinations.clear()
    with pytest.raises(ArchiveRefused, match=r"0xA801 .* register our AE title 'CONSILIUM' with that address and port"):
        list_dimse(source, TASK, NOBODY)
    provider.destinations["CONSILIUM"] = free_port()
    with pytest.raises(ArchiveRefused, match=r"no association to 127\.0\.0\.1"):
        list_dimse(source, TASK, NOBODY)


@pytest.mark.parametrize("sender", ["ARCHIVE@127.0.0.2", "OTHER@127.0.0.1"])
def test_only_the_senders_may_connect(tmp_path: Path, provider: Provider, sender: str) -> None:
    with pytest.raises(ArchiveRefused, match=rf"STRANGERS: .* did not come from {sender}"):
        list_dimse(_moving(tmp_path, provider, senders=[sender]), TASK, NOBODY)
    assert not _spooled(tmp_path)
    listing = list_dimse(_moving(tmp_path, provider, senders=[sender, "ARCHIVE@127.0.0.1"]), TASK, NOBODY)
    assert len(listing.records) == 8


def test_what_nobody_has_asked_for_is_refused(tmp_path: Path, provider: Provider) -> None:
    """The archive itself sends what it was not asked for, in the middle of a retrieval."""
    source = _moving(tmp_path, provider)
    statuses: list[int] = []

    def pushes(event: Event, dataset: Dataset) -> int | None:
        if not statuses:
            entity = AE("ARCHIVE")
            entity.add_requested_context(UltrasoundImageStorage)
            association = entity.associate(*source.endpoint(), ae_title="CONSILIUM")
            other = dcmread(provider.files[0])
            other.decompress(generate_instance_uid=False) if other.file_meta.TransferSyntaxUID.is_compressed else None
            other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
            statuses.append(association.send_c_store(other).Status)
            association.release()
        return None

    provider.before_image = pushes
    assert len(list_dimse(source, TASK, NOBODY).records) == 8
    assert statuses == [0xA900]


def test_a_stranger_who_says_nothing_keeps_nobody_waiting(tmp_path: Path, provider: Provider) -> None:
    source = _moving(tmp_path, provider, host="localhost", senders=["ARCHIVE@127.0.0.1"])
    with receiving(source, _verification(), []) as receiver:
        silent = [socket.create_connection(source.endpoint(), source_address=("127.0.0.3", 0)) for _ in range(20)]
        entity = AE("ARCHIVE")
        entity.add_requested_context(Verification)
        association = entity.associate(*source.endpoint(), ae_title="CONSILIUM")
        assert association.send_c_echo().Status == 0
        association.release()
        assert (receiver.associations, receiver.strangers) == (1, 20)
        for one in silent:
            one.close()
        wrong = entity.associate(*source.endpoint(), ae_title="SOMEBODY")
        assert wrong.is_rejected


def _verification() -> Any:
    from pynetdicom import build_context

    return [build_context(Verification)]


def test_with_tls_both_sides_prove_who_they_are(tmp_path: Path, files: list[Path]) -> None:
    own, other = Certificates(tmp_path / "tls"), Certificates(tmp_path / "other")
    trusted = {
        "host": "localhost",
        "tls": True,
        "authority": own.path / "ca.pem",
        "certificate": own.path / "client.pem",
        "certificate_key": own.path / "client.key",
    }
    with running(Provider(files), tls=own.server(ask_for_client=True)) as provider:
        for certificates, comes in ((own, True), (other, False), (None, False)):
            theirs = ssl.create_default_context(cafile=own.path / "ca.pem")
            if certificates is not None:
                theirs.load_cert_chain(certificates.path / "server.pem", certificates.path / "server.key")
            provider.sends_with = (theirs, "localhost")
            source = _moving(tmp_path, provider, path=tmp_path / f"spool-{certificates and certificates.path.name}",
                             **trusted)  # fmt: skip
            if comes:
                assert len(list_dimse(source, TASK, NOBODY).records) == 8
            else:
                with pytest.raises(ArchiveRefused, match="with TLS"):
                    list_dimse(source, TASK, NOBODY)
        provider.sends_with = None
        with pytest.raises(ArchiveRefused, match="with TLS"):
            list_dimse(_moving(tmp_path, provider, path=tmp_path / "plain", **trusted), TASK, NOBODY)


def test_the_spool_has_a_limit_and_keeps_what_came(tmp_path: Path, provider: Provider) -> None:
    half = sum(path.stat().st_size for path in provider.files) / 2e9
    with pytest.raises(SpoolFull):
        list_dimse(_moving(tmp_path, provider, max_gigabytes=half), TASK, NOBODY)
    assert len(list_dimse(_moving(tmp_path, provider), TASK, NOBODY).records) == 8


def test_a_port_that_cannot_be_had_is_named(tmp_path: Path, provider: Provider) -> None:
    source = _moving(tmp_path, provider, receive_at="203.0.113.9:11113")
    with pytest.raises(SiteMisconfigured, match="must be an address of this machine"):
        list_dimse(source, TASK, NOBODY)
    source = _moving(tmp_path, provider)
    with receiving(source, _verification(), []), pytest.raises(SiteMisconfigured, match="no other program"):
        list_dimse(source, TASK, NOBODY)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"retrieve": "move"}, "need `receive_at"),
        ({"storage_commitment": True}, "need `receive_at"),
        ({"receive_at": "127.0.0.1:1"}, "receive_at is used with"),
        ({"retrieve": "move", "receive_at": "0.0.0.0:11113"}, "must be one address"),
        ({"retrieve": "move", "receive_at": "[::]:11113"}, "must be one address"),
        ({"retrieve": "move", "receive_at": "pacs:11113"}, "must be one address"),
        ({"retrieve": "move", "receive_at": "127.0.0.1"}, "must be one address"),
        ({"retrieve": "move", "receive_at": "127.0.0.1:1", "tls": True}, "both sides prove"),
        ({"senders": ["A"]}, "must be AET@ADDRESS"),
        ({"host": "pacs.example.org"}, "insecure: true"),
        ({"tls": True, "insecure": True}, "contradicts"),
    ],
)
def test_unsafe_settings_are_refused(tmp_path: Path, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        _source(tmp_path, Provider([]), port=104, **settings)


def test_an_address_of_ipv6_is_understood(tmp_path: Path) -> None:
    source = _source(tmp_path, Provider([]), port=104, retrieve="move", receive_at="[::1]:11113")
    assert source.endpoint() == ("::1", 11113)
    assert source.accepted() == [("ARCHIVE", "127.0.0.1")]
    insecure = _source(tmp_path, Provider([]), port=104, host="pacs.example.org", insecure=True)
    assert insecure.insecure
