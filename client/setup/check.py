"""The readiness check: what must hold before a hospital can take part, step by step, each with its remedy.

Tested in ``tests/client/cli/test_data.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import torch

from client.cohort import catalog, identity, index, ownership
from client.cohort.cache import LEAST_FREE
from client.cohort.findings import IngestReport
from client.cohort.remedies import remedy_of
from client.cohort.withdrawals import withdrawn
from client.errors import SiteError
from client.ledger.accounting import epsilon_of
from client.ledger.records import open_records
from client.oversight import approvals, premises
from client.oversight.approvals import Decision
from client.oversight.halt import stopped
from client.policy import COHORTS
from client.site import SiteSettings, delta_cap, secret
from client.training.trial import tried
from tasks import contract as contracts
from tasks.machine import device
from tasks.machine.checklist import ClaimState
from tasks.machine.language import joined, later, moment, number, say, say_many
from tasks.task import Task

_FEW_OF_A_CLASS = 5
_NEARLY_SPENT = 0.8
_APART = {"float32": 1e-3, "bfloat16": 0.2}
"""How far a device's step may be from the processor's, as a fraction of its largest value."""
_SLACK = timedelta(minutes=5)
STATE_WORDS = {ClaimState.OK: later("ok"), ClaimState.WARN: later("warn"), ClaimState.FAIL: later("fail")}
"""What each state is called where people read."""


@dataclass(frozen=True)
class Rung:
    """One check: the result, and what to do if it fails. ``name`` is its code; the rest is in the language spoken."""

    name: str
    state: ClaimState
    found: str
    remedy: str = ""


def ladder(site: SiteSettings, task: Task) -> list[Rung]:
    """Check everything on the hospital's side. Nothing is changed and nothing leaves; a failure hides no other."""
    return [*_cohort(site, task), _withdrawals(site), _disk(site), *_ledger(site), _device(site, task)]


def _cohort(site: SiteSettings, task: Task) -> Iterator[Rung]:
    try:
        report = catalog.report(site, task)
    except SiteError as error:
        yield Rung(later("data readable"), ClaimState.FAIL, str(error), "consilium-site ingest")
        return
    yield _readable(report, task)
    yield _labels(report, task)
    yield _contract(report, task)
    yield _patients(report, site)
    yield _classes(report)
    yield _text(report, task)
    yield _copies(report)
    yield _identities(site, task)


def _readable(report: IngestReport, task: Task) -> Rung:
    reasons = {
        reason: number
        for reason, number in report.left_out.items()
        if ":" not in reason and not any(word in reason for word in ("LABEL", "WITHDRAWN", "PATIENT", "DUPLICATE"))
    }
    lost = sum(reasons.values())
    result = say_many("{n} usable image", "{n} usable images", report.images)
    result += say_many(", {n} file cannot be read", ", {n} files cannot be read", lost) if lost else ""
    if not report.images:
        return Rung(
            later("data readable"),
            ClaimState.FAIL,
            result,
            say("Run consilium-site ingest to see what was left out and why"),
        )
    if lost > report.images:
        most = max(reasons, key=lambda reason: reasons[reason])
        return Rung(
            later("data readable"),
            ClaimState.WARN,
            result,
            say("Most: {reason}. {remedy}", reason=most, remedy=remedy_of(task, most)),
        )
    return Rung(later("data readable"), ClaimState.OK, result)


def _labels(report: IngestReport, task: Task) -> Rung:
    without, unmatched = report.contract.unlabelled, report.left_out["LABEL_WITHOUT_IMAGE"]
    contradicting = report.left_out["CONTRADICTING_LABEL_ROWS"]
    labelled = report.contract.examined + report.contract.derived
    result = say(
        "{labelled} images have a label, {without} have none; {unmatched} labels have no image",
        labelled=labelled,
        without=without,
        unmatched=unmatched,
    )
    if labelled < contracts.of_task(task.name).join.labelled * (labelled + without):
        return Rung(
            later("labels joined"), ClaimState.FAIL, result, say("Label more images in scope, or narrow the scope")
        )
    if unmatched > labelled or contradicting:
        result += say(", {number} contradict each other", number=contradicting) if contradicting else ""
        return Rung(
            later("labels joined"),
            ClaimState.WARN,
            result,
            say("Compare the identifiers in the labels with those in the images"),
        )
    return Rung(later("labels joined"), ClaimState.OK, result)


