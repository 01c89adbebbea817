"""What waits for a person, told to a command or a webhook of the operator's own: each matter once, again when it gets
worse, and once more when it is over.

A hook runs in a thread of its own, with a time limit. If it fails or hangs, nothing else is disturbed; the same notices
are told again later, after pauses that grow. What was told is on disk, so a restart repeats nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.machine.disk import write_private
from tasks.machine.exposition import is_local
from tasks.machine.language import joined, say

_LIMIT_S = 30.0
_SETTLED_S = 300.0
"""A matter is over once it has been gone for so long: one that comes and goes is not told every minute."""
_PAUSES_S = (60.0, 300.0, 900.0, 3600.0)
"""Before the next attempt, by how often the hook has failed."""
_GIVEN_UP_S = 2 * _LIMIT_S + 15.0
"""An attempt that has not ended by then counts as failed; its thread is left to itself."""
_MOST_HANGING, _MOST_LINES = 8, 20
_HANGS = "the hook does not end"
Tell = Callable[[str], None]


class Hook(BaseModel):
    """``notify`` in ``server.yaml`` and ``site.yaml``: whom to tell. Without any of these, nobody is told."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    command: list[str] = Field(default_factory=list)
    """Program and arguments; it gets the notices as JSON on its standard input. No shell interprets them."""
    webhook: str = ""
    """``https://`` address, or ``http://`` on this machine, to which the same JSON is posted."""
    webhook_file: str = ""
    """A file with that address, if the address is itself a secret: mode 0600, absolute path."""
    disk_free_percent: Annotated[float, Field(ge=0, le=90)] = 10.0
    """A disk with less free space than this is nearly full."""

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if self.webhook and self.webhook_file:
            raise ValueError("set webhook or webhook_file, not both")
        if self.webhook:
            require_safe(self.webhook)
        if self.webhook_file and not Path(self.webhook_file).is_absolute():
            raise ValueError(f"webhook_file {self.webhook_file}: must be an absolute path")
        return self

    @property
    def is_set(self) -> bool:
        return bool(self.command or self.webhook or self.webhook_file)

    def whom(self) -> str:
        """Whom it tells, in words without the address, which may be a secret; ``""`` for nobody."""
        told = [say("the command {command}", command=self.command[0])] if self.command else []
        with suppress(OSError, ValueError):
            if address := self.address():
                told.append(say("a webhook at {host}", host=urlsplit(address).hostname))
        return joined(told)

    def address(self) -> str:
        """Where to post; ``""`` for nowhere.

        Raises:
            OSError: the file cannot be read.
            ValueError: others can read it, or the address is not a safe one.
        """
        if not self.webhook_file:
            return self.webhook
        path = Path(self.webhook_file)
        if path.stat().st_mode & 0o077:
            raise ValueError(f"{path} is readable by users other than its owner; run: chmod 600 {path}")
        address = path.read_text("utf-8").strip()
        require_safe(address)
        return address


def require_safe(address: str) -> None:
    """Refuse an address over which others could read what is posted.

    Raises:
        ValueError
    """
    where = urlsplit(address)
    is_here = where.scheme == "http" and bool(where.hostname) and is_local(f"{where.hostname}:0")
    if not (is_here or (where.scheme == "https" and where.hostname)):
        raise ValueError("the webhook must be an https:// address, or an http:// address of this machine")


@dataclass(frozen=True)
class Notice:
    """Something that waits for a person.

    Attributes:
        kind: what it is, one of a few words, such as ``disk``.
        about: which one, such as a hospital's name.
        level: how bad it is; told again when it rises.
        text: one sentence, with the remedy. Nothing about patients, and no text of others unless it is ``shortened``.
    """

    kind: str
    about: str
    level: int
    text: str
    ends: bool = True
    """Whether its end is told; that a person has done what was asked is no news."""

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.about}"


@dataclass
class _Delivery:
    """One attempt to tell the hook."""

    told: dict[str, Notice]
    began: float
    thread: threading.Thread | None = None
    problem: str = _HANGS


