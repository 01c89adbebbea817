"""The hospital as Prometheus and its own staff see it: programs, server, budget, what left, what waits for a person.

No figure and no notice is of a patient or an image: all are sums of ledger and audit log, or of this machine. They are
for this hospital; where they go is set in ``site.yaml`` and on the security officer's checklist.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from client.errors import SiteError
from client.ledger.records import Records, open_records
from client.link.gateway import Link, handshake
from client.oversight import approvals, budget, halt
from client.site import SiteSettings, load, secret
from tasks.machine import logs, observation
from tasks.machine.exposition import Figure, shortened
from tasks.machine.notices import Notice, Notifier, Tell
from tasks.machine.observation import Lasting, Observed, Observer
from tasks.machine.supervision import programs_in
from tasks.protocol.study import release

PREFIX = "consilium_site"
_MEGABYTE = 10**6
_MOST_STUDIES = 5
_RECORDS_S, _MOST_RECORDS_S = 60.0, 900.0
"""Ledger and audit log are read when they have changed, at most this often and at least that often: every row is
verified."""
_LASTING_S = 90.0
"""A ledger that cannot be read once may only be in use; read again in vain, it is damaged."""
_CERTIFICATE_S = 3600.0
_SPENT = (0.8, 0.9, 0.97)
"""Fractions of the cap for life at which people are told."""

Found = list[Figure | Notice]


def observe(site: Path, settings: SiteSettings, state: Path, link: Link | None, tell: Tell) -> None:
    """Begin to look at the hospital, if its settings name anybody who wants to see it.

    Args:
        site: path of ``site.yaml``.
        state: the supervisor's state file.
        link: the gateway's; ``None`` where only the trainer runs.
        tell: gets a sentence when something cannot be seen, served or told.
    """
    if settings.metrics is None and not settings.notify.is_set:
        return
    kept = state.with_name(f"{state.stem}.notices.json")
    notifier = Notifier(settings.notify, settings.name, kept, tell) if settings.notify.is_set else None
    Observer(SiteLook(site, state, link), settings.metrics, notifier, tell).start()


class SiteLook:
    """Looks at a running hospital; call it every few seconds."""

    def __init__(self, site: Path, state: Path, link: Link | None) -> None:
        self._site, self._state, self._link = site, state, link
        self._lasting = Lasting()
        self._began = time.time()
        self._records: Found = []
        self._wrong = ""
        self._read, self._seen = -_MOST_RECORDS_S, ""
        self._asked, self._ends = -_CERTIFICATE_S, 0.0
        self._asking: threading.Thread | None = None

    def __call__(self) -> Observed:
        settings = load(self._site)
        found: Found = [
            Figure(f"{PREFIX}_info", "The release that runs", 1.0, {"release": release()}),
            Figure(f"{PREFIX}_observed_timestamp_seconds", "When these figures were found", time.time()),
            Figure(f"{PREFIX}_start_timestamp_seconds", "When the programs were started", self._began),
        ]
        found += [*self._programs(), *self._server(), *_machine(settings)]
        if settings.ledger.exists():  # a separate gateway has none
            found += [*_decisions(settings), *self._books(settings)]
        return observation.sorted_out(found)

    def _programs(self) -> Iterator[Figure | Notice]:
        state = programs_in(self._state)
        yield from observation.programs(PREFIX, state)
        for name, one in state.items():
            if self._lasting.holds(name, not one.get("well")):
                why = str(one.get("held") or "it runs, and does not answer or is not heard by the server")
                yield Notice("program", name, 1, f"the {name} has not been well for five minutes: {why}")

    def _server(self) -> Iterator[Figure | Notice]:
        """When the server was last heard, and when its certificate ends; it is asked in a thread of its own, because it
        may answer a byte at a time."""
        if self._link is None:
            return
        with suppress(OSError):
            heard = self._link.heard.stat().st_mtime
            yield Figure(f"{PREFIX}_server_heard_timestamp_seconds",
                         "When the server last acknowledged a heartbeat of the gateway", heard)  # fmt: skip
        now = time.monotonic()
        if now - self._asked >= _CERTIFICATE_S and (self._asking is None or not self._asking.is_alive()):
            self._asked = now
            self._asking = threading.Thread(target=self._ask, args=(self._link,), daemon=True)
            self._asking.start()
        if self._ends:
            days = (self._ends - time.time()) / 86400
            yield Figure(f"{PREFIX}_server_certificate_days", "Days until the server's certificate ends", days)
            yield from observation.ending("server", days, "the server's certificate", "ask the coordinator to renew it")

    def _ask(self, link: Link) -> None:
        with suppress(OSError, KeyError, ValueError):  # the gateway's figure says that it cannot be reached
            self._ends = handshake(link)[2].timestamp()

    def _books(self, settings: SiteSettings) -> Found:
        now, mark = time.monotonic(), _mark(settings)
        due = now - self._read >= (_RECORDS_S if mark != self._seen else _MOST_RECORDS_S)
        if due:
            self._read = now
            try:
                with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
                    self._records = [*_sums(records, settings)]
                self._wrong, self._seen = "", _mark(settings)  # closing them may have written to them
            except SiteError as error:
                self._wrong, self._seen = type(error).__name__, ""
        if self._lasting.holds("records", bool(self._wrong), _LASTING_S):
            text = f"ledger or audit log cannot be used ({self._wrong}): consilium-site ledger verify"
            return [*self._records, Notice("ledger", "records", 1, text)]
        return self._records


def _mark(settings: SiteSettings) -> str:
    """Changes whenever a row is added."""
    marks = []
    for path in (settings.ledger, settings.audit_log):
        for file in (path, path.with_name(f"{path.name}-wal")):
            with suppress(OSError):
                marks.append(f"{file.stat().st_mtime_ns} {file.stat().st_size}")
    return " ".join(marks)


def _decisions(settings: SiteSettings) -> Iterator[Figure | Notice]:
    waiting: dict[str, str] = {}
    with suppress(SiteError, OSError):
        waiting = approvals.waiting(settings)
    yield Figure(f"{PREFIX}_studies_waiting", "Studies that wait for somebody's approval", len(waiting))
    yield Figure(f"{PREFIX}_stopped", "1 while the hospital is stopped", float(halt.stopped(settings.stop_file)))
    if len(waiting) > _MOST_STUDIES:  # a server sends as many as it likes, and other notices must not drown in them
        yield Notice("study", "many", 1, f"{len(waiting)} studies wait for approval: consilium-site review", ends=False)
        return
    for digest, text in waiting.items():
        told = f"study {_named(text)} waits for approval: consilium-site review {digest[:12]}"
        yield Notice("study", digest[:12], 1, told, ends=False)


def _named(document: str) -> str:
    """The name in a study document, as far as a line can show it."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        return shortened(str(json.loads(document)["name"]))
    return "without a name"


