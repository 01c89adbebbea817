"""The gateway: Flower's SuperNode, the hospital's only program that connects to the server. It has no data.

It connects over HTTPS, with the hospital's certificate (``credential.py``), through the proxy in ``HTTPS_PROXY`` if
set. In the hospital it listens only for the trainer,
which authenticates with a shared secret.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from client.errors import SiteMisconfigured
from client.link.credential import Credential
from client.secure_sum.own_key import write_deputy
from client.site import SiteSettings
from tasks.machine.disk import private_tree, write_private, write_secret
from tasks.machine.pulse import ALIVE, HEARD
from tasks.protocol import enrolment

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "PYTHONUNBUFFERED": "1",
}
"""No telemetry, and no run can install anything."""
_WAIT_S = 5.0
_MOST_BYTES = 4096
_AHEAD_S, _BEHIND_S = 4.0, 240.0
"""Flower accepts signed times 5 s ahead to 305 s behind; a clock this far off is refused, or soon will be."""


@dataclass(frozen=True)
class Link:
    """What connects the hospital with the server, all in one folder."""

    server: str
    key: Path
    authority: Path
    secret: Path

    @property
    def credential(self) -> Credential:
        """By which the server knows this hospital."""
        return Credential(self.key, self.authority)

    @property
    def alive(self) -> Path:
        """The gateway touches it while it runs."""
        return self.key.with_name("gateway.alive")

    @property
    def heard(self) -> Path:
        """The gateway touches it whenever the server acknowledges a heartbeat."""
        return self.key.with_name("gateway.heard")

    @property
    def trainer_alive(self) -> Path:
        """The trainer touches it while it looks for orders, or waits for the process that answers one."""
        return self.key.with_name("trainer.alive")


def link(settings: SiteSettings, only_trainer: bool = False) -> Link:
    """What ``consilium-site enroll`` created. A trainer on another machine than the gateway needs, and should see, only
    the secret that they share.

    Raises:
        SiteMisconfigured: naming all that is missing.
    """
    files = _files(settings)
    needed = (files.secret,) if only_trainer else (files.key, files.authority, files.secret)
    missing = [str(path) for path in needed if not path.exists()]
    if missing:
        raise SiteMisconfigured(f"{', '.join(missing)} missing; run: consilium-site enroll --invitation FILE")
    if not settings.server:
        raise SiteMisconfigured("no server is set in site.yaml: add the line `server: HOST:PORT` from the invitation")
    for path in {files.key, files.secret} & set(needed):
        if path.stat().st_mode & 0o077:
            raise SiteMisconfigured(f"{path} is readable by users other than its owner; run: chmod 600 {path}")
    return files


def enroll(settings: SiteSettings, invitation: enrolment.Invitation) -> enrolment.Request:
    """Create the hospital's key pair if missing, store the server's authority, and request admission.

    Raises:
        SiteMisconfigured: another server's authority is there already, ``site.yaml`` names another server, or no public
            size that a server would take.
    """
    files = _files(settings)
    if settings.server is not None and settings.server != invitation.server:
        raise SiteMisconfigured(f"site.yaml has the server {settings.server}, the invitation {invitation.server}")
    size = _declared_size(settings)
    private_tree(settings.link)
    authority = files.authority
    if authority.exists() and authority.read_text("utf-8") != invitation.certificate_authority:
        raise SiteMisconfigured(f"{authority} belongs to another server; if the change is intended, delete it first")
    write_private(authority, invitation.certificate_authority.encode())
    for path, content in ((files.key, enrolment.new_key()), (files.secret, os.urandom(32))):
        with suppress(FileExistsError):
            write_secret(path, content)
    try:
        write_deputy(settings.link, files.key.read_bytes())
        return enrolment.request(settings.name, files.key.read_bytes(), size)
    except enrolment.BadEnrolment as error:
        raise SiteMisconfigured(f"{files.key}: {error}") from error


def _declared_size(settings: SiteSettings) -> int:
    """The public size in the request: the weight of the hospital's updates, fixed when it is admitted."""
    size = settings.public_size
    if size is None:
        raise SiteMisconfigured(
            "site.yaml has no public_size, from which the server fixes the weight of your updates when it admits you: "
            "add the line `public_size: N`, with N a round number near your number of training patients"
        )
    if size > enrolment.LARGEST:
        raise SiteMisconfigured(f"public_size {size} in site.yaml is above the maximum of {enrolment.LARGEST}")
    return size


def command(link: Link, listen: str) -> list[str]:
    """Command line of the gateway; it listens for the trainer at ``listen``, a ``host:port``."""
    host, _, port = listen.rpartition(":")
    program = [sys.executable, "-m", "client.link.supernode", "--superlink", link.server]
    program += ["--root-certificates", str(link.authority), "--auth-supernode-private-key", str(link.key)]
    program += ["--isolation", "process", "--superexec-auth-secret-file", str(link.secret)]
    return [*program, "--host", host, "--port", port]


