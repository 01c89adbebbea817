"""The steward's page: every section by itself, so that what cannot be read hides nothing else.

No figure is of a patient: the page has what ledger, audit log and pending studies say, and what this machine does.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from client.errors import SiteError
from client.ledger.audit_log import Receipt
from client.ledger.records import Records, open_records
from client.link import watch
from client.oversight import approvals, budget, halt, surveys
from client.oversight.approvals import Decision
from client.oversight.budget import CohortBudget, StudyBudget
from client.oversight.review import Cost, examine
from client.site import SiteSettings, load, secret
from tasks.machine import logs
from tasks.machine.dashboard import command, gauge, mark, page, problem, table
from tasks.machine.exposition import shortened
from tasks.machine.language import later, moment, number, say, say_many, spoken
from tasks.protocol import documents
from tasks.protocol.study import BadDocument, StudyDocument

_MOST_STUDIES, _MOST_RECEIPTS = 20, 15
_SEEN = 0.005
"""Less of epsilon is no width on a gauge."""


@dataclass(frozen=True)
class WaitingStudy:
    """A study or survey that people have to decide about.

    Attributes:
        costs: what it would cost; empty where this release cannot read it.
        refused: why the policy or the budget refuses it, whoever approves.
        task: the clinical question's name; "" where it cannot be read.
    """

    digest: str
    name: str
    task: str
    costs: Sequence[Cost]
    refused: Sequence[str]
    decision: Decision | None


@dataclass
class SitePage:
    """Makes the page; what a pending study would cost is computed once for each state of the ledger."""

    site: Path
    _examined: dict[tuple[str, str, str], WaitingStudy] = field(default_factory=dict)

    def __call__(self) -> str:
        """The page as HTML, in the hospital's language."""
        try:
            settings = load(self.site)
        except SiteError as error:  # in whose language nobody knows
            return page("Consilium", [], [(say("This hospital"), problem(str(error)))])
        with spoken(settings.lang):
            return self._page(settings)

    def _page(self, settings: SiteSettings) -> str:
        lead = [
            mark("fail", say("STOPPED: nothing leaves"))
            if halt.stopped(settings.stop_file)
            else mark("ok", say("Answers orders")),
            *([mark("warn", say("A simulated hospital"))] if settings.simulated else []),
        ]
        sections = [*self._recorded(settings), (say("Health"), _told(lambda: _health(settings)))]
        return page(say("{hospital}: overview", hospital=settings.name), lead, sections)

    def _recorded(self, settings: SiteSettings) -> list[tuple[str, str]]:
        heading = say("Ledger and audit log")
        if not settings.ledger.exists():  # a gateway apart has none, and no key for one either
            lacking = say("there is no {file} on this machine: they are the trainer's", file=settings.ledger.name)
            return [(heading, problem(lacking))]
        try:
            with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
                return self._books(settings, records)
        except (SiteError, OSError) as error:
            return [(heading, problem(str(error), "consilium-site ledger verify"))]

    def _books(self, settings: SiteSettings, records: Records) -> list[tuple[str, str]]:
        decided = approvals.decisions(records.audit_log, settings)
        waiting: list[WaitingStudy] = []

        def listed() -> str:
            waiting.extend(self._waiting(settings, records, decided))
            return _to_decide(waiting, settings.policy.approvers)

        first = _told(listed)
        cohorts = budget.by_cohort(records.ledger, settings)
        return [
            (say("Waits for people here"), first),
            (say("Privacy budget left, for life"), _told(lambda: _budget(cohorts, waiting, settings))),
            (say("Studies"), _told(lambda: _studies(records, settings, list(decided.values())))),
            (say("What left last"), _told(lambda: _left(records.audit_log.receipts()))),
        ]

    def _waiting(self, settings: SiteSettings, records: Records, decided: dict[str, Decision]) -> list[WaitingStudy]:
        """Pending studies, and those that were begun to be approved, the most recent first."""
        texts = {d: one.document for d, one in decided.items() if one.missing and not one.revoked}
        texts = dict(list((texts | approvals.waiting(settings)).items())[-_MOST_STUDIES:])
        state, known = f"{records.ledger.head().hash} {settings.model_dump_json()}", dict(self._examined)
        self._examined.clear()
        for digest, text in texts.items():
            made = str(decided[digest].signatures if digest in decided else "")
            key = (digest, state, made)
            self._examined[key] = known.get(key) or _examined(
                digest, text, settings, records, decision=decided.get(digest)
            )
        return list(reversed(self._examined.values()))


