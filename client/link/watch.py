"""What ``consilium-site run`` sees of the server and of its own programs."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass

from client.link.gateway import Link, reach, refusal
from client.site import SiteSettings
from tasks.machine.language import later, say
from tasks.machine.pulse import Watched
from tasks.machine.supervision import Supervisor, Tell, holder

WELL = later("well")
"""The state of a program that shows signs of life."""
_ROLES = ("both", later("gateway"), later("trainer"))
_LOOK_S, _LONGEST_LOOK_S = 15.0, 60.0
_DOUBT_S = 30.0
"""After so long without an acknowledged heartbeat, the server is asked whether it has refused this hospital."""


@dataclass(frozen=True)
class _Seen:
    """What a look at the server has found, and whether it was asked if it refuses this hospital."""

    problem: str
    asked: bool = False


class Watch:
    """Connects to the server at intervals, reports when the result changes, and lets the gateway run only while the
    server has not refused this hospital: one that is refused would start again and again for nothing.

    It connects in a thread of its own: a server that answers a byte at a time must not hold up who watches programs.

    Args:
        tell: gets a sentence whenever the result changes.
    """

    def __init__(self, found: Link, supervisor: Supervisor, tell: Tell) -> None:
        self._found, self._supervisor, self._tell = found, supervisor, tell
        self._heard = Watched(found.heard, _DOUBT_S)
        self._looked, self._told, self._refused = -_LOOK_S, "?", False
        self._looking: threading.Thread | None = None
        self._seen: _Seen | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if self._looking is not None and (not self._looking.is_alive() or now - self._looked > _LONGEST_LOOK_S):
            self._act(self._seen or _Seen(f"{self._found.server} does not finish its answer"))
            self._looking, self._seen = None, None
        if self._looking is None and now - self._looked >= _LOOK_S:
            self._looked = now
            self._looking = threading.Thread(target=self._look, args=(self._heard(),), daemon=True)
            self._looking.start()

    def _look(self, heard: bool) -> None:
        problem = reach(self._found)
        asked = not problem and not heard  # who is heard is admitted
        self._seen = _Seen(refusal(self._found), asked) if asked else _Seen(problem)

    def _act(self, seen: _Seen) -> None:
        if seen.asked:
            self._supervisor.hold("gateway", seen.problem)
        elif seen.problem and self._refused:
            return  # a server that is away has not changed its mind: who is refused was told so once
        self._refused = seen.asked and bool(seen.problem)
        if seen.problem != self._told:
            self._tell(seen.problem or f"{self._found.server} can be reached")
        self._told = seen.problem


def states(settings: SiteSettings) -> dict[str, str]:
    """What gateway and trainer do on this machine, in words of the language spoken."""
    found: dict[str, str] = {}
    for role in _ROLES:
        running = holder(settings.link / f"{role}.lock")
        try:
            programs = json.loads((settings.link / f"{role}.json").read_text("utf-8")) if running else {}
            found |= {name: _state(one) for name, one in programs.items()}
        except (OSError, ValueError, AttributeError):
            continue
    return found or {say("gateway and trainer"): say("not running here")}


def _state(program: dict[str, object]) -> str:
    if held := program.get("held"):
        return say("stopped: {why}", why=held)
    if program.get("well"):
        return say(WELL)
    return say("not well") if program.get("pid") else say("not running; it is started again")