def _machine(settings: SiteSettings) -> Iterator[Figure | Notice]:
    folders = {"ledger": settings.ledger.parent, "prepared images": settings.catalog}
    yield from observation.disks(PREFIX, {"ledger": settings.ledger.parent, "catalog": settings.catalog})
    yield from observation.nearly_full(folders, settings.notify.disk_free_percent)
    size = logs.size_of(settings.link / "logs")
    with suppress(OSError):
        size += settings.log.stat().st_size
    rounded = size - size % _MEGABYTE  # site.log has a line for each image that is refused
    yield Figure(f"{PREFIX}_log_bytes", "Size of all logs, in bytes, rounded down to megabytes", rounded)


def _sums(records: Records, settings: SiteSettings) -> Iterator[Figure | Notice]:
    """What ledger and audit log add up to."""
    for one in budget.by_cohort(records.ledger, settings):
        labels = {"cohort": one.cohort}
        yield Figure(f"{PREFIX}_epsilon_spent", "Epsilon spent by all studies", one.epsilon, labels)
        aside = one.with_set_aside - one.epsilon
        yield Figure(f"{PREFIX}_epsilon_set_aside", "Epsilon that studies will still need", aside, labels)
        yield Figure(f"{PREFIX}_epsilon_left", "Epsilon left of the cap for life", one.left, labels)
        yield Figure(f"{PREFIX}_epsilon_cap", "Cap for life", one.cap, labels)
        level = sum(one.with_set_aside >= part * one.cap for part in _SPENT)
        if level:
            text = f"of the privacy budget of {one.cohort}, epsilon {one.left:.2f} of {one.cap:g} is left"
            yield Notice("budget", one.cohort, level, f"{text}: consilium-site ledger")
    for study in budget.by_study(records.ledger, settings):
        labels = {"study": study.study, "cohort": study.cohort}
        left = max(0.0, study.cap - study.epsilon)
        yield Figure(f"{PREFIX}_study_epsilon_spent", "Epsilon spent by the study", study.epsilon, labels)
        yield Figure(f"{PREFIX}_study_epsilon_left", "Epsilon left of the cap of a study", left, labels)
        yield Figure(f"{PREFIX}_study_orders_total", "Orders that were reserved", study.orders, labels)
        yield Figure(f"{PREFIX}_study_orders_lost_total", "Orders that were reserved and not answered", study.lost,
                     labels)  # fmt: skip
    decided = approvals.decisions(records.audit_log, settings).values()
    approved = sum(decision.approved for decision in decided)
    yield Figure(f"{PREFIX}_studies_approved", "Studies that are approved", approved)
    for decision in decided:
        if decision.signatures and decision.missing:  # the first person was told of it as a study that waits
            digits, named = decision.digest[:12], shortened(decision.study)
            told = f"study {named}: {decision.missing} more must approve: consilium-site review {digits}"
            yield Notice("approval", digits, len(decision.signatures), told, ends=False)
    yield from _left(records)


def _left(records: Records) -> Iterator[Figure]:
    receipts = records.audit_log.receipts()
    numbers, sizes = Counter[str](), Counter[str]()
    for receipt in receipts:
        numbers[receipt.message] += 1
        sizes[receipt.message] += receipt.bytes
    for message, number in sorted(numbers.items()):
        labels = {"message": message}
        yield Figure(f"{PREFIX}_messages_total", "Messages that left, by kind", number, labels)
        yield Figure(f"{PREFIX}_sent_bytes_total", "Bytes of the messages that left", sizes[message], labels)
    if receipts:
        last = receipts[-1].at or datetime.fromtimestamp(0, UTC)
        yield Figure(f"{PREFIX}_last_answer_timestamp_seconds", "When the last order was answered", last.timestamp())
