"""Data: import into the catalog, check, describe, and train on alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from client.cli.output import (
    COLOURS,
    HERE,
    REFUSED,
    AsJson,
    By,
    SiteFile,
    answer,
    fail,
    language_of,
    progress,
    short,
    table,
    who,
)
from client.cohort.remedies import RULE, remedy_of
from client.errors import CatalogStale, NoCohort, SiteMisconfigured
from client.ledger.audit_log import AuditLog, Fact, Kind
from client.oversight import signature
from client.site import SiteSettings, load, secret
from tasks import contract as contracts
from tasks import task as tasks
from tasks.machine.checklist import ClaimState
from tasks.machine.language import later, say, spoken
from tasks.task import Task

if TYPE_CHECKING:
    from client.cohort.describe import Description
    from client.cohort.findings import IngestReport
    from client.cohort.people import IdentityConflict
    from client.setup.check import Rung
    from client.training.baseline import Baseline

# What reads images and trains takes seconds to import: each command does so itself, since `stop` must not wait for it.

OnlyTask = Annotated[str, typer.Option("--task", help="Only this task. Default: every task that has a source.")]


def ingest(
    task: OnlyTask = "",
    verify: Annotated[
        bool, typer.Option("--verify", help="Retrieve all images of archives again, and compare them.")
    ] = False,
    accept_shrink: Annotated[
        bool, typer.Option("--accept-shrink", help="Delete here what is gone from an archive, however much it is.")
    ] = False,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Import images from the sources into the catalog: decode new and changed ones, remove deleted and withdrawn ones.

    May be interrupted at any time; the next run resumes from there.
    """
    from client.cohort import catalog
    from client.cohort.preparation import Decoding

    settings = load(site)
    reports: dict[str, IngestReport] = {}
    with Decoding() as decoding:
        for one in _tasks(settings, task):
            with _explained(one, as_json), progress(as_json) as update:
                reports[one.name] = catalog.ingest(
                    settings, one, update, decoding, verify=verify, accept_shrink=accept_shrink
                )
            _note(settings, one, reports[one.name])
    shown = [part for name, report in reports.items() for part in _report(name, report)]
    answer(as_json, reports, *shown)


@contextmanager
def _explained(task: Task, as_json: bool) -> Iterator[None]:
    """Where nothing can be used, the reasons and remedies matter most; as JSON they come with the error."""
    try:
        yield
    except NoCohort as error:
        if error.left_out and not as_json:
            Console(stderr=True, highlight=False).print(_left_out(task.name, error.left_out))
        raise


def _left_out(name: str, counted: Mapping[str, int]) -> RenderableType:
    rows = [(word, number, remedy_of(tasks.get(name), word)) for word, number in sorted(counted.items())]
    return table("Left out", ("reason", "number", "what to do"), rows, numbers=("number",))


def _tasks(settings: SiteSettings, name: str) -> list[Task]:
    having = list(dict.fromkeys(source.task for source in settings.sources))
    if name and name not in having:
        raise SiteMisconfigured(f"no source in site.yaml is for task {name!r}, only for {', '.join(having)}")
    return [tasks.get(one) for one in ([name] if name else having)]


def _note(settings: SiteSettings, task: Task, report: IngestReport) -> None:
    facts: dict[str, Fact] = {
        "task": task.name,
        "contract": short(contracts.digest_of_task(task.name)),
        "images": report.images,
        "patients": sum(report.patients.values()),
        "left_out": sum(report.left_out.values()),
    }
    with AuditLog.open(settings.audit_log, secret(settings)) as audit_log:
        audit_log.append_event(Kind.INGEST, facts)