def _contract(report: IngestReport, task: Task) -> Rung:
    contract = report.contract
    if not contract.examined:
        return Rung(later("contract"), ClaimState.WARN, say_many("{n} derived image, without a header to check",
                             "{n} derived images, without a header to check", contract.derived),
                    say("Their acquisition cannot be checked: real hospitals must use the originals"))  # fmt: skip
    meeting = {"conforming": contract.conforming, "examined": contract.examined}
    result = say("{conforming} of {examined} images meet the contract", **meeting)
    if not contract.first:
        return Rung(later("contract"), ClaimState.OK, result)
    worst = max(contract.first, key=lambda rule: contract.first[rule])
    remedy = next(rule.remedy for rule in contracts.of_task(task.name).rules if rule.id == worst)
    short = contract.conforming < contracts.of_task(task.name).join.conforming * contract.examined
    state = ClaimState.FAIL if short else ClaimState.WARN
    result += say("; most frequent failure: {rule}", rule=repr(worst))
    return Rung(later("contract"), state, result, say(remedy))


def _patients(report: IngestReport, site: SiteSettings) -> Rung:
    train, validation, least = report.patients["train"], report.patients["validation"], site.policy.min_patients
    result = say("{train} for training, {validation} for validation", train=train, validation=validation)
    if train < least or not validation:
        return Rung(
            later("patients"),
            ClaimState.FAIL,
            result,
            say("At least {least} (policy.min_patients) and 1 are required", least=least),
        )
    size = site.public_size
    if size is not None and not size / 2 <= train <= size * 2:
        return Rung(later("patients"), ClaimState.WARN, result + say("; public_size is {size}", size=size),
                    say("Set public_size to a round number near the number of training patients"))  # fmt: skip
    return Rung(later("patients"), ClaimState.OK, result)


def _classes(report: IngestReport) -> Rung:
    result = ", ".join(f"{count} {say(name.replace('_', ' '))}" for name, count in report.classes.items())
    least = min(report.classes.values())
    if least == 0:
        return Rung(
            later("classes"),
            ClaimState.FAIL,
            result,
            say("Only one class: nothing can be learned or scored; check the labels"),
        )
    if least < _FEW_OF_A_CLASS:
        return Rung(
            later("classes"),
            ClaimState.WARN,
            result,
            say("With so few patients in a class, scores are nearly meaningless"),
        )
    return Rung(later("classes"), ClaimState.OK, result)


def _text(report: IngestReport, task: Task) -> Rung:
    rules = {rule.id for rule in contracts.of_task(task.name).rules if rule.check in ("no_text", "not_burned_in")}
    shown = sum(report.contract.warned.get(rule, 0) + report.contract.first.get(rule, 0) for rule in rules)
    if not shown:
        return Rung(
            later("no names"),
            ClaimState.OK,
            say("no image says that names are burned in, and none shows a line of text"),
        )
    result = say_many(
        "{n} image shows a line of text or says that names are burned in",
        "{n} images show a line of text or say that names are burned in",
        shown,
    )
    return Rung(later("no names"), ClaimState.WARN, result, say("View them with --html; leave out those with a name"))


def _copies(report: IngestReport) -> Rung:
    alike = report.near_duplicates
    if not alike.pairs:
        return Rung(later("no copies"), ClaimState.OK, say("no two patients share an image"))
    result = say_many(
        "{n} pair of images of different patients looks the same, {across} across the split",
        "{n} pairs of images of different patients look the same, {across} across the split",
        alike.pairs,
        across=alike.across_sides,
    )
    return Rung(
        later("no copies"), ClaimState.WARN, result, say("View them with --html; merge the patients or remove a copy")
    )


def _identities(site: SiteSettings, task: Task) -> Rung:
    with index.opened(site) as opened:
        problem = identity.problem_of(opened, site, task)
    if problem:
        return Rung(later("one person once"), ClaimState.FAIL, problem, "consilium-site identities")
    return Rung(
        later("one person once"),
        ClaimState.OK,
        say("no patients of two issuers look alike, or all pairs are signed as different"),
    )