def _told(section: Callable[[], str]) -> str:
    """A section, or why there is none."""
    try:
        return section()
    except (SiteError, OSError) as error:
        return problem(str(error))


def _examined(
    digest: str, text: str, settings: SiteSettings, records: Records, decision: Decision | None
) -> WaitingStudy:
    try:
        document = documents.read(text)
    except BadDocument:
        why = [say("it was written for another release of Consilium")]
        return WaitingStudy(digest, digest[:12], task="", costs=[], refused=why, decision=decision)
    review = (
        examine(document, settings, records.ledger)
        if isinstance(document, StudyDocument)
        else surveys.examine(document, settings, records.ledger)
    )
    refused = [reason for reasons in review.refused.values() for reason in reasons]
    return WaitingStudy(digest, document.name, document.task, costs=review.costs, refused=refused, decision=decision)


def _to_decide(waiting: Sequence[WaitingStudy], approvers: int) -> str:
    rows = []
    for one in waiting:
        signed = [] if one.decision is None else [signature.by for signature in one.decision.signatures]
        policy = mark("ok", say("permits"))
        if one.refused:
            policy = mark("fail", say("refuses: {reason}", reason=shortened(one.refused[0])))
        who = say("{number} of {needed}", number=len(signed), needed=approvers)
        who += f": {', '.join(signed)}" if signed else ""
        cost = "; ".join(f"{_cohort(c.cohort)} {_after(c)}" for c in one.costs) or say("unknown")
        rows.append(
            (shortened(one.name), one.task, cost, policy, who, command(f"consilium-site review {one.digest[:12]}"))
        )
    columns = (
        *(say("study"), say("question"), say("would cost (epsilon)")),
        *(say("policy"), say("approved by"), say("look at it")),
    )
    return table(columns, rows, say("Nothing waits for a decision."))


def _after(cost: Cost) -> str:
    if cost.granted is None:
        return say("no bound")
    return say("{epsilon} at most", epsilon=number(cost.granted)) if cost.after is not None else say("refused")


def _cohort(name: str) -> str:
    return {"train": say("training"), "validation": say("validation")}.get(name, name)


def _budget(cohorts: Sequence[CohortBudget], waiting: Sequence[WaitingStudy], settings: SiteSettings) -> str:
    """A gauge for each cohort, with what the next study would take: of those that are not refused and have not begun,
    the one that waits longest."""
    begun = {one.cohort: one.with_set_aside for one in cohorts}
    following = next(
        (one for one in reversed(waiting) if not one.refused and any(_takes(c, begun) > _SEEN for c in one.costs)), None
    )
    known = {one.cohort: one for one in cohorts}
    cap = settings.policy.max_epsilon_life
    for name in ("train", "validation"):
        known.setdefault(name, CohortBudget(name, epsilon=0.0, with_set_aside=0.0, cap=cap, left=cap, orders=0))
    return "".join(_gauge(one, following) for one in known.values())


def _takes(cost: Cost, before: Mapping[str, float]) -> float:
    """By how much a study would raise what is spent and set aside of its cohort."""
    return 0.0 if cost.after is None else max(0.0, cost.after - before.get(cost.cohort, 0.0))


def _gauge(one: CohortBudget, following: WaitingStudy | None) -> str:
    aside = one.with_set_aside - one.epsilon
    parts = [("spent", say("spent"), one.epsilon), ("aside", say("set aside for studies under way"), aside)]
    words = say("{left} of {cap} left.", left=number(one.left, ".2f"), cap=number(one.cap))
    if following is not None:
        costs = [cost for cost in following.costs if cost.cohort == one.cohort and cost.after is not None]
        if costs and (after := costs[0].after) is not None:
            takes = _takes(costs[0], {one.cohort: one.with_set_aside})
            parts.append(("next", say("{study} would take", study=shortened(following.name)), takes))
            left = number(max(0.0, one.cap - after), ".2f")
            words += say(" {study} would leave {left}.", study=shortened(following.name), left=left)
    titles = {"train": say("Training patients:"), "validation": say("Validation patients:")}
    return gauge(titles.get(one.cohort, f"{one.cohort}:"), parts, one.cap, words)


