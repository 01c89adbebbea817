"""The SuperLink's own list of keys and runs, Flower's real one in memory, behind what the Control API offers of it."""

from __future__ import annotations

from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NodeStatus
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from server.runtime.flower_private import ControlRefused, Node, RunStatus

PENDING = RunStatus("pending", "", "")


class SuperLink:
    """What ``server.runtime.flower_private.Control`` asks; ``away`` makes it silent, ``lose`` empties it."""

    def __init__(self) -> None:
        self.away = False
        self.statuses: dict[int, RunStatus] = {}
        self.texts: dict[int, str] = {}
        self.stopped: list[int] = []
        self.lose()

    def lose(self) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self._state = factory.state()
        assert isinstance(self._state, InMemoryLinkState)
        self.statuses.clear()

    def _asked(self) -> InMemoryLinkState:
        if self.away:
            raise ControlRefused("connection refused")
        assert isinstance(self._state, InMemoryLinkState)
        return self._state

    def register(self, public_key: bytes) -> int:
        try:
            return self._asked().create_node("", "", public_key, 30)
        except ValueError as error:
            raise ControlRefused(str(error), 1) from error

    def unregister(self, node: int) -> None:
        self._asked().delete_node("", node)

    def known_keys(self) -> list[Node]:
        found = self._asked().get_node_info()
        return [Node(one.node_id, one.public_key, one.status != NodeStatus.UNREGISTERED) for one in found]

    def may_join(self, public_key: bytes) -> bool:
        return self._asked().get_node_id_by_public_key(public_key) is not None

    def start(self, study: str) -> int:
        self._asked()
        run = 1000 + len(self.texts)
        self.texts[run], self.statuses[run] = study, PENDING
        return run

    def text(self, number: int) -> str:
        self._asked()
        return self.texts[number]

    def find(self, number: int) -> RunStatus | None:
        self._asked()
        return self.statuses.get(number)

    def stop(self, number: int) -> None:
        self._asked()
        self.stopped.append(number)
        if number in self.statuses:
            self.statuses[number] = RunStatus("finished", "stopped", "")


class Acquirer:
    """Gives out a SuperLink's pending runs, each with a token; ``lapse`` takes one back."""

    def __init__(self, superlink: SuperLink) -> None:
        self._superlink = superlink
        self.tokens: dict[str, int] = {}

    def next(self) -> tuple[int, str] | None:
        for run, status in self._superlink.statuses.items():
            if status.status == "pending":
                token = f"token {len(self.tokens)} of {run}"
                self.tokens[token] = run
                self._superlink.statuses[run] = RunStatus("starting", "", "")
                return run, token
        return None

    def keep(self, token: str) -> bool:
        if self._superlink.away:
            raise ControlRefused("connection refused")
        return token in self.tokens

    def lapse(self, run: int) -> None:
        self.tokens = {token: other for token, other in self.tokens.items() if other != run}
        self._superlink.statuses[run] = PENDING
