"""The readiness ladder: what must hold before a hospital can take part, rung by rung, each with what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import torch

from client.cohort import catalog, identity, index
from client.cohort.cache import LEAST_FREE
from client.cohort.findings import IngestReport
from client.cohort.remedies import remedy_of
from client.cohort.withdrawals import withdrawn
from client.errors import SiteError
from client.ledger.accounting import epsilon_of
from client.ledger.records import open_records
from client.oversight import premises
from client.oversight.halt import stopped
from client.policy import COHORTS
from client.site import SiteSettings, delta_cap, secret
from tasks import contract as contracts
from tasks.machine.checklist import ClaimState
from tasks.task import Task

_FEW_OF_A_CLASS = 5
_NEARLY_SPENT = 0.8
_SLACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Rung:
    """One thing that was looked at: what was found, and what to do unless it is well."""

    name: str
    state: ClaimState
    found: str
    remedy: str = ""


def ladder(site: SiteSettings, task: Task) -> list[Rung]:
    """Look at all that is in the house. Nothing is changed and nothing leaves; a rung that fails hides no other."""
    return [*_cohort(site, task), _withdrawals(site), _disk(site), *_books(site), _processor()]


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
    yield _copies(report)
    yield _identities(site, task)


def _readable(report: IngestReport, task: Task) -> Rung:
    reasons = {
        reason: number
        for reason, number in report.left_out.items()
        if ":" not in reason and not any(word in reason for word in ("LABEL", "WITHDRAWN", "PATIENT", "DUPLICATE"))
    }
    lost = sum(reasons.values())
    found = f"{report.images} images can be used" + (f", {lost} files cannot be read" if lost else "")
    if not report.images:
        return Rung(
            "data readable", ClaimState.FAIL, found, "See what the ingest left out and why: consilium-site ingest"
        )
    if lost > report.images:
        most = max(reasons, key=lambda reason: reasons[reason])
        return Rung("data readable", ClaimState.WARN, found, f"Most are {most}. {remedy_of(task, most)}")
    return Rung("data readable", ClaimState.OK, found)


def _labels(report: IngestReport, task: Task) -> Rung:
    without, unmatched = report.contract.unlabelled, report.left_out["LABEL_WITHOUT_IMAGE"]
    contradicting = report.left_out["CONTRADICTING_LABEL_ROWS"]
    labelled = report.contract.examined + report.contract.derived
    found = f"{labelled} images have a label, {without} have none; {unmatched} labels have no image"
    if labelled < contracts.of_task(task.name).join.labelled * (labelled + without):
        return Rung("labels joined", ClaimState.FAIL, found, "Label more of the images in scope, or narrow the scope")
    if unmatched > labelled or contradicting:
        found += f", {contradicting} contradict each other" if contradicting else ""
        return Rung(
            "labels joined", ClaimState.WARN, found, "Compare the labels file's numbers with those in the images"
        )
    return Rung("labels joined", ClaimState.OK, found)


def _contract(report: IngestReport, task: Task) -> Rung:
    told = report.contract
    if not told.examined:
        return Rung("contract", ClaimState.WARN, f"{told.derived} derived images, which have no header to examine",
                    "Nothing can be said about their acquisition: use originals in a real hospital")  # fmt: skip
    found = f"{told.conforming} of {told.examined} images keep the contract"
    if not told.first:
        return Rung("contract", ClaimState.OK, found)
    worst = max(told.first, key=lambda rule: told.first[rule])
    remedy = next(rule.remedy for rule in contracts.of_task(task.name).rules if rule.id == worst)
    short = told.conforming < contracts.of_task(task.name).join.conforming * told.examined
    return Rung("contract", ClaimState.FAIL if short else ClaimState.WARN, f"{found}; most fail {worst!r}", remedy)


def _patients(report: IngestReport, site: SiteSettings) -> Rung:
    train, validation, least = report.patients["train"], report.patients["validation"], site.policy.min_patients
    found = f"{train} to train on, {validation} to validate with"
    if train < least or not validation:
        return Rung("patients", ClaimState.FAIL, found, f"At least {least} (policy.min_patients) and 1 are needed")
    size = site.public_size
    if size is not None and not size / 2 <= train <= size * 2:
        return Rung("patients", ClaimState.WARN, f"{found}; public_size says {size}",
                    "Declare a round number near the number of training patients")  # fmt: skip
    return Rung("patients", ClaimState.OK, found)


def _classes(report: IngestReport) -> Rung:
    found = ", ".join(f"{number} {name}" for name, number in report.classes.items())
    least = min(report.classes.values())
    if least == 0:
        return Rung(
            "classes", ClaimState.FAIL, found, "One class only: nothing can be learnt or scored; check the labels"
        )
    if least < _FEW_OF_A_CLASS:
        return Rung("classes", ClaimState.WARN, found, "Scores on so few patients of a class say next to nothing")
    return Rung("classes", ClaimState.OK, found)


def _copies(report: IngestReport) -> Rung:
    alike = report.likeness
    if not alike.pairs:
        return Rung("no copies", ClaimState.OK, "no two patients have the same image")
    found = f"{alike.pairs} pairs of images of different patients look the same, {alike.across_sides} across the split"
    return Rung(
        "no copies", ClaimState.WARN, found, "Look at them in the page of --html; join the patients or drop a copy"
    )


def _identities(site: SiteSettings, task: Task) -> Rung:
    with index.opened(site) as opened:
        problem = identity.problem_of(opened, site, task)
    if problem:
        return Rung("one person once", ClaimState.FAIL, problem, "consilium-site identities")
    return Rung(
        "one person once", ClaimState.OK, "nobody looks like a patient of another issuer, or somebody has signed"
    )


def _withdrawals(site: SiteSettings) -> Rung:
    try:
        names = withdrawn(site)
    except SiteError as error:
        return Rung("withdrawals", ClaimState.FAIL, str(error), "Nobody is trained on while the list cannot be read")
    if site.withdrawals is None:
        return Rung(
            "withdrawals", ClaimState.WARN, "no list is named", "Name one in site.yaml, an empty one if need be"
        )
    return Rung("withdrawals", ClaimState.OK, f"{len(names)} names on the list")


def _disk(site: SiteSettings) -> Rung:
    folder = next(path for path in (site.catalog, *site.catalog.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {folder}"
    if free < LEAST_FREE:
        return Rung(
            "disk", ClaimState.FAIL, found, "Make room: below 1 GB nothing is prepared, and the books cannot grow"
        )
    if free < 5 * LEAST_FREE:
        return Rung("disk", ClaimState.WARN, found, "Make room before the next ingest")
    return Rung("disk", ClaimState.OK, found)


def _books(site: SiteSettings) -> Iterator[Rung]:
    """Whether the hospital answers, what is left of its budget, and whether its clock agrees with its own audit log."""
    try:
        with open_records(site.ledger, site.audit_log, secret(site)) as records:
            delta, life = delta_cap(site), site.policy.max_epsilon_life
            spent = {cohort: epsilon_of(records.ledger.spent(cohort), delta) for cohort in COHORTS.values()}
            moments = [event.at for event in records.audit_log.events()]
            moments += [receipt.at for receipt in records.audit_log.receipts() if receipt.at is not None]
            set_aside = {mark.cohort for mark in records.ledger.account().earmarks()}
            change, lost = premises.change_of(site, records.ledger), premises.lost_heads(records)
            ledger = records.ledger.account().id
    except SiteError as error:
        yield Rung("books", ClaimState.FAIL, str(error), "consilium-site ledger verify")
        return
    yield _running(site)
    yield _terms(change)
    yield _owner(site, ledger)
    yield _seen(lost)
    found = ", ".join(f"{cohort} {epsilon:.2f} of {life:g}" for cohort, epsilon in spent.items())
    found += f"; more of {' and '.join(sorted(set_aside))} is set aside for studies" if set_aside else ""
    most = max(spent.values())
    state = ClaimState.FAIL if most >= life else ClaimState.WARN if most >= _NEARLY_SPENT * life else ClaimState.OK
    remedy = "" if state is ClaimState.OK else "policy.max_epsilon_life bounds what a patient loses, ever"
    yield Rung("budget", state, f"epsilon spent: {found}", remedy)
    yield _clock(max(moments, default=None))


def _running(site: SiteSettings) -> Rung:
    if stopped(site.stop_file):
        return Rung(
            "answering", ClaimState.FAIL, f"the hospital has stopped ({site.stop_file})", "consilium-site resume"
        )
    return Rung("answering", ClaimState.OK, "the hospital answers orders")


def _terms(change: premises.TermsChange | None) -> Rung:
    if change is None:
        return Rung("terms", ClaimState.OK, "site.yaml says what the ledger's sums rest on")
    return Rung(
        "terms", ClaimState.FAIL, "; ".join(change.differs), "Put site.yaml back, or consilium-site ledger rebase"
    )


def _owner(site: SiteSettings, ledger: str) -> Rung:
    try:
        index.claim(site, ledger)
    except SiteError as error:
        return Rung("one ledger", ClaimState.FAIL, str(error), "Name the first ledger and audit log in site.yaml")
    return Rung("one ledger", ClaimState.OK, "the catalog's patients are counted in this ledger only")


def _seen(lost: list[str]) -> Rung:
    if not lost:
        return Rung("witness", ClaimState.OK, "no order has named an entry that is not in the ledger")
    found = f"the coordinator has seen {len(lost)} entries that are not in the ledger, the last one {lost[-1][:12]}"
    return Rung("witness", ClaimState.FAIL, found, "Restore the newest backup, or consilium-site ledger acknowledge")


def _clock(newest: datetime | None) -> Rung:
    now = datetime.now(UTC)
    if newest is not None and newest > now + _SLACK:
        found = f"it is {now:%Y-%m-%d %H:%M} UTC here, the audit log has been at {newest:%Y-%m-%d %H:%M}"
        return Rung("clock", ClaimState.FAIL, found, "Set the clock (NTP): by a wrong one certificates are refused")
    return Rung("clock", ClaimState.OK, f"{now:%Y-%m-%d %H:%M} UTC, not before the audit log's last entry")


def _processor() -> Rung:
    if torch.cuda.is_available():
        return Rung("processor", ClaimState.OK, f"{torch.cuda.get_device_name(0)}, {torch.get_num_threads()} threads")
    return Rung("processor", ClaimState.OK, f"no GPU; {torch.get_num_threads()} threads are enough for scatter_linear")