def _withdrawals(site: SiteSettings) -> Rung:
    try:
        names = withdrawn(site)
    except SiteError as error:
        return Rung(
            later("withdrawals"), ClaimState.FAIL, str(error), say("Fix the list: until then nobody is trained on")
        )
    if site.withdrawals is None:
        return Rung(
            later("withdrawals"),
            ClaimState.WARN,
            say("no list is set"),
            say("Set `withdrawals` in site.yaml; the list may be empty"),
        )
    return Rung(
        later("withdrawals"), ClaimState.OK, say_many("{n} name on the list", "{n} names on the list", len(names))
    )


def _disk(site: SiteSettings) -> Rung:
    folder = next(path for path in (site.catalog, *site.catalog.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    result = say("{free} GB free at {folder}", free=number(free / 1e9, ".1f"), folder=folder)
    if free < LEAST_FREE:
        return Rung(
            later("disk"),
            ClaimState.FAIL,
            result,
            say("Free disk space: below 1 GB no images are prepared and the ledger may fail"),
        )
    if free < 5 * LEAST_FREE:
        return Rung(later("disk"), ClaimState.WARN, result, say("Free disk space before the next ingest"))
    return Rung(later("disk"), ClaimState.OK, result)


def _ledger(site: SiteSettings) -> Iterator[Rung]:
    """Whether the hospital answers orders, its remaining budget, and whether its clock agrees with its audit log."""
    try:
        with open_records(site.ledger, site.audit_log, secret(site)) as records:
            delta, life = delta_cap(site), site.policy.max_epsilon_life
            spent = {cohort: epsilon_of(records.ledger.spent(cohort), delta) for cohort in COHORTS.values()}
            moments = [event.at for event in records.audit_log.events()]
            moments += [receipt.at for receipt in records.audit_log.receipts() if receipt.at is not None]
            set_aside = {mark.cohort for mark in records.ledger.account().earmarks()}
            change, lost = premises.change_of(site, records.ledger), premises.lost_heads(records)
            ledger = records.ledger.account().id
            decided = list(approvals.decisions(records.audit_log, site).values())
    except SiteError as error:
        yield Rung(later("ledger"), ClaimState.FAIL, str(error), "consilium-site ledger verify")
        return
    yield _running(site)
    yield _terms(change)
    yield _owner(site, ledger)
    yield _seen(lost)
    yield _approvals(decided, site.policy.approvers)
    spending = ", ".join(
        say("{cohort} {epsilon} of {cap}", cohort=cohort, epsilon=number(epsilon, ".2f"), cap=number(life))
        for cohort, epsilon in spent.items()
    )
    if set_aside:
        spending += say("; more is set aside for studies, of {cohorts}", cohorts=joined(sorted(set_aside)))
    most = max(spent.values())
    state = ClaimState.FAIL if most >= life else ClaimState.WARN if most >= _NEARLY_SPENT * life else ClaimState.OK
    remedy = "" if state is ClaimState.OK else say("policy.max_epsilon_life is the limit for a patient's lifetime")
    yield Rung(later("budget"), state, say("epsilon spent: {spending}", spending=spending), remedy)
    yield _clock(max(moments, default=None))


def _running(site: SiteSettings) -> Rung:
    if stopped(site.stop_file):
        return Rung(
            later("answering"),
            ClaimState.FAIL,
            say("the hospital is stopped ({file})", file=site.stop_file),
            "consilium-site resume",
        )
    return Rung(later("answering"), ClaimState.OK, say("the hospital answers orders"))


def _terms(change: premises.TermsChange | None) -> Rung:
    if change is None:
        return Rung(later("terms"), ClaimState.OK, say("site.yaml has the ledger's terms"))
    return Rung(
        later("terms"),
        ClaimState.FAIL,
        "; ".join(change.differs),
        say("Restore site.yaml, or run consilium-site ledger rebase"),
    )


def _owner(site: SiteSettings, ledger: str) -> Rung:
    try:
        ownership.claim(site, ledger)
    except SiteError as error:
        return Rung(
            later("one ledger"), ClaimState.FAIL, str(error), say("Set the first ledger and audit log in site.yaml")
        )
    return Rung(later("one ledger"), ClaimState.OK, say("the catalog's patients are counted in this ledger only"))


def _seen(lost: list[str]) -> Rung:
    if not lost:
        return Rung(later("witness"), ClaimState.OK, say("no order has named an entry missing from the ledger"))
    seen = say_many(
        "the coordinator has seen {n} entry missing from the ledger, most recently {last}",
        "the coordinator has seen {n} entries missing from the ledger, most recently {last}",
        len(lost),
        last=lost[-1][:12],
    )
    remedy = say("Restore the newest backup, or: consilium-site ledger acknowledge")
    return Rung(later("witness"), ClaimState.FAIL, seen, remedy)


def _approvals(decided: list[Decision], approvers: int) -> Rung:
    """Whom a study waits for that somebody has begun to approve; those that nobody has looked at are in ``review``."""
    rule = say("one person approves a study")
    if approvers > 1:
        rule = say("{number} people must approve a study", number=approvers)
    waiting = [one for one in decided if one.signatures and one.missing]
    if not waiting:
        return Rung(
            later("approval"),
            ClaimState.OK,
            rule + say("; {number} are approved", number=sum(one.approved for one in decided)),
        )
    found = "; ".join(
        say("{study} has {people}", study=one.study, people=joined(each.by for each in one.signatures))
        for one in waiting
    )
    command = f"consilium-site review {waiting[-1].digest[:12]}"
    remedy = say("Another person: {command}", command=command)
    return Rung(later("approval"), ClaimState.WARN, f"{rule}; {found}", remedy)


def _clock(newest: datetime | None) -> Rung:
    now = datetime.now(UTC)
    if newest is not None and newest > now + _SLACK:
        result = say(
            "it is {now} UTC here, but the audit log has an entry of {newest}", now=moment(now), newest=moment(newest)
        )
        remedy = say("Set the clock (NTP): a wrong clock makes certificates invalid")
        return Rung(later("clock"), ClaimState.FAIL, result, remedy)
    return Rung(later("clock"), ClaimState.OK, say("{now} UTC, not before the audit log's last entry", now=moment(now)))


def _device(site: SiteSettings, task: Task) -> Rung:
    """What networks are trained on, tried: a GPU that is there and not used is no reason for "ok"."""
    wanted, there = site.trainer.device, device.present()
    try:
        found = device.find(wanted)
    except device.NoSuchDevice as error:
        said = say("{problem}; the processor is used", problem=error)
        return Rung(later("processor"), ClaimState.FAIL, said, say("Set trainer.device, or mend it"))
    if found.type != "cpu":
        return _tried(site, task, device.Placement(found, device.PRECISIONS[site.trainer.precision]))
    threads = torch.get_num_threads()
    some = say_many("{n} thread", "{n} threads", threads)
    if there is not None:
        unused = say(
            "{threads}; {device} is there and not used: trainer.device is {wanted}",
            threads=some,
            device=device.name_of(there),
            wanted=wanted,
        )
        return Rung(later("processor"), ClaimState.WARN, unused, say("Set trainer.device: auto"))
    enough = say("{threads}, enough for scatter_linear; no GPU that PyTorch can use", threads=some)
    return Rung(later("processor"), ClaimState.OK, enough)


def _tried(site: SiteSettings, task: Task, on: device.Placement) -> Rung:
    name = device.name_of(on.device)
    try:
        made = tried(site, task, on)
    except SiteError as error:
        said = say("{device} was not tried: {problem}", device=name, problem=error)
        return Rung(later("processor"), ClaimState.FAIL, said, say("Raise max_memory_mb"))
    if made.failures:
        said = say("{device} is not used: {problem}", device=name, problem="; ".join(made.failures))
        remedy = say("Mend it, lower max_memory_mb, or set trainer.device: cpu")
        return Rung(later("processor"), ClaimState.FAIL, said, remedy)
    if made.apart > _APART[site.trainer.precision]:
        said = say(
            "{device} computes another step than the processor, {apart} of its largest value apart",
            device=name,
            apart=number(made.apart, ".0e"),
        )
        return Rung(later("processor"), ClaimState.FAIL, said, say("Set trainer.device: cpu, and report it to us"))
    said = say(
        "{device}: a private step of {network} takes {time}, the processor's {processor_time}",
        device=name,
        network=made.network,
        time=_taking(made.seconds, made.megabytes),
        processor_time=_taking(made.processor_seconds, made.processor_megabytes),
    )
    if made.seconds > made.processor_seconds:
        return Rung(later("processor"), ClaimState.WARN, said, say("It is slower: set trainer.device: cpu"))
    return Rung(later("processor"), ClaimState.OK, said)


def _taking(seconds: float, megabytes: int | None) -> str:
    time = number(seconds, ".2g")
    return f"{time} s" if megabytes is None else say("{time} s and {size} MiB", time=time, size=megabytes)
