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
from tasks.task import Task

_FEW_OF_A_CLASS = 5
_NEARLY_SPENT = 0.8
_APART = {"float32": 1e-3, "bfloat16": 0.2}
"""How far a device's step may be from the processor's, as a fraction of its largest value."""
_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Rung:
    """One check: the result, and what to do if it fails."""

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
        yield Rung("data readable", ClaimState.FAIL, str(error), "consilium-site ingest")
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
    result = f"{report.images} usable images" + (f", {lost} files cannot be read" if lost else "")
    if not report.images:
        return Rung(
            "data readable", ClaimState.FAIL, result, "Run consilium-site ingest to see what was left out and why"
        )
    if lost > report.images:
        most = max(reasons, key=lambda reason: reasons[reason])
        return Rung("data readable", ClaimState.WARN, result, f"Most: {most}. {remedy_of(task, most)}")
    return Rung("data readable", ClaimState.OK, result)


def _labels(report: IngestReport, task: Task) -> Rung:
    without, unmatched = report.contract.unlabelled, report.left_out["LABEL_WITHOUT_IMAGE"]
    contradicting = report.left_out["CONTRADICTING_LABEL_ROWS"]
    labelled = report.contract.examined + report.contract.derived
    result = f"{labelled} images have a label, {without} have none; {unmatched} labels have no image"
    if labelled < contracts.of_task(task.name).join.labelled * (labelled + without):
        return Rung("labels joined", ClaimState.FAIL, result, "Label more images in scope, or narrow the scope")
    if unmatched > labelled or contradicting:
        result += f", {contradicting} contradict each other" if contradicting else ""
        return Rung(
            "labels joined", ClaimState.WARN, result, "Compare the identifiers in the labels with those in the images"
        )
    return Rung("labels joined", ClaimState.OK, result)


def _contract(report: IngestReport, task: Task) -> Rung:
    contract = report.contract
    if not contract.examined:
        return Rung("contract", ClaimState.WARN, f"{contract.derived} derived images, without a header to check",
                    "Their acquisition cannot be checked: real hospitals must use the originals")  # fmt: skip
    result = f"{contract.conforming} of {contract.examined} images meet the contract"
    if not contract.first:
        return Rung("contract", ClaimState.OK, result)
    worst = max(contract.first, key=lambda rule: contract.first[rule])
    remedy = next(rule.remedy for rule in contracts.of_task(task.name).rules if rule.id == worst)
    short = contract.conforming < contracts.of_task(task.name).join.conforming * contract.examined
    state = ClaimState.FAIL if short else ClaimState.WARN
    return Rung("contract", state, f"{result}; most frequent failure: {worst!r}", remedy)


def _patients(report: IngestReport, site: SiteSettings) -> Rung:
    train, validation, least = report.patients["train"], report.patients["validation"], site.policy.min_patients
    result = f"{train} for training, {validation} for validation"
    if train < least or not validation:
        return Rung("patients", ClaimState.FAIL, result, f"At least {least} (policy.min_patients) and 1 are required")
    size = site.public_size
    if size is not None and not size / 2 <= train <= size * 2:
        return Rung("patients", ClaimState.WARN, f"{result}; public_size is {size}",
                    "Set public_size to a round number near the number of training patients")  # fmt: skip
    return Rung("patients", ClaimState.OK, result)


def _classes(report: IngestReport) -> Rung:
    result = ", ".join(f"{number} {name}" for name, number in report.classes.items())
    least = min(report.classes.values())
    if least == 0:
        return Rung(
            "classes", ClaimState.FAIL, result, "Only one class: nothing can be learned or scored; check the labels"
        )
    if least < _FEW_OF_A_CLASS:
        return Rung(
            "classes", ClaimState.WARN, result, "With so few patients in a class, scores are nearly meaningless"
        )
    return Rung("classes", ClaimState.OK, result)