def _studies(records: Records, settings: SiteSettings, decided: Sequence[Decision]) -> str:
    """By study, the most recent first; the state is of its last document."""
    states = {one.study: one for one in decided}
    spent = {study: [b for b in budget.by_study(records.ledger, settings) if b.study == study]
             for study in dict.fromkeys(b.study for b in budget.by_study(records.ledger, settings))}  # fmt: skip
    rows = []
    for name in list(dict.fromkeys([*states, *spent]))[::-1][:_MOST_STUDIES]:
        one, used = states.get(name), spent.get(name, [])
        state = later("no decision here") if one is None else one.state
        colour = {"approved": "ok", "revoked": "fail"}.get(state, "warn")
        epsilon = "; ".join(map(_spent, used)) or say("nothing")
        orders, lost = sum(b.orders for b in used), sum(b.lost for b in used)
        last = max((b.last for b in used if b.last is not None), default=None)
        by = "" if one is None else ", ".join(s.by for s in one.signatures) or one.by
        answered = say_many("{n} answered", "{n} answered", orders - lost)
        answered += say_many(", {n} lost", ", {n} lost", lost) if lost else ""
        when = say("never") if last is None else moment(last)
        rows.append((shortened(name), mark(colour, say(state)), by, epsilon, answered, when))
    columns = (
        *(say("study"), say("state"), say("decided by")),
        *(say("epsilon spent"), say("orders"), say("last (UTC)")),
    )
    return table(columns, rows, say("No study has been decided on, and none has run."))


def _spent(one: StudyBudget) -> str:
    epsilon, cap = number(one.epsilon, ".2f"), number(one.cap)
    return say("{cohort} {epsilon} of {cap}", cohort=_cohort(one.cohort), epsilon=epsilon, cap=cap)


def _left(receipts: Sequence[Receipt]) -> str:
    rows = [
        (
            "" if one.at is None else moment(one.at),
            shortened(one.study),
            one.round,
            shortened(one.message),
            number(one.bytes, ","),
            "" if one.epsilon_after is None else _risen(one.epsilon_before or 0, one.epsilon_after),
            command(one.sha256[:12]),
        )
        for one in reversed(receipts[-_MOST_RECEIPTS:])
    ]
    messages = say_many("{n} message", "{n} messages", len(receipts))
    total = say(
        "{messages}, {bytes} bytes in all.", messages=messages, bytes=number(sum(r.bytes for r in receipts), ",")
    )
    columns = (
        *(say("at (UTC)"), say("study"), say("round"), say("message")),
        *(say("bytes"), say("epsilon"), "SHA-256"),
    )
    return table(columns, rows, say("Nothing has left.")) + (f"<p class=soft>{escape(total)}</p>" if rows else "")


def _risen(before: float, after: float) -> str:
    return say("{before} to {after}", before=number(before, ".2f"), after=number(after, ".2f"))


def _health(settings: SiteSettings) -> str:
    rows: list[tuple[object, object]] = []
    for name, state in watch.states(settings).items():
        rows.append((say(name), mark("ok" if state == say(watch.WELL) else "warn", state)))
    with suppress(OSError):
        ago = time.time() - (settings.link / "gateway.heard").stat().st_mtime
        heard = say("{seconds} s ago", seconds=number(ago, ".0f"))
        rows.append((say("server last heard"), mark("ok" if ago < 120 else "warn", heard)))
    free = shutil.disk_usage(settings.ledger.parent)
    percent = 100 * free.free / free.total
    enough = percent >= settings.notify.disk_free_percent
    left = say("{free} GB free, {percent} %", free=number(free.free / 1e9, ".1f"), percent=number(percent, ".0f"))
    rows.append((say("disk of the ledger"), mark("ok" if enough else "warn", left)))
    rows.append((say("logs"), f"{number(logs.size_of(settings.link / 'logs') / 1e6, '.1f')} MB"))
    told = settings.notify.whom()
    rows.append((say("told of what waits"), told if told else mark("warn", say("nobody: set notify in site.yaml"))))
    return table((say("what"), say("state")), rows, "")
