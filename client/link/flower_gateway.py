"""Private names of Flower (1.42) that the gateway needs. ``test_flower_gateway.py`` is its contract."""

from __future__ import annotations

import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import httpx
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.error import FlowerError
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from tasks.machine.pulse import SILENT, Pulse

POLL_S, IDLE_POLL_S = 1.0, 5.0
"""Seconds between two polls for an order: while a study is under way, and at most."""
_STEADY_POLLS_S = 60.0
"""After an order the pause is the shortest one for a minute; then it grows by a second a minute."""
DEAF_S = 60.0
"""After so many seconds without an acknowledged heartbeat, the gateway ends, to be started again."""
AGAIN_S = 3.0
"""Between two attempts to join, and after an error of the server itself (HTTP 500)."""
AWAY_S = 3.0
"""For how long a gateway is offline that has, or may have, lost an order; the server looks several times a second."""
PATIENT_S = 150.0
"""For how long a call is repeated that the server answers with an error of its own, such as a full disk."""
_TICK_S = 1.0
_SHUT = (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN)
_ANSWER = 300
_NO_RUN = 0
"""Makes the SuperNode's loop send waiting replies."""


Secured = Callable[[Callable[[str], None]], ssl.SSLContext]
"""Gives what a connection to the server is made with; it may wait for that, and tells why it does."""


def supernode(alive: Pulse = SILENT, heard: Pulse = SILENT, secured: Secured | None = None) -> None:
    """Flower's SuperNode, with its own command line, which ends when it can do nothing for the hospital any more.

    When its connection breaks for good, as by a certificate that has expired, Flower's loop ends while a thread keeps
    the process: alive, and deaf. The same when a heartbeat is answered by HTTP 500: its thread ends, and the hospital
    is offline for ever. Here heartbeats go on whatever the answer; where none is acknowledged for ``DEAF_S``, and when
    the connection is lost, the process ends, and whoever looks after it starts it again.

    Args:
        alive: beats while the process runs.
        heard: beats whenever the server acknowledges a heartbeat.
        secured: the hospital's certificate, which Flower's own client does not send.
    """
    from flwr.supernode import fleet_http_connection as connection
    from flwr.supernode import start_client_internal as loop
    from flwr.supernode.cli import flower_supernode

    ear = Ear(heard)
    vars(connection)["FleetHttpClient"] = listening(FleetHttpClient, ear, secured)
    loop._pull_and_store_message = mended(loop._pull_and_store_message, ear)
    threading.Thread(target=watch, args=(ear, alive), daemon=True).start()
    flower_supernode()
    _end("the connection to the server is lost")


class Ear:
    """When the server was last heard, and what it said instead.

    Attributes:
        deaf_s: seconds without an acknowledged heartbeat, counted while this process runs: time in which it was
            stopped is not the server's silence.
        reason: why the last heartbeat was not acknowledged.
        missed: whether an order may have been lost on its way.
    """

    def __init__(self, heard: Pulse) -> None:
        self.deaf_s, self.reason, self.missed = 0.0, "no heartbeat was answered", False
        self._pulse, self._told = heard, ""

    def heard(self) -> None:
        """A heartbeat was acknowledged."""
        self.deaf_s = 0.0
        self._pulse.beat()
        self.tell("the server acknowledges this hospital's heartbeats")

    def refused(self, reason: str) -> None:
        """A heartbeat was not acknowledged."""
        self.reason = reason
        self.tell(f"a heartbeat was not acknowledged: {reason}")

    def trying(self, reason: str) -> None:
        """The server does not let us join; it is asked again at once, so a new process would do no better."""
        self.deaf_s, self.reason = 0.0, reason
        self.tell(f"the server does not let this hospital join yet: {reason}; asking again every {AGAIN_S:g} s")

    def tell(self, text: str) -> None:
        """Print what is new."""
        if text != self._told:
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)
        self._told = text


def watch(ear: Ear, alive: Pulse) -> None:
    """End this process once the server was not heard for too long."""
    while ear.deaf_s < DEAF_S:
        time.sleep(_TICK_S)
        ear.deaf_s += _TICK_S
        alive.beat()
    _end(f"not heard by the server for {DEAF_S:g} s ({ear.reason}); this gateway ends, to be started again")