def _text(report: IngestReport, task: Task) -> Rung:
    rules = {rule.id for rule in contracts.of_task(task.name).rules if rule.check in ("no_text", "not_burned_in")}
    shown = sum(report.contract.warned.get(rule, 0) + report.contract.first.get(rule, 0) for rule in rules)
    if not shown:
        return Rung("no names", ClaimState.OK, "no image says that names are burned in, and none shows a line of text")
    result = f"{shown} images show a line of text or say that names are burned in"
    return Rung("no names", ClaimState.WARN, result, "View them with --html; leave out those with a name")


def _copies(report: IngestReport) -> Rung:
    alike = report.near_duplicates
    if not alike.pairs:
        return Rung("no copies", ClaimState.OK, "no two patients share an image")
    result = f"{alike.pairs} pairs of images of different patients look the same, {alike.across_sides} across the split"
    return Rung("no copies", ClaimState.WARN, result, "View them with --html; merge the patients or remove a copy")


def _identities(site: SiteSettings, task: Task) -> Rung:
    with index.opened(site) as opened:
        problem = identity.problem_of(opened, site, task)
    if problem:
        return Rung("one person once", ClaimState.FAIL, problem, "consilium-site identities")
    return Rung(
        "one person once", ClaimState.OK, "no patients of two issuers look alike, or all pairs are signed as different"
    )


def _withdrawals(site: SiteSettings) -> Rung:
    try:
        names = withdrawn(site)
    except SiteError as error:
        return Rung("withdrawals", ClaimState.FAIL, str(error), "Fix the list: until then nobody is trained on")
    if site.withdrawals is None:
        return Rung(
            "withdrawals", ClaimState.WARN, "no list is set", "Set `withdrawals` in site.yaml; the list may be empty"
        )
    return Rung("withdrawals", ClaimState.OK, f"{len(names)} names on the list")


