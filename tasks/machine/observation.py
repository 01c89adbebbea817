"""Looks at a server or hospital every few seconds, for Prometheus (``exposition.py``) and people (``notices.py``).

It works in a thread of its own, and what it cannot see or serve ends nothing.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.machine.exposition import Exposition, Figure
from tasks.machine.notices import Notice, Notifier, Tell

EVERY_S = 15.0
LOST_S = 300.0
"""For so long something must be wrong before a person is told; programs are restarted within that time."""
_DAYS = (30.0, 14.0, 7.0, 3.0, 1.0, 0.0)
"""Days before a certificate ends at which people are told."""


@dataclass(frozen=True)
class Observed:
    """What one look has found."""

    figures: Sequence[Figure] = ()
    notices: Sequence[Notice] = ()


def sorted_out(found: Sequence[Figure | Notice]) -> Observed:
    """The figures and the notices of one look."""
    return Observed(
        [one for one in found if isinstance(one, Figure)], [one for one in found if isinstance(one, Notice)]
    )


class Observer:
    """Looks until the process ends.

    Args:
        look: must return within seconds; what it raises is told, and the figures stay those of the last look.
        metrics: ``host:port`` at which Prometheus finds the figures; ``None`` serves none.
        tell: gets a sentence whenever something goes wrong in another way than before.
    """

    def __init__(
        self, look: Callable[[], Observed], metrics: str | None, notifier: Notifier | None, tell: Tell
    ) -> None:
        self._look, self._metrics, self._notifier, self._tell = look, metrics, notifier, tell
        self._seen = Observed()
        self._exposition: Exposition | None = None
        self._stop = threading.Event()
        self._wrong: dict[str, str] = {}

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, daemon=True, name="observer").start()

    def stop(self) -> None:
        """Look no more, and serve nothing."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._try("look", self._once)
            if self._metrics is not None and self._exposition is None:
                self._try("metrics", self._serve)
            self._stop.wait(EVERY_S)
        if self._exposition is not None:
            self._exposition.close()

    def _once(self) -> None:
        self._seen = self._look()
        if self._notifier is not None:
            self._notifier.see(self._seen.notices)

    def _serve(self) -> None:
        assert self._metrics is not None
        self._exposition = Exposition(self._metrics, lambda: self._seen.figures)
        self._tell(f"metrics for Prometheus: http://{self._metrics}/metrics")

    def _try(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
            wrong = ""
        except Exception as error:  # whatever it is, the programs must go on
            wrong = f"{what}: {type(error).__name__}: {error}"
        if wrong and wrong != self._wrong.get(what):
            self._tell(wrong)
        self._wrong[what] = wrong


@dataclass
class Lasting:
    """What has been wrong for how long, by this process's own clock."""

    since: dict[str, float] = field(default_factory=dict)

    def holds(self, what: str, is_wrong: bool, for_s: float = LOST_S) -> bool:
        """Whether it is wrong, and was at every look for so long."""
        if not is_wrong:
            self.since.pop(what, None)
            return False
        now = time.monotonic()
        return now - self.since.setdefault(what, now) >= for_s


def programs(prefix: str, state: Mapping[str, Mapping[str, object]]) -> Iterator[Figure]:
    """Figures of a supervisor's programs, from its state file."""
    for name, one in state.items():
        labels, starts = {"program": name}, one.get("starts")
        well = float(bool(one.get("well")))
        yield Figure(f"{prefix}_program_well", "1 while the program runs and answers", well, labels)
        number = float(starts) if isinstance(starts, int) else 0.0
        yield Figure(f"{prefix}_program_starts_total", "Starts of the program since its supervisor's", number, labels)


def disks(prefix: str, folders: Mapping[str, Path]) -> Iterator[Figure]:
    """Room on the disks of these folders, by what they are for, to a hundredth of the disk: what is left to the byte
    would tell whether one more patient was prepared. A folder that does not exist is left out."""
    for name, path in folders.items():
        if path.exists():
            usage = shutil.disk_usage(path)
            labels = {"disk": name}
            free = usage.free - usage.free % max(1, usage.total // 100)
            yield Figure(f"{prefix}_disk_free_bytes", "Free space on the disk, in bytes, rounded down", free, labels)
            yield Figure(f"{prefix}_disk_size_bytes", "Size of the disk, in bytes", usage.total, labels)


def nearly_full(folders: Mapping[str, Path], least_percent: float) -> Iterator[Notice]:
    """A notice for each disk with less free space than that; worse at a half and at a quarter of it."""
    seen = set[int]()
    for name, path in folders.items():
        if not path.exists() or path.stat().st_dev in seen:
            continue
        seen.add(path.stat().st_dev)
        usage = shutil.disk_usage(path)
        percent = 100 * usage.free / max(1, usage.total)
        level = sum(percent < least_percent / part for part in (1, 2, 4))
        if level:
            text = f"the disk of the {name} has {percent:.1f} % ({usage.free / 1e9:.1f} GB) left: make room"
            yield Notice("disk", name, level, text)


def ending(about: str, days: float, what: str, remedy: str) -> Iterator[Notice]:
    """A notice that a certificate is about to end; worse as the day comes nearer."""
    level = sum(days < left for left in _DAYS)
    if level:
        when = f"ends in {days:.0f} days" if days >= 0 else "has ended"
        yield Notice("certificate", about, level, f"{what} {when}: {remedy}")
