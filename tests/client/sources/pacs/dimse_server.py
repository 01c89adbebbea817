"""A real provider of C-FIND, C-GET and C-MOVE on loopback, small enough to be told how to misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from pynetdicom import AE, build_context, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    UltrasoundImageStorage,
    Verification,
)

from tests.client.sources.pacs.toy_search import ToySearch

NATIVE = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


@dataclass
class Provider:
    """What the archive has, how it behaves, and what it was asked.

    Attributes:
        files: the DICOM files that it stores.
        tells_syntax, tells_class: answer AvailableTransferSyntaxUID and SOPClassUID in searches.
        syntaxes: transfer syntaxes in which it is ready to send images.
        decompresses: send all images decompressed.
        before_image: called before each image is sent; may abort the association or return a status instead.
        known_callers: AE titles that it accepts; any when empty.
        offers_get: whether it knows C-GET.
        destinations: where it sends what is moved, by AE title.
        sends_with: its TLS as the one who connects, and the name that it expects.
        knows_lists: whether one C-MOVE may name several instances.
        dies_after: number of images after which it aborts whatever it is asked.
        search: what it finds.
        cut_status: the status after the last match when some were left out.
        requests: the levels of the searches and retrievals, in order.
    """

    files: list[Path]
    tells_syntax: bool = True
    tells_class: bool = True
    syntaxes: list[str] = field(default_factory=lambda: [*NATIVE, RLELossless])
    decompresses: bool = False
    before_image: Callable[[Event, Dataset], int | None] = lambda event, dataset: None
    known_callers: list[str] = field(default_factory=list)
    offers_get: bool = True
    destinations: dict[str, int] = field(default_factory=dict)
    sends_with: tuple[SSLContext, str] | None = None
    knows_lists: bool = True
    dies_after: int | None = None
    search: ToySearch = field(default_factory=ToySearch)
    cut_status: int = 0
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    port: int = 0

    @property
    def dead(self) -> bool:
        return self.dies_after is not None and self.sent >= self.dies_after

    def echo(self, event: Event) -> int:
        if self.dead:
            event.assoc.abort()
        return 0

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        level = str(query.QueryRetrieveLevel)
        self.requests.append(f"FIND {level}")
        headers = [dcmread(path, stop_before_pixels=True) for path in self.files]
        keys = {element.keyword: str(element.value or "") for element in query if element.VR != "SQ"}
        found, cut = self.search.found(headers, level, keys)
        for match in found:
            match.QueryRetrieveLevel = level
            if level == "IMAGE":
                self._tell(match, headers)
            yield 0xFF00, match
        if cut and self.cut_status:
            yield self.cut_status, None

    def _tell(self, match: Dataset, headers: list[Dataset]) -> None:
        if not self.tells_class:
            del match.SOPClassUID
        if self.tells_syntax:
            (syntax,) = [h.file_meta.TransferSyntaxUID for h in headers if h.SOPInstanceUID == match.SOPInstanceUID]
            match.AvailableTransferSyntaxUID = syntax

    def get(self, event: Event) -> Iterator[Any]:
        self.requests.append(f"GET {event.identifier.QueryRetrieveLevel}")
        wanted = [d for d in map(dcmread, self.files) if d.SOPInstanceUID == event.identifier.SOPInstanceUID]
        yield len(wanted)
        for dataset in wanted:
            if self.dead:
                event.assoc.abort()
                return
            status = self.before_image(event, dataset)
            if status is not None:
                yield status, None
                return
            if self.decompresses and dataset.file_meta.TransferSyntaxUID not in NATIVE:
                dataset.decompress(generate_instance_uid=False)
            self.sent += 1
            yield 0xFF00, dataset

    def move(self, event: Event) -> Iterator[Any]:
        """As archives do it: the destination is known by its AE title, and asked with an association of our own."""
        self.requests.append(f"MOVE {event.identifier.QueryRetrieveLevel}")
        port = self.destinations.get(event.move_destination)
        if port is None:
            yield None, None
            return
        named = event.identifier.SOPInstanceUID
        uids = [named] if isinstance(named, str) else list(named) if self.knows_lists else list(named)[:1]
        wanted = [d for d in map(dcmread, self.files) if d.SOPInstanceUID in uids]
        contexts = [build_context(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in wanted]
        unique = {(c.abstract_syntax, c.transfer_syntax[0]): c for c in contexts}
        more: dict[str, Any] = {"contexts": list(unique.values())} if unique else {}
        yield "127.0.0.1", port, more | ({"tls_args": self.sends_with} if self.sends_with else {})
        yield len(wanted)
        for dataset in wanted:
            status = self.before_image(event, dataset)
            if status is not None:
                yield status, None
                return
            self.sent += 1
            yield 0xFF00, dataset


@contextmanager
def running(provider: Provider, tls: SSLContext | None = None) -> Iterator[Provider]:
    """Answer on a free port of loopback until the block ends."""
    entity = AE("ARCHIVE")
    entity.require_calling_aet = provider.known_callers
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    if provider.offers_get:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    held = {str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID) for path in provider.files}
    for kind in sorted({UltrasoundImageStorage, SegmentationStorage, *held}):
        entity.add_supported_context(kind, provider.syntaxes, scu_role=True, scp_role=True)
    handlers: list[Any] = [
        (evt.EVT_C_FIND, provider.find),
        (evt.EVT_C_GET, provider.get),
        (evt.EVT_C_MOVE, provider.move),
        (evt.EVT_C_ECHO, provider.echo),
    ]
    server = entity.start_server(("127.0.0.1", provider.port), block=False, evt_handlers=handlers, ssl_context=tls)
    assert server is not None
    provider.port = server.server_address[1]
    try:
        yield provider
    finally:
        server.shutdown()