def _report(name: str, report: IngestReport) -> Iterator[RenderableType]:
    rows: list[tuple[object, ...]] = [("usable images", report.images)]
    rows += [(f"patients, {side}", number) for side, number in report.patients.items()]
    rows += [(f"patients with {label}", number) for label, number in report.classes.items()]
    rows += [
        (f"patients with {finding}, of {known} known", number) for finding, (known, number) in report.findings.items()
    ]
    rows += [("patients with outlines", report.outlined)] if tasks.get(name).structures else []
    yield table(f"Catalog of {name}", ("", "number"), rows, numbers=("number",))
    if left_out := {word: number for word, number in report.left_out.items() if not word.startswith(RULE)}:
        yield _left_out(name, left_out)
    if rules := {**report.contract.every, **report.contract.warned}:
        remedies = {rule.id: rule.remedy for rule in contracts.of_task(name).rules}
        judged = [
            (rule, report.contract.first.get(rule, 0), report.contract.warned.get(rule, 0), remedies[rule])
            for rule in remedies
            if rule in rules
        ]
        columns = ("rule of the contract", "rejected", "warned", "what to do")
        yield table("Acquisition contract", columns, judged, numbers=columns[1:3])
    for warning in report.warnings:
        yield Text(f"Note: {warning}")


def check(
    task: OnlyTask = "",
    html: Annotated[Path | None, typer.Option("--html", help="Also write a page with sample images.")] = None,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """List what still blocks participation and how to fix it. Exit code 1 when something does."""
    from client.setup.check import ladder
    from client.setup.page import write_page

    settings = load(site)
    language = language_of(settings, as_json)

    def ladders() -> list[tuple[Task, list[Rung]]]:
        return [(one, [*ladder(settings, one), _server(settings)]) for one in _tasks(settings, task)]

    with spoken(language):
        checked = ladders()
        shown: list[RenderableType] = [_rungs(one, rungs) for one, rungs in checked]
        if html is not None:
            shown.append(Text(say("{page} shows patient images; it must not leave the hospital.", page=html)))
    if html is not None:
        with spoken(settings.lang):  # the page is for people, though a program may read the answer
            write_page(html, settings, checked if language == settings.lang else ladders())
    answer(as_json, {one.name: rungs for one, rungs in checked}, *shown)
    if any(rung.state is ClaimState.FAIL for _, rungs in checked for rung in rungs):
        fail(REFUSED)


def identities(
    sign: Annotated[bool, typer.Option("--sign", help="Sign that all pairs listed are different people.")] = False,
    same: Annotated[
        bool, typer.Option("--same", help="Sign that both numbers of each conflict listed are one person.")
    ] = False,
    site: SiteFile = HERE,
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """List patients who may be the same person: of two issuers, and under two numbers. Exit code 1 while any waits.

    A person with two numbers counts twice and may be on both sides of the split, so tasks with such patients are
    blocked. If they are the same person: in site.yaml, give sources that number the same people one issuer, or remove
    one source. If they are different people: --sign. ``check --html`` shows images by the same pseudonyms.

    A new number that shows a known patient's images is that patient by itself. Where that cannot be certain, the pair
    is a conflict, and both are left out: --same or --sign decides, the next ingest follows.
    """
    from client.cohort import identity, index, people

    settings = load(site)
    if sign and same:
        raise SiteMisconfigured("set --sign or --same, not both")
    issuers = identity.issuers_to_compare(settings)
    with people.opened(settings) as known:
        conflicts = known.conflicts()
        if conflicts and (sign or same):
            known.decide(people.SAME if same else people.DIFFERENT, signature.require_name(who(by)))
    with index.opened(settings) as catalog:
        if issuers and not catalog.are_compared(issuers):
            raise CatalogStale(identity.not_compared(issuers))
        pairs = catalog.alike(issuers)
        if sign and pairs:
            with AuditLog.open(settings.audit_log, secret(settings)) as audit_log:
                digests: dict[str, Fact] = {"pairs": identity.SEPARATOR.join(pair.pair for pair in pairs)}
                signature.sign(audit_log, Kind.IDENTITIES, who(by), {**digests, "number": len(pairs)})
            catalog.tell_apart(pair.pair for pair in pairs)
    columns = ("patient", "issuer", "patient ", "issuer ", "similar images")
    rows = [(short(p.one), p.issuer, short(p.other), p.other_issuer, p.images) for p in pairs]
    title = "Patients of two issuers who may be the same person, by pseudonym"
    state = f"Signed by {who(by)}: these are different people." if sign else "Not signed as different people yet."
    shown = (table(title, columns, rows, numbers=columns[4:]), Text(state)) if rows else ("No such pairs.",)
    answer(as_json, {"pairs": pairs, "signed": sign, "conflicts": conflicts}, *shown, *_conflicts(conflicts))
    if (pairs and not sign) or (conflicts and not (sign or same)):
        fail(REFUSED)


def _conflicts(conflicts: list[IdentityConflict]) -> Iterator[RenderableType]:
    if conflicts:
        rows = [(short(one.one), short(one.other), one.why) for one in conflicts]
        yield table("Numbers that may be one person; both are left out", ("patient", "patient ", "why"), rows)


def _server(settings: SiteSettings) -> Rung:
    from client.link import gateway
    from client.setup.check import Rung

    if settings.server is None:
        return Rung(
            later("server"), ClaimState.WARN, say("no server is set"), say("Set `server: host:port` in site.yaml")
        )
    if gateway.is_apart(settings):
        apart = say("the gateway, on another machine, connects to it; the trainer does not")
        return Rung("server", ClaimState.OK, apart)
    try:
        gateway.connect(settings.server)
    except (OSError, OverflowError) as error:
        remedy = say("Allow outgoing connections to it, or set HTTPS_PROXY; ask whoever runs the firewall")
        return Rung("server", ClaimState.FAIL, f"{settings.server}: {error}", remedy)
    return Rung("server", ClaimState.OK, say("{server} accepts connections", server=settings.server))


def _rungs(task: Task, rungs: list[Rung]) -> RenderableType:
    from client.setup.check import STATE_WORDS

    rows = [
        (Text(say(STATE_WORDS[rung.state]), style=COLOURS[rung.state]), say(rung.name), rung.found, rung.remedy)
        for rung in rungs
    ]
    columns = ("", say("check"), say("result"), say("what to do"))
    return table(say("Readiness for {task}", task=task.name), columns, rows, whole=columns[:2])


def describe_cohort(
    task: OnlyTask = "",
    for_sending: Annotated[bool, typer.Option("--for-sending", help="Suppress small counts, round the rest.")] = False,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Describe the cohort: patients, devices, contract. Exact figures, unless for sending."""
    from client.cohort import describe

    settings = load(site)
    descriptions = [describe.describe(settings, one) for one in _tasks(settings, task)]
    if for_sending:
        coarse = [describe.for_sending(one) for one in descriptions]
        answer(as_json, coarse, *(_coarse(one) for one in coarse))
        return
    answer(as_json, descriptions, *(part for one in descriptions for part in _description(one)))


def _description(description: Description) -> Iterator[RenderableType]:
    rows = [(f"patients: {name}", number) for name, number in description.patients.items()]
    rows += [(f"images: {name}", number) for name, number in description.images.items()]
    rows += [(f"{key}: {value}", n) for key, values in description.devices.items() for value, n in values.items()]
    rows += [(f"rejected first by {rule}", number) for rule, number in description.contract.items()]
    yield table(description.question, ("", "number"), rows, numbers=("number",))
    yield Text("Exact figures, for this hospital only. To share them outside, use --for-sending")


def _coarse(description: dict[str, object]) -> RenderableType:
    rows = [
        (name, f"{key}: {value}")
        for name, values in description.items()
        if isinstance(values, dict)
        for key, value in values.items()
    ]
    return table(
        str(description["question"]), ("", "patients"), [*rows, ("conforming images", description["conforming"] or "-")]
    )


def baseline(
    task: OnlyTask = "",
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=200, help="Rounds of the default study.")] = 10,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Train on this hospital's patients only, to see what its data can teach. Nothing leaves, nothing is charged."""
    from client.training.baseline import train_alone

    settings = load(site)
    results = {one.name: train_alone(settings, one, rounds) for one in _tasks(settings, task)}
    rows = [(name, result.trained_on, result.scored, _auc(result)) for name, result in results.items()]
    columns = ("task", "trained on", "scored", "AUC (95 % interval)")
    note = Text("Exact figures without noise, for this hospital only. Only a study's figures may leave.")
    answer(as_json, results, table("This hospital alone", columns, rows, numbers=columns[1:3]), note)


def _auc(result: Baseline) -> str:
    if result.auc is None:
        return "the scored patients are all of one class"
    return f"{result.auc.value:.3f} ({result.auc.low:.3f} to {result.auc.high:.3f})"