class Notifier:
    """Tells the hook what is new.

    Args:
        sender: the server's or hospital's name.
        kept: file of what was told.
        tell: gets a sentence whenever the hook begins or ceases to fail.
    """

    def __init__(self, hook: Hook, sender: str, kept: Path, tell: Tell) -> None:
        self._hook, self._sender, self._kept, self._tell = hook, sender, kept, tell
        self._told: dict[str, Notice] = _read(kept)
        self._gone: dict[str, float] = {}
        self._failures, self._again, self._problem = 0, 0.0, ""
        self._delivery: _Delivery | None = None
        self._hanging: list[threading.Thread] = []

    def see(self, current: Iterable[Notice]) -> None:
        """What waits for a person now; call it every few seconds. Returns at once, and never raises."""
        now = time.monotonic()
        if self._delivery is not None and not self._finished(self._delivery, now):
            return
        news, told = self._compare({one.key: one for one in current}, now)
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if news and now >= self._again and len(self._hanging) < _MOST_HANGING:
            self._delivery = delivery = _Delivery(told, now)
            content = _content(self._sender, news)
            delivery.thread = threading.Thread(target=self._deliver, args=(delivery, content), daemon=True)
            delivery.thread.start()

    def _deliver(self, delivery: _Delivery, content: bytes) -> None:
        delivery.problem = deliver(self._hook, content)

    def _finished(self, delivery: _Delivery, now: float) -> bool:
        """Whether an attempt has ended, or was given up; if so, what that means."""
        assert delivery.thread is not None
        if delivery.thread.is_alive():
            if now - delivery.began < _GIVEN_UP_S:
                return False
            self._hanging.append(delivery.thread)
            problem = _HANGS
        else:
            problem = delivery.problem
        self._delivery = None
        if problem:
            self._again = now + _PAUSES_S[min(self._failures, len(_PAUSES_S) - 1)]
            self._failures += 1
        else:
            self._failures, self._told = 0, delivery.told
            self._gone = {key: since for key, since in self._gone.items() if key in self._told}
            with suppress(OSError):  # on a full disk it may be told once more after a restart
                told = json.dumps([asdict(one) for one in self._told.values()], indent=1)
                write_private(self._kept, told.encode())
        if problem != self._problem:
            self._tell(f"notify: {problem}" if problem else "notify: works again")
        self._problem = problem
        return True

    def _compare(self, current: Mapping[str, Notice], now: float) -> tuple[list[dict[str, str]], dict[str, Notice]]:
        """What to tell, and what will have been told then."""
        news, told = list[dict[str, str]](), dict(self._told)
        for key, one in current.items():
            self._gone.pop(key, None)
            before = self._told.get(key)
            if before is None or one.level > before.level:
                news.append(_as_told(one, "new" if before is None else "worse"))
                told[key] = one
        for key, one in self._told.items():
            if key not in current and now - self._gone.setdefault(key, now) >= _SETTLED_S:
                if one.ends:
                    news.append(_as_told(one, "over"))
                del told[key]
        if not news:
            self._told = told
        return news, told


def _content(sender: str, news: Sequence[Mapping[str, str]]) -> bytes:
    lines = [f"{sender}: {'no longer: ' if one['state'] == 'over' else ''}{one['text']}" for one in news]
    more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    content = {
        "from": sender,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "text": "\n".join(lines[:_MOST_LINES] + more),
        "notices": list(news),
    }
    return json.dumps(content, ensure_ascii=False).encode()


def deliver(hook: Hook, content: bytes) -> str:
    """Give it to everybody whom the hook names. Returns what went wrong, in a sentence; ``""`` if nothing did."""
    problems = [_run(hook.command, content)] if hook.command else []
    try:
        if address := hook.address():
            problems.append(_post(address, content))
    except (OSError, ValueError) as error:
        problems.append(f"the webhook cannot be used: {error}")
    return "; ".join(problem for problem in problems if problem)


def _run(command: Sequence[str], content: bytes) -> str:
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"{command[0]} cannot be started: {error}"
    try:
        process.communicate(content, _LIMIT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
        process.wait()
        return f"{command[0]} did not end within {_LIMIT_S:g} s and was killed"
    return f"{command[0]} ended with code {process.returncode}" if process.returncode else ""


def _post(address: str, content: bytes) -> str:
    import httpx

    host = urlsplit(address).hostname or ""
    try:
        answer = httpx.post(
            address,
            content=content,
            headers={"content-type": "application/json"},
            timeout=_LIMIT_S / 3,
            follow_redirects=False,
            trust_env=not is_local(f"{host}:0"),
        )
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return f"the webhook at {host} cannot be reached: {type(error).__name__}"
    return "" if answer.is_success else f"the webhook at {host} answers HTTP {answer.status_code}"


def _as_told(one: Notice, state: str) -> dict[str, str]:
    return {"kind": one.kind, "about": one.about, "state": state, "text": one.text}


def _read(kept: Path) -> dict[str, Notice]:
    try:
        return {one.key: one for one in (Notice(**values) for values in json.loads(kept.read_text("utf-8")))}
    except (OSError, ValueError, TypeError):
        return {}
