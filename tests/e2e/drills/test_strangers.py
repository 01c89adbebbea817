"""A stranger costs nothing: floods and slow bodies from a hospital's own address, in front of a real SuperLink."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from client.link.credential import Credential
from server.deployment import nginx
from tests.e2e.deployment.federation import Federation, Hospital, until
from tests.e2e.drills.drill import SEEN, Seen, everything, study
from tests.e2e.drills.test_healing import online

MEBIBYTE = 2**20
BODY = b"a" * (16 * MEBIBYTE)
PIECE = 5 * MEBIBYTE
"""What Flower's SuperNode sends of an array at once."""
PUSH = "/v1/fleet/push-object"
AS_FLOWER = {"content-type": "application/protobuf"}


def superlink_bytes(federation: Federation) -> int:
    """Resident memory of the SuperLink's processes."""
    pid = federation.pid("superlink")
    assert pid is not None
    found = 0
    for one in everything(pid):
        with suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text()
            found += int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024
    return found


def stranger(federation: Federation) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(federation.home / "pki" / "authority.crt"))


def flood(
    federation: Federation, bodies: int = 60, content: bytes = BODY, known: ssl.SSLContext | None = None
) -> list[int]:
    """Unsigned bodies, several at a time. Gives the answers; 0 where the connection was closed on it.

    Args:
        known: with a hospital's certificate.
    """
    context = known or stranger(federation)

    def one(_: int) -> int:
        address = f"https://localhost:{federation.hospitals_port}{PUSH}"
        try:
            return httpx.post(
                address, content=content, headers=AS_FLOWER, verify=context, trust_env=False, timeout=60
            ).status_code
        except httpx.TransportError:
            return 0

    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(one, range(bodies)))


@contextmanager
def slow_bodies(federation: Federation, number: int = 100) -> Iterator[None]:
    """Connections that send a body a byte at a time, and connect again when they are closed."""
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            with suppress(OSError), ExitStack() as held:
                raw = held.enter_context(socket.create_connection(("127.0.0.1", federation.hospitals_port), 10))
                secure = stranger(federation).wrap_socket(raw, server_hostname="localhost")
                held.enter_context(secure)
                secure.sendall(
                    f"POST {PUSH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode()
                )
                while not stop.wait(1):
                    secure.sendall(b"a")
            stop.wait(0.5)

    threads = [threading.Thread(target=send, daemon=True) for _ in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


@contextmanager
def asking(federation: Federation, hospital: Hospital) -> Iterator[list[int]]:
    """What a hospital is answered meanwhile that asks whether the server is well, as ``consilium-site run`` does."""
    credential = Credential(hospital.link / "node.key", hospital.link / "authority.crt")
    stop, codes = threading.Event(), list[int]()

    def ask() -> None:
        while not stop.wait(0.5):
            address = f"https://localhost:{federation.hospitals_port}/health"
            try:
                codes.append(httpx.get(address, verify=credential.context(), trust_env=False, timeout=20).status_code)
            except httpx.TransportError:
                codes.append(0)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield codes
    finally:
        stop.set()
        thread.join(30)


def attacked(federation: Federation, attack: Callable[[], object], said: str) -> None:
    """An attack in the middle of a study, in which both hospitals take part as if there were none."""
    hospital = federation.hospitals[0]
    logs = [one.site.parent / f"{one.name}.run.log" for one in federation.hospitals]
    before = [log.read_text().count("cannot be reached") for log in logs]
    with study(federation, after=1) as running, asking(federation, hospital) as codes:
        held = most = superlink_bytes(federation)
        running.break_now()
        under_way = threading.Thread(target=attack)
        under_way.start()
        recovered = running.recovered()
        while under_way.is_alive():
            most = max(most, superlink_bytes(federation))
            time.sleep(0.2)
        grown = (most - held) / MEBIBYTE
    assert set(codes) == {200}
    assert grown < 50, f"the SuperLink has grown by {grown:.0f} MiB"
    assert [log.read_text().count("cannot be reached") for log in logs] == before
    for one in federation.rounds():
        assert (sorted(one["hospitals"]), one["dropped"]) == (["alder", "birch"], {})
    SEEN.append(Seen(f"{said}: {grown:+.0f} MiB, {len(codes)} asked", 0.0, recovered, "no hospital loses anything"))


def test_a_flood_of_unsigned_bodies_costs_the_superlink_nothing(drilled: Federation) -> None:
    until(lambda: online(drilled), 120, "both hospitals are there")
    before = superlink_bytes(drilled)
    codes = flood(drilled) + flood(drilled, 120, b"a" * PIECE)
    grown = (superlink_bytes(drilled) - before) / MEBIBYTE
    assert set(codes) <= {0, 403, 413}, codes
    assert grown < 50, f"the SuperLink has grown by {grown:.0f} MiB"
    SEEN.append(Seen(f"180 bodies of 16 and 5 MiB: {grown:+.0f} MiB", 0.0, 0.0, "refused before they are read"))
    attacked(drilled, lambda: flood(drilled) + flood(drilled, 120, b"a" * PIECE), "the same in mid-study")


def test_a_hospital_s_own_flood_costs_the_others_nothing(drilled: Federation) -> None:
    """An admitted hospital is no stranger: what it sends is read. It cannot do more at once than a few pieces."""
    until(lambda: online(drilled), 120, "both hospitals are there")
    birch = drilled.hospitals[1]
    context = Credential(birch.link / "node.key", birch.link / "authority.crt").context()
    before = most = superlink_bytes(drilled)
    codes = list[int]()
    with asking(drilled, drilled.hospitals[0]) as answered:
        under_way = threading.Thread(target=lambda: codes.extend(flood(drilled, 120, b"a" * PIECE, context)))
        under_way.start()
        while under_way.is_alive():
            most = max(most, superlink_bytes(drilled))
            time.sleep(0.1)
    assert set(answered) == {200}
    assert set(codes) <= {0, 400, nginx.TOO_MANY}, "it came in, and was refused"
    assert (most - before) / MEBIBYTE < 50
    SEEN.append(Seen(f"a hospital floods: {(most - before) / MEBIBYTE:+.0f} MiB", 0.0, 0.0, str(sorted(set(codes)))))
    until(lambda: online(drilled), 120, "both hospitals are there")


def test_slow_bodies_from_its_own_address_take_nothing_from_a_hospital(drilled: Federation) -> None:
    def attack() -> None:
        with slow_bodies(drilled):
            time.sleep(40)

    attacked(drilled, attack, "100 slow bodies for 40 s")


def test_questions_of_strangers_are_limited_and_the_server_stays_well(drilled: Federation) -> None:
    starts = drilled.status()["programs"]["nginx"]["starts"]
    limited = 0

    def attack() -> None:
        nonlocal limited
        address = f"https://localhost:{drilled.hospitals_port}"
        with httpx.Client(base_url=address, verify=stranger(drilled), trust_env=False, timeout=20) as client:
            ends = time.monotonic() + 30
            while time.monotonic() < ends:
                limited += client.get("/health").status_code == nginx.TOO_MANY

    attacked(drilled, attack, "questions without a pause for 30 s")
    assert limited > 100
    status = drilled.status()["programs"]
    assert status["nginx"]["starts"] == starts
    assert all(program["well"] for program in status.values())
