"""What the kernel says about running processes: user, privileges, connections; and claims about them."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

from tasks.machine.checklist import Claim, ClaimState

_PROC = Path("/proc")


@dataclass(frozen=True)
class TcpSocket:
    """One TCP socket: the local and the remote end, each ``(address, port)``."""

    own: tuple[str, int]
    other: tuple[str, int]
    listens: bool


@dataclass(frozen=True)
class Process:
    """One program with all the processes that it has started.

    Attributes:
        capabilities: the effective ones of all processes combined, one bit each (capabilities(7)).
        read_only_root: whether the root file system is mounted read-only.
        environment: of the program itself.
        peers: TCP sockets that listen or are connected.
    """

    pid: int
    user: int
    capabilities: int
    no_new_privileges: bool
    seccomp: bool
    read_only_root: bool
    environment: Mapping[str, str]
    peers: Sequence[TcpSocket]


def look(pid: int, alone: bool = False) -> Process:
    """Inspect a process and its descendants, or it ``alone``.

    Raises:
        OSError: there is no such process, or it belongs to another user.
    """
    try:
        return _look(psutil.Process(pid), alone)
    except psutil.NoSuchProcess as error:
        raise ProcessLookupError(str(error)) from error
    except psutil.AccessDenied as error:
        raise PermissionError(str(error)) from error


def _look(program: psutil.Process, alone: bool) -> Process:
    pid, children = program.pid, [] if alone else program.children(recursive=True)
    tree = [pid, *(child.pid for child in children)]
    status = [facts for one in tree if (facts := _status(one, must=one == pid))]
    return Process(
        pid=pid,
        user=min(int(one["Uid"].split()[1]) for one in status),
        capabilities=max(int(one["CapEff"], 16) for one in status),
        no_new_privileges=all(one["NoNewPrivs"] == "1" for one in status),
        seccomp=all(one["Seccomp"] == "2" for one in status),
        read_only_root=_root_is_read_only(pid),
        environment=program.environ(),
        peers=[peer for one in (program, *children) for peer in _peers(one)],
    )


def hardening(name: str, process: Process) -> Iterator[Claim]:
    """What a container guarantees about each program in it."""
    see = f"grep -E 'Uid|Cap|NoNewPrivs|Seccomp' /proc/{process.pid}/status"
    yield _unless(process.user != 0, f"The {name} is not root", f"effective user {process.user}",
                  "Run it in the container, or as a user of its own", see)  # fmt: skip
    yield _unless(process.capabilities == 0, f"The {name} has no capabilities", f"CapEff {process.capabilities:x}",
                  "Drop all: the compose file does (cap_drop)", see)  # fmt: skip
    yield _unless(process.no_new_privileges, f"The {name} cannot gain privileges",
                  f"NoNewPrivs {int(process.no_new_privileges)}",
                  "Set no-new-privileges, as the compose file does", see)  # fmt: skip
    yield _unless(process.seccomp, f"System calls of the {name} are filtered",
                  "seccomp filter" if process.seccomp else "no seccomp filter",
                  "Container engines set one unless it is disabled", see)  # fmt: skip
    yield _unless(process.read_only_root, f"The {name}'s programs cannot be changed while it runs",
                  "root file system mounted " + ("read-only" if process.read_only_root else "writable"),
                  "Mount it read-only, as the compose file does (read_only)",
                  f"grep ' / / ' /proc/{process.pid}/mountinfo")  # fmt: skip


def listening(name: str, process: Process, expected: Iterable[tuple[str, int]]) -> Claim:
    """That a program listens where it should and nowhere else. Unspecified addresses must be expected as such."""
    ends = sorted({peer.own for peer in process.peers if peer.listens})
    wanted = set(expected)
    promise = f"The {name} listens nowhere" if not wanted else f"The {name} listens at {_ends(sorted(wanted))} only"
    more = [own for own in ends if own not in wanted and not (_loopback(own[0]) and ("127.0.0.1", own[1]) in wanted)]
    state = ClaimState.FAIL if more else ClaimState.OK
    remedy = f"{_ends(more)} was not expected; find out what opened it" if more else ""
    return Claim(promise, state, f"listens at {_ends(ends)}" if ends else "no listening socket", remedy, "ss -ltnp")


def dialling(name: str, process: Process, allowed: Iterable[tuple[str, int]], whom: str) -> Claim:
    """That a program is connected to the expected peers and to no others."""
    inward = {peer.own for peer in process.peers if peer.listens}
    inner = {port for _, port in inward}
    ends = sorted({peer.other for peer in process.peers if not peer.listens and peer.own[1] not in inner})
    more = [other for other in ends if other not in set(allowed)]
    state = ClaimState.FAIL if more else ClaimState.OK
    remedy = f"{_ends(more)} is unexpected; find out what it is" if more else ""
    observed = f"connected to {_ends(ends)}" if ends else "no connection at this moment"
    return Claim(f"The {name} connects to {whom} and nothing else", state, observed, remedy, "ss -tnp")


def silent(name: str, process: Process, quiet: Mapping[str, str]) -> Claim:
    """That the variables that keep libraries from calling home are set."""
    missing = [f"{key}={value}" for key, value in quiet.items() if process.environment.get(key) != value]
    observed = f"{', '.join(quiet)} are set" if not missing else f"not set: {', '.join(missing)}"
    return Claim(f"Nothing in the {name} calls home", ClaimState.FAIL if missing else ClaimState.OK, observed,
                 "Start it with Consilium's own command" if missing else "",
                 f"tr '\\0' '\\n' < /proc/{process.pid}/environ")  # fmt: skip


def secrets(paths: Mapping[str, Path]) -> Iterator[Claim]:
    """That secrets are readable by their owner only. A missing file is skipped."""
    for name, path in paths.items():
        with suppress(FileNotFoundError):
            mode = path.stat().st_mode & 0o777
            open_to_others = bool(mode & 0o077)
            yield Claim(f"Nobody but its owner reads {name}", ClaimState.FAIL if open_to_others else ClaimState.OK,
                        f"{path} has mode {mode:04o}", f"chmod 600 {path}" if open_to_others else "",
                        f"stat -c '%a %U' {path}")  # fmt: skip


def addresses(host: str, port: int) -> set[tuple[str, int]]:
    """All addresses of a host, each with the port; none if the name cannot be resolved."""
    try:
        return {(str(info[4][0]), port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def _unless(holds: bool, promise: str, observed: str, remedy: str, see: str) -> Claim:
    return Claim(promise, ClaimState.OK if holds else ClaimState.WARN, observed, "" if holds else remedy, see)


def _ends(ends: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{address}:{port}" for address, port in ends)


def _loopback(address: str) -> bool:
    return ip_address(address).is_loopback


def _status(pid: int, must: bool) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        if must:
            raise
        return {}  # it has ended meanwhile
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _root_is_read_only(pid: int) -> bool:
    for line in (_PROC / str(pid) / "mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == "/":
            return "ro" in fields[5].split(",")
    return False


def _peers(process: psutil.Process) -> Iterator[TcpSocket]:
    with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
        for one in process.net_connections(kind="tcp"):
            if one.status in (psutil.CONN_LISTEN, psutil.CONN_ESTABLISHED):
                listens = one.status == psutil.CONN_LISTEN
                yield TcpSocket(_end(*one.laddr), _end(*(one.raddr or ("0.0.0.0", 0))), listens)


def _end(address: str, port: int) -> tuple[str, int]:
    parsed = ip_address(address)
    return str(getattr(parsed, "ipv4_mapped", None) or parsed), port