def _disk(site: SiteSettings) -> Rung:
    folder = next(path for path in (site.catalog, *site.catalog.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    result = f"{free / 1e9:.1f} GB free at {folder}"
    if free < LEAST_FREE:
        return Rung(
            "disk",
            ClaimState.FAIL,
            result,
            "Free disk space: below 1 GB no images are prepared and the ledger may fail",
        )
    if free < 5 * LEAST_FREE:
        return Rung("disk", ClaimState.WARN, result, "Free disk space before the next ingest")
    return Rung("disk", ClaimState.OK, result)


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
        yield Rung("ledger", ClaimState.FAIL, str(error), "consilium-site ledger verify")
        return
    yield _running(site)
    yield _terms(change)
    yield _owner(site, ledger)
    yield _seen(lost)
    yield _approvals(decided, site.policy.approvers)
    spending = ", ".join(f"{cohort} {epsilon:.2f} of {life:g}" for cohort, epsilon in spent.items())
    spending += f"; more is set aside for studies, of {' and '.join(sorted(set_aside))}" if set_aside else ""
    most = max(spent.values())
    state = ClaimState.FAIL if most >= life else ClaimState.WARN if most >= _NEARLY_SPENT * life else ClaimState.OK
    remedy = "" if state is ClaimState.OK else "policy.max_epsilon_life is the limit for a patient's lifetime"
    yield Rung("budget", state, f"epsilon spent: {spending}", remedy)
    yield _clock(max(moments, default=None))


def _running(site: SiteSettings) -> Rung:
    if stopped(site.stop_file):
        return Rung(
            "answering", ClaimState.FAIL, f"the hospital is stopped ({site.stop_file})", "consilium-site resume"
        )
    return Rung("answering", ClaimState.OK, "the hospital answers orders")


def _terms(change: premises.TermsChange | None) -> Rung:
    if change is None:
        return Rung("terms", ClaimState.OK, "site.yaml has the ledger's terms")
    return Rung(
        "terms", ClaimState.FAIL, "; ".join(change.differs), "Restore site.yaml, or run consilium-site ledger rebase"
    )


def _owner(site: SiteSettings, ledger: str) -> Rung:
    try:
        ownership.claim(site, ledger)
    except SiteError as error:
        return Rung("one ledger", ClaimState.FAIL, str(error), "Set the first ledger and audit log in site.yaml")
    return Rung("one ledger", ClaimState.OK, "the catalog's patients are counted in this ledger only")


def _seen(lost: list[str]) -> Rung:
    if not lost:
        return Rung("witness", ClaimState.OK, "no order has named an entry missing from the ledger")
    seen = f"the coordinator has seen {len(lost)} entries missing from the ledger, most recently {lost[-1][:12]}"
    return Rung("witness", ClaimState.FAIL, seen, "Restore the newest backup, or: consilium-site ledger acknowledge")


def _approvals(decided: list[Decision], approvers: int) -> Rung:
    """Whom a study waits for that somebody has begun to approve; those that nobody has looked at are in ``review``."""
    rule = f"{approvers} people must approve a study" if approvers > 1 else "one person approves a study"
    waiting = [one for one in decided if one.signatures and one.missing]
    if not waiting:
        return Rung("approval", ClaimState.OK, f"{rule}; {sum(one.approved for one in decided)} are approved")
    found = "; ".join(f"{one.study} has {' and '.join(each.by for each in one.signatures)}" for one in waiting)
    remedy = f"Another person: consilium-site review {waiting[-1].digest[:12]}"
    return Rung("approval", ClaimState.WARN, f"{rule}; {found}", remedy)


def _clock(newest: datetime | None) -> Rung:
    now = datetime.now(UTC)
    if newest is not None and newest > now + _SLACK:
        result = f"it is {now:%Y-%m-%d %H:%M} UTC here, but the audit log has an entry of {newest:%Y-%m-%d %H:%M}"
        return Rung("clock", ClaimState.FAIL, result, "Set the clock (NTP): a wrong clock makes certificates invalid")
    return Rung("clock", ClaimState.OK, f"{now:%Y-%m-%d %H:%M} UTC, not before the audit log's last entry")


def _device(site: SiteSettings, task: Task) -> Rung:
    """What networks are trained on, tried: a GPU that is there and not used is no reason for "ok"."""
    wanted, there = site.trainer.device, device.present()
    try:
        found = device.find(wanted)
    except device.NoSuchDevice as error:
        return Rung("processor", ClaimState.FAIL, f"{error}; the processor is used", "Set trainer.device, or mend it")
    if found.type != "cpu":
        return _tried(site, task, device.Placement(found, device.PRECISIONS[site.trainer.precision]))
    threads = torch.get_num_threads()
    some = f"{threads} thread{'s' if threads > 1 else ''}"
    if there is not None:
        unused = f"{some}; {device.name_of(there)} is there and not used: trainer.device is {wanted}"
        return Rung("processor", ClaimState.WARN, unused, "Set trainer.device: auto")
    return Rung("processor", ClaimState.OK, f"{some}, enough for scatter_linear; no GPU that PyTorch can use")


def _tried(site: SiteSettings, task: Task, on: device.Placement) -> Rung:
    name = device.name_of(on.device)
    try:
        made = tried(site, task, on)
    except SiteError as error:
        return Rung("processor", ClaimState.FAIL, f"{name} was not tried: {error}", "Raise max_memory_mb")
    if made.failures:
        said = f"{name} is not used: {'; '.join(made.failures)}"
        return Rung("processor", ClaimState.FAIL, said, "Mend it, lower max_memory_mb, or set trainer.device: cpu")
    if made.apart > _APART[site.trainer.precision]:
        said = f"{name} computes another step than the processor, {made.apart:.0e} of its largest value apart"
        return Rung("processor", ClaimState.FAIL, said, "Set trainer.device: cpu, and report it to us")
    said = f"{name}: a private step of {made.network} takes {made.seconds:.2g} s{_in(made.megabytes)}, "
    said += f"the processor's {made.processor_seconds:.2g} s{_in(made.processor_megabytes)}"
    if made.seconds > made.processor_seconds:
        return Rung("processor", ClaimState.WARN, said, "It is slower: set trainer.device: cpu")
    return Rung("processor", ClaimState.OK, said)


def _in(megabytes: int | None) -> str:
    return "" if megabytes is None else f" and {megabytes} MiB"