def _end(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


T = TypeVar("T")


def listening(kind: type[FleetHttpClient], ear: Ear, secured: Secured | None = None) -> type[FleetHttpClient]:
    """Flower's client of the Fleet API, which outlives errors of the server itself and tells the ear what it hears."""
    return _present(_patient(kind, ear, secured), ear)


def _patient(kind: type[FleetHttpClient], ear: Ear, secured: Secured | None) -> type[FleetHttpClient]:
    """Connects with the hospital's certificate, and gives no call up at the server's first error."""
    in_doubt = set[tuple[str, str]]()

    class Patient(kind):  # type: ignore[valid-type,misc]
        @classmethod
        def from_server_address(
            cls, server_address: str, insecure: bool, root_certificates: Any, interceptors: Any, **others: Any
        ) -> Any:
            if insecure or secured is None:
                return super().from_server_address(server_address, insecure, root_certificates, interceptors, **others)
            return cls(f"https://{server_address}", interceptors=interceptors, verify=secured(ear.trying), **others)

        def PushObject(self, request: Any) -> Any:  # noqa: N802
            # What is sent again because the answer was lost, the SuperLink has and takes no second time; Flower would
            # give the whole reply up, and the study wait for the rest of it.
            sent = (request.session_id, request.object_id)
            try:
                response = super().PushObject(request)
            except (httpx.HTTPError, ValueError) as error:
                if answer_is_lost(error):
                    in_doubt.add(sent)
                raise
            if sent in in_doubt:
                in_doubt.discard(sent)
                return PushObjectResponse(stored=True)
            return response

        def _unary_unary(self, **call: Any) -> Any:
            asked = partial(super()._unary_unary, **call)
            if call["path"].endswith(("heartbeat", "activate-node")):
                return asked()
            try:
                return patiently(asked)
            except httpx.HTTPStatusError as error:
                _end_if_unknown(error)
                raise

    return Patient


def _present(kind: type[FleetHttpClient], ear: Ear) -> type[FleetHttpClient]:
    """Joins, stays, and is away for a moment where orders were lost."""
    presence = threading.Lock()

    class Present(kind):  # type: ignore[valid-type,misc]
        def SendNodeHeartbeat(self, request: Any) -> Any:  # noqa: N802  # names of Flower's
            try:
                with presence:
                    response = super().SendNodeHeartbeat(request)
            except (httpx.HTTPError, ValueError) as error:
                ear.refused(said(error))
                _end_if_unknown(error)
                raise httpx.ReadError(said(error)) from error  # of all errors Flower tries again after these alone
            if not response.success:
                ear.refused("it does not know this hospital")
                raise httpx.ReadError(ear.reason)
            ear.heard()
            return response

        def PullMessages(self, request: Any) -> Any:  # noqa: N802
            # The SuperLink gives an order once: where its answer is lost, as with a reverse proxy that dies, the study
            # would wait for this hospital until the deadline.
            try:
                response = super().PullMessages(request)
            except (httpx.HTTPError, ValueError) as error:
                ear.missed = ear.missed or answer_is_lost(error)
                raise
            if ear.missed and not response.messages_list:
                self._be_away(request.node.node_id)
                ear.missed = False
            return response

        def ActivateNode(self, request: Any) -> Any:  # noqa: N802
            self._joins_with = request
            joined = self._be_away(self._join().node_id)  # an earlier process may have had orders
            ear.heard()
            return joined

        def _be_away(self, node: int) -> Any:
            """Lose no time with orders that are lost: what was sent to a node that is offline since, the server answers
            with an error, and goes on. No heartbeat may come in between, which would count as being there."""
            with presence:
                with suppress(httpx.HTTPError, ValueError):
                    self.DeactivateNode(DeactivateNodeRequest(node_id=node))
                    time.sleep(AWAY_S)
                return self._join()

        def _join(self) -> Any:
            while True:
                try:
                    return super().ActivateNode(self._joins_with)
                except (httpx.HTTPError, ValueError) as error:
                    _end_if_unknown_at_the_door(error)
                    ear.trying(said(error))
                    time.sleep(AGAIN_S)

    return Present


def patiently(asked: Callable[[], T]) -> T:
    """Repeat a call while the server answers with an error of its own: Flower would give up a reply at the first.

    Raises:
        httpx.HTTPError: it did so for ``PATIENT_S``, or anything else is wrong.
    """
    ends = time.monotonic() + PATIENT_S
    while True:
        try:
            return asked()
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.INTERNAL_SERVER_ERROR or time.monotonic() > ends:
                raise
        time.sleep(AGAIN_S)


def answer_is_lost(error: Exception) -> bool:
    """Whether a call may have reached the server although it failed: not where no connection was made, nor where the
    server itself answered. A reverse proxy answers for a server that went away with 502 or 504."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (httpx.codes.BAD_GATEWAY, httpx.codes.GATEWAY_TIMEOUT)
    return not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)


def _end_if_unknown(error: Exception) -> None:
    """End where the server no longer knows this hospital or its clock is off; the next process asks to join anew."""
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
        _end(f"the server no longer accepts what this hospital signs ({said(error)}): it was revoked, the server has "
             "lost its list, or a clock is wrong; this gateway ends, to be started again")  # fmt: skip


def _end_if_unknown_at_the_door(error: Exception) -> None:
    """End where the reverse proxy does not accept the hospital's certificate; the next process asks for it anew."""
    if not isinstance(error, httpx.HTTPStatusError):
        return
    if error.response.status_code in _SHUT and error.response.text.lstrip().startswith("<"):  # nginx' own page
        _end(f"the server does not accept this hospital's certificate ({said(error)}); this gateway ends, to be "
             "started again with the one that the server has for it")  # fmt: skip


def said(error: Exception) -> str:
    """What the server, or the way to it, said: one line."""
    if not isinstance(error, httpx.HTTPStatusError):
        return f"{type(error).__name__}: {error}".strip(": ")[:_ANSWER]
    told = FlowerError.from_json(error.response.text)
    page = error.response.reason_phrase if error.response.text.lstrip().startswith("<") else error.response.text
    words = f"{told.message} {told.public_details or ''}" if told else page
    line = " ".join("".join(c if c.isprintable() else " " for c in words[:_ANSWER]).split())
    return f"HTTP {error.response.status_code}" + (f", {line}" if line else "")


def mended(pull: Callable[..., int | None], ear: Ear) -> Callable[..., int | None]:
    """Flower's function that polls for orders, at intervals of its own instead of every three seconds, also noticing
    waiting replies.

    Flower sends a reply only after it has received an order. When a run stops while an order of it is on its way, that
    order is answered all the same, its reply is sent in place of the next one's, and from then on every reply waits for
    an order that comes a deadline later. Here replies that wait are sent whenever no order has come. An order that came
    and could not be kept, as when one of its arrays cannot be fetched, is missed.
    """

    ordered = time.monotonic()

    def pull_once(state: InMemoryNodeState, receive: Callable[[], T | None], **others: Any) -> int | None:
        came: list[T] = []

        def received() -> T | None:
            order = receive()
            came.extend([] if order is None else [order])
            return order

        run = pull(state=state, receive=received, **others)
        ear.missed = ear.missed or (run is None and bool(came))
        return run

    def pull_or_push(state: InMemoryNodeState, **others: Any) -> int:
        nonlocal ordered
        while (run := pull_once(state, **others)) is None and not replies_wait(state):
            asks = time.monotonic() + pause_s(time.monotonic() - ordered)
            while (left_s := asks - time.monotonic()) > 0 and not replies_wait(state):
                time.sleep(min(POLL_S, left_s))
        ordered = time.monotonic()
        return _NO_RUN if run is None else run

    return pull_or_push


def pause_s(quiet_s: float) -> float:
    """Seconds until the next poll, by how long ago the last order or reply was.

    >>> [pause_s(quiet_s) for quiet_s in (0, 60, 150, 300, 3600)]
    [1.0, 1.0, 2.5, 5.0, 5.0]
    """
    return min(IDLE_POLL_S, max(POLL_S, quiet_s / _STEADY_POLLS_S))


def replies_wait(state: InMemoryNodeState) -> bool:
    """Whether there is a reply that was not sent."""
    with state.lock_msg_store:
        entries = list(state.msg_store.values())
    return any(entry.message.metadata.reply_to_message_id and not entry.is_retrieved for entry in entries)
