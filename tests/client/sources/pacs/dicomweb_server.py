"""A real DICOMweb service on loopback, small enough to be told how to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import Dataset, dcmread

from tests.client.sources.pacs.toy_search import ToySearch

BOUNDARY = "a-boundary"
_LEVELS = {"studies": "STUDY", "series": "SERIES", "instances": "IMAGE"}


@dataclass
class Service:
    """What the service has, how it behaves, and what it was asked.

    Attributes:
        files: the DICOM files that it stores.
        tells_syntax: answer AvailableTransferSyntaxUID in searches.
        metadata_tells_syntax: answer it in metadata.
        most: largest page that it gives out, whatever was asked for.
        search: what it finds.
        warns: send Warning 299 with an answer that leaves out something.
        honours_offset: whether paging works at all.
        trouble: called with a handler before each answer; returns whether it has answered itself.
        requests: path and query of each request, with its Authorization header.
        sent: name of the files that were sent whole.
    """

    files: list[Path]
    tells_syntax: bool = True
    metadata_tells_syntax: bool = False
    most: int = 1000
    search: ToySearch = field(default_factory=ToySearch)
    warns: bool = False
    honours_offset: bool = True
    trouble: Callable[[BaseHTTPRequestHandler], bool] = lambda handler: False
    substitute: Callable[[Path], bytes] = Path.read_bytes
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def headers(self) -> list[Dataset]:
        return [_header(path, path.stat().st_mtime_ns, path.stat().st_size) for path in self.files]


@lru_cache(maxsize=4096)
def _header(path: Path, _changed_ns: int, _bytes: int) -> Dataset:
    """Read once, until the file is another one: an archive does not parse its images for every question either."""
    return dcmread(path, stop_before_pixels=True)


@contextmanager
def running(service: Service, tls: SSLContext | None = None) -> Iterator[Service]:
    """Answer on a free port of loopback until the block ends."""
    handler = type("Handler", (_Handler,), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", service.port), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    service: Service

    def do_GET(self) -> None:
        self.service.requests.append((self.path, self.headers.get("Authorization", "")))
        if self.service.trouble(self):
            return
        parts = urlsplit(self.path)
        steps = parts.path.removeprefix("/dicom-web/").split("/")
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if steps[-1] == "metadata":
            self._metadata(steps[1], steps[3])
        elif len(steps) == 6:
            self._instance(steps[5])
        else:
            self._search(steps, query)

    def log_message(self, *_: Any) -> None:
        pass

    def _search(self, steps: list[str], query: dict[str, str]) -> None:
        keys = {name: value for name, value in query.items() if name not in ("limit", "offset", "includefield")}
        names = dict(zip(("StudyInstanceUID", "SeriesInstanceUID"), steps[1::2], strict=False))
        level = _LEVELS[steps[-1]]
        found, cut = self.service.search.found(self.service.headers(), level, keys | names)
        offset = int(query.get("offset", 0)) if self.service.honours_offset else 0
        limit = min(int(query.get("limit", 1000)), self.service.most)
        answers = [self._match(one, level) for one in found[offset : offset + limit]]
        self.json(answers, warning="299 toy: there are more" if self.service.warns and cut else "")

    def _match(self, found: Dataset, level: str) -> dict[str, Any]:
        match: dict[str, Any] = found.to_json_dict()
        if level == "IMAGE" and self.service.tells_syntax:
            syntaxes = {str(h.SOPInstanceUID): str(h.file_meta.TransferSyntaxUID) for h in self.service.headers()}
            match["00083002"] = {"vr": "UI", "Value": [syntaxes[str(found.SOPInstanceUID)]]}
        return match

    def _metadata(self, study: str, series: str) -> None:
        answers = []
        for header in self.service.headers():
            if (header.StudyInstanceUID, header.SeriesInstanceUID) == (study, series):
                answer = {"00080018": {"vr": "UI", "Value": [str(header.SOPInstanceUID)]}}
                if self.service.metadata_tells_syntax:
                    answer["00083002"] = {"vr": "UI", "Value": [str(header.file_meta.TransferSyntaxUID)]}
                answers.append(answer)
        self.json(answers)

    def _instance(self, uid: str) -> None:
        for path, header in zip(self.service.files, self.service.headers(), strict=True):
            if header.SOPInstanceUID == uid:
                self.multipart(self.service.substitute(path))
                self.service.sent.append(path.name)
                return
        self.send_error(404)

    def json(self, answer: Any, warning: str = "") -> None:
        self._answer("application/dicom+json", json.dumps(answer).encode(), warning=warning)

    def multipart(self, content: bytes, missing: int = 0, pause: float = 0, length: bool = True) -> None:
        """One part; leave away bytes at the end and close, wait after each of them, or do not tell the length."""
        head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        self._answer(kind, body, missing, pause, length)

    def _answer(
        self, kind: str, body: bytes, missing: int = 0, pause: float = 0, length: bool = True, warning: str = ""
    ) -> None:
        self.send_response(200)
        if warning:
            self.send_header("Warning", warning)
        self.send_header("Content-Type", kind)
        if length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if pause:
            with suppress(ConnectionError):  # nobody listens that long
                for number in range(len(body)):
                    self.wfile.write(body[number : number + 1])
                    time.sleep(pause)
        else:
            self.wfile.write(body[: len(body) - missing])
        self.close_connection = True
