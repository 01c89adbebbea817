"""An archive on loopback that answers C-FIND, takes C-STORE, and changes what it has in between as archives do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    Verification,
)

from client.sources.pacs.association import RemoteArchive
from tests.client.sources.pacs.toy_search import ToySearch

KINDS = ("1.2.840.10008.5.1.4.1.1.88.22", "1.2.840.10008.5.1.4.1.1.66.4")


@dataclass
class ToyPacs:
    """What it has and does.

    Attributes:
        headers: what it has; a test may change them at any time.
        search: what it finds.
        answers: the status of the n-th object that is stored, from 1.
        stored: what it took.
        associations: how many were opened.
    """

    headers: list[Dataset]
    search: ToySearch = field(default_factory=ToySearch)
    answers: Callable[[int], int] = lambda number: 0
    stored: list[Dataset] = field(default_factory=list)
    associations: int = 0
    asked: int = 0
    peer: RemoteArchive = field(default_factory=lambda: RemoteArchive("127.0.0.1", 1, "PACS"))

    def find(self, event: Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        keys = {element.keyword: str(element.value or "") for element in query if element.VR != "SQ"}
        found, _ = self.search.found(self.headers, str(query.QueryRetrieveLevel), keys)
        yield from ((0xFF00, match) for match in found)

    def take(self, event: Event) -> int:
        self.asked += 1
        status = self.answers(self.asked)
        if status in (0, 0xB000):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.stored.append(dataset)
            self.headers.append(dataset)
        return status

    def opened(self, event: Event) -> None:
        self.associations += 1


@contextmanager
def running(
    pacs: ToyPacs, kinds: tuple[str, ...] = KINDS, syntax: str = ExplicitVRLittleEndian, searches: bool = True
) -> Iterator[ToyPacs]:
    """Answer on a free port of loopback until the block ends."""
    entity = AE("PACS")
    entity.require_called_aet = True
    for kind in kinds:
        entity.add_supported_context(kind, syntax)
    if searches:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    entity.add_supported_context(Verification)
    handlers: list[Any] = [(evt.EVT_C_STORE, pacs.take), (evt.EVT_C_FIND, pacs.find), (evt.EVT_ACCEPTED, pacs.opened)]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    pacs.peer = RemoteArchive("127.0.0.1", server.server_address[1], "PACS", first_wait_seconds=0.01)
    try:
        yield pacs
    finally:
        server.shutdown()