def environment(link: Link) -> dict[str, str]:
    """Environment variables of the gateway's process."""
    signs = {ALIVE: str(link.alive), HEARD: str(link.heard)}
    return QUIET | signs | {"FLWR_HOME": str(link.key.parent), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def handshake(link: Link) -> tuple[str, str, datetime]:
    """Connect to the server and authenticate it. Returns TLS version, cipher, and when its certificate expires.

    Raises:
        OSError: it cannot be reached, or its certificate is not good.
    """
    with _secured(link) as secure:
        expires = ssl.cert_time_to_seconds(str((secure.getpeercert() or {})["notAfter"]))
        cipher = secure.cipher()
        return secure.version() or "", cipher[0] if cipher else "", datetime.fromtimestamp(expires, UTC)


def is_apart(settings: SiteSettings) -> bool:
    """Whether this is the trainer of a hospital whose gateway runs on another machine: of what ``enroll`` created it
    has only the shared secret, and it should not connect to the server."""
    files = _files(settings)
    return files.secret.exists() and not files.authority.exists()


def _files(settings: SiteSettings) -> Link:
    """Paths of the connection's files, whether or not they exist."""
    folder = settings.link
    return Link(settings.server or "", folder / "node.key", folder / "authority.crt", folder / "trainer.secret")


def connect(server: str) -> None:
    """Connect to a server, a ``host:port``, as the gateway does; also works before enrolment.

    Raises:
        OSError, OverflowError: it cannot be reached.
    """
    host, _, port = server.rpartition(":")
    _dial(host, int(port)).close()


def reach(link: Link) -> str:
    """Connect to the server as the gateway does. Returns the problem, empty if there is none."""
    try:
        answer, _ = _asked(link, "/health", known=True)
        if answer.status == HTTPStatus.BAD_REQUEST:  # the certificate is not accepted, as one that was revoked
            answer, _ = _asked(link, "/health")
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {link.server} is invalid: {error.verify_message}; inform the coordinator"
    except (OSError, HTTPException) as error:
        return f"{link.server} cannot be reached: {error or type(error).__name__}"
    if answer.status != 200:
        return f"{link.server} answers, but is unhealthy (HTTP {answer.status})"
    return _clock(answer.headers.get("Date"))


def refusal(link: Link) -> str:
    """Why the server does not let this hospital take part, in one sentence with the remedy; ``""`` if it does, or if
    the server cannot be asked."""
    match admission(link):
        case {"state": "revoked", "since": str(since)}:
            return (
                f"{link.server} has revoked this hospital ({_day(since)}), so the gateway has stopped; to take part "
                f"again, speak with the coordinator, delete {link.key}, run consilium-site enroll and send the request"
            )
        case {"state": "unknown"}:
            return (
                f"{link.server} has not admitted this hospital, so the gateway does not run; send the coordinator the "
                "request that consilium-site enroll writes; once it is admitted, the gateway starts by itself"
            )
    return ""


def admission(link: Link) -> dict[str, Any]:
    """What the server says of this hospital's key: its state, and its certificate if it is admitted. Empty if the
    server cannot be asked."""
    try:
        key = enrolment.own_fingerprint(link.key.read_bytes()).replace(" ", "")
        answer, content = _asked(link, f"/admission/{key}")
        told = json.loads(content) if answer.status == HTTPStatus.OK else None
    except (OSError, HTTPException, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _day(since: str) -> str:
    """A time that the server sent, as far as it is one."""
    try:
        return datetime.fromisoformat(since).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return "at an unknown time"


def _asked(link: Link, path: str, known: bool = False) -> tuple[HTTPResponse, bytes]:
    """The server's answer to GET, and the first bytes of its body.

    Args:
        known: whether to show the hospital's certificate, if there is one: the server then counts what it asks as its
            own, and not with what strangers behind the same address ask.

    Raises:
        OSError, HTTPException: there is none.
    """
    with _secured(link, known) as secure:
        secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {link.server}\r\nConnection: close\r\n\r\n".encode())
        answer = HTTPResponse(secure)
        answer.begin()
        return answer, answer.read(_MOST_BYTES)


def _clock(date: str | None) -> str:
    """A problem with our clock or the server's; Flower refuses a hospital whose clock is off."""
    if date is None:
        return ""
    ahead = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    if -_BEHIND_S <= ahead <= _AHEAD_S:
        return ""
    way = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {abs(ahead):.0f} s {way} the server's, which is too much: synchronise it by NTP"


@contextmanager
def _secured(link: Link, known: bool = False) -> Iterator[ssl.SSLSocket]:
    host, _, port = link.server.rpartition(":")
    context = link.credential.context() if known else ssl.create_default_context(cafile=str(link.authority))
    with _dial(host, int(port)) as raw, context.wrap_socket(raw, server_hostname=host) as secure:
        yield secure


def proxy_of(host: str) -> tuple[str, int] | None:
    """Host and port of the proxy for a host, if there is one."""
    proxy = getproxies().get("https")
    if not proxy or proxy_bypass(host):
        return None
    where = urlsplit(proxy)
    return where.hostname or "", where.port or 3128


def _proxy_login() -> str:
    """The header with the user and password of ``HTTPS_PROXY``, if it has them (RFC 7617)."""
    proxy = urlsplit(getproxies()["https"])
    if proxy.username is None:
        return ""
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Proxy-Authorization: Basic {b64encode(login.encode()).decode()}\r\n"


def _dial(host: str, port: int) -> socket.socket:
    proxy = proxy_of(host)
    connection = socket.create_connection(proxy or (host, port), _WAIT_S)
    if proxy is None:
        return connection
    connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{_proxy_login()}\r\n".encode())
    response = b""
    while b"\r\n\r\n" not in response and (piece := connection.recv(1024)):
        response += piece
    if not response.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        connection.close()
        asks = response.split()[1:2] == [b"407"]
        remedy = "; it asks for a login: HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT" if asks else ""
        raise OSError(f"the proxy {proxy[0]}:{proxy[1]} refuses: {response.splitlines()[:1]}{remedy}")
    return connection
