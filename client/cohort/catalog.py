"""The hospital's catalog: what its sources hold, which images meet the contract, and where the prepared examples are.

``ingest`` goes through the sources once: it judges each header, decodes each new or changed image that passes, applies
the task's declared transform, and stores the result without pickle under a digest of its inputs. The index
holds pseudonyms, labels and sides of the split; no PatientID, no UID and no path is stored in it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from client.cohort import findings, identity, index, people
from client.cohort.cache import ExampleCache
from client.cohort.findings import IngestReport
from client.cohort.index import Index
from client.cohort.intake import IngestProgress, Intake, keyed
from client.cohort.merges import Merge, read_merges
from client.cohort.people import People
from client.cohort.preparation import Decoding
from client.cohort.rows import Ingest
from client.cohort.withdrawals import withdrawn
from client.errors import CatalogStale, ContractNotMet, EmptySource
from client.ledger.audit_log import AuditLog, Fact, Kind
from client.site import SiteSettings, secret
from client.sources import header_cache
from client.sources.listing import list_source
from client.sources.record import SERIES_OF, Listing
from client.sources.settings import Source
from client.sources.visit import Sighting, Visit
from tasks import contract as contracts
from tasks import task as tasks
from tasks.task import Task


@dataclass(frozen=True)
class CatalogEntry:
    """One image of the catalog: its patient, label, secondary findings as far as known, and the path of its example."""

    patient: str
    label: float
    example: Path
    findings: tuple[float | None, ...] = ()


def ingest(
    site: SiteSettings,
    task: Task,
    progress: IngestProgress = lambda issuer, done, total: None,
    decoding: Decoding | None = None,
    verify: bool = False,
    accept_shrink: bool = False,
) -> IngestReport:
    """Update the catalog from the sources: read what is new or changed, remove what is gone.

    An interrupted ingest keeps what it had read; the next one goes on from there.

    Args:
        decoding: processes that several ingests share; without it this one starts its own.
        verify: retrieve all images of archives again, and compare them with the copies.
        accept_shrink: a person has said that what is gone from an archive is to be deleted here.

    Raises:
        NoCohort: a source is empty, or its labels match nothing, or no image could be used.
        SiteMisconfigured: a source's files are wrong, or the cache is full.
    """
    sources = [source for source in site.sources if source.task == task.name]
    if not sources:
        raise EmptySource(f"{site.name} has no source for task {task.name!r}; add one to `sources` in site.yaml")
    honour_withdrawals(site)
    unwilling, issuers = withdrawn(site), [source.issuer for source in sources]
    with ExitStack() as stack:
        known = stack.enter_context(people.opened(site))
        known.merge_all(issuers, merges := read_merges(site.merges))
        persons = known.pseudonyms(issuers, unwilling)
        visit = replace(
            _visit(site, known, persons, merges),
            verify=verify,
            accept_shrink=accept_shrink,
            headers=stack.enter_context(header_cache.opened(site.catalog, secret(site))),
            progress=progress,
        )
        listings = [(source, list_source(source, task, unwilling, visit)) for source in sources]
        _refuse_derived(site, task, listings)
        listings = _identified(site, known, listings, persons)
        catalog = stack.enter_context(index.opened(site))
        decoding = decoding or stack.enter_context(Decoding())
        taking = Intake(site, task, catalog, progress, decoding, person=known.person)
        _journal_replaced(site, task, catalog, listings)
        keep: set[str] = set()
        for source, listing in listings:
            keep |= taking.take_in(source, listing.records)
        gone = [image for image in catalog.images(task.name, issuers) if image.image not in keep]
        taking.cache.delete([*catalog.forget(gone), *catalog.unused(taking.superseded)])
        taking.cache.sweep(catalog.examples(task.name))
        _note(catalog, task, listings)
        identity.compare(catalog, site)
        report = _report(catalog, site, task, issuers)
    if not report.images:
        kind = ContractNotMet if report.contract.conforming < report.contract.examined else EmptySource
        told = "".join(f"\nNote: {warning}" for warning in report.warnings if warning.startswith(SERIES_OF))
        reasons = findings.counts(report.left_out)
        raise kind(f"{site.name}: no image of task {task.name!r} is usable ({reasons}){told}", report.left_out)
    return report


def _visit(site: SiteSettings, known: People, persons: set[str], merges: Sequence[Merge]) -> Visit:
    """Who is who, as sources ask.

    Args:
        persons: pseudonyms of those who have withdrawn.
    """
    return Visit(
        key=secret(site),
        unwilling=lambda sighting: known.is_one_of(sighting, persons),
        known_as=known.known_as,
        surviving={merge.retired: merge.surviving for merge in merges},
    )


def _identified(
    site: SiteSettings, known: People, listings: Sequence[tuple[Source, Listing]], unwilling: set[str]
) -> list[tuple[Source, Listing]]:
    """The listings without those of whom it is not certain who they are, and those who have withdrawn under whatever
    number."""
    if not site.simulated:
        shown: list[Sighting] = []
        for source, listing in listings:
            known.remember(replace(one, issuer=source.issuer) for one in listing.unwilling)
            shown += [Sighting(one.patient_id, source.issuer, one.image_id) for one in listing.records]
            shown += [replace(one, issuer=source.issuer) for one in listing.sightings]
        known.settle(shown)
    waiting, results = known.left_out(), []
    for source, listing in listings:
        left_out, records = Counter(listing.left_out), []
        for record in listing.records:
            person = known.person(source.issuer, record.patient_id).pseudonym
            if person in unwilling:
                left_out["WITHDRAWN"] += 1
            elif person in waiting:
                left_out["IDENTITY_CONFLICT"] += 1
            else:
                records.append(record)
        results.append((source, replace(listing, records=records, left_out=left_out)))
    return results


def _journal_replaced(
    site: SiteSettings, task: Task, catalog: Index, listings: Sequence[tuple[Source, Listing]]
) -> None:
    """Note how many images in use are about to be replaced: models so far have learned from the old ones."""
    if not site.audit_log.exists():
        return
    key, issuers = secret(site), [source.issuer for source, _ in listings]
    before = {image.image: image for image in catalog.images(task.name, issuers) if image.usable}
    sides = catalog.sides(task.name, issuers)
    replaced = []
    for source, listing in listings:
        for record in listing.records:
            old = before.get(keyed(key, "image", source.issuer, record.image_id))
            if old is not None and old.signature.split("+")[0] != record.signature.split("+")[0]:
                replaced.append(old)
    if replaced:
        patients = {image.patient for image in replaced}
        facts: dict[str, Fact] = {"task": task.name, "images": len(replaced), "patients": len(patients)}
        facts |= {side: sum(sides[one] == side for one in patients) for side in ("train", "validation")}
        with AuditLog.open(site.audit_log, key) as audit_log:
            audit_log.append_event(Kind.REPLACEMENT, facts)


def entries(site: SiteSettings, task: Task, side: str) -> list[CatalogEntry]:
    """The usable images of one side of the split, ordered by patient.

    A source's ``max_training_patients`` takes the first so many of its training patients in the order of their hash.
    """
    with index.opened(site) as catalog:
        return _entries(catalog, site, task, side)


def sides(site: SiteSettings, task: Task) -> dict[str, list[CatalogEntry]]:
    """``entries`` of both sides. What a round asks; see ``Index.remembered``. Whether they are enough to take part
    is asked when a study is approved, see ``enough.py``.

    Raises:
        CatalogStale: there was no ingest, or under another contract.
        SamePersonTwice: see ``identity.require_told_apart``.
    """
    caps = tuple(_caps(site, task).items())

    def answer(catalog: Index) -> dict[str, list[CatalogEntry]]:
        issuers = [source.issuer for source in site.sources if source.task == task.name]
        _require_current(site, task, catalog.ingests(task.name, issuers))
        identity.require_told_apart(catalog, site, task)
        return {side: _entries(catalog, site, task, side) for side in ("train", "validation")}

    question = task.name, contracts.digest_of_task(task.name), caps, tuple(identity.issuers_to_compare(site))
    with index.opened(site) as catalog:
        return catalog.remembered(question, lambda: answer(catalog))


def _caps(site: SiteSettings, task: Task) -> dict[str, int | None]:
    """How many training patients each issuer of the task may have at most."""
    return {s.issuer: s.max_training_patients for s in site.sources if s.task == task.name}


def _entries(catalog: Index, site: SiteSettings, task: Task, side: str) -> list[CatalogEntry]:
    caps = _caps(site, task)
    # Hospitals that are simulated on one machine share a catalog; each sees the patients of its own issuers.
    rows = catalog.usable(task.name, side, caps)
    cap_of = {issuer: cap if side == "train" and cap is not None else len(rows) for issuer, cap in caps.items()}
    cache = ExampleCache(site, task)
    return [
        CatalogEntry(patient, label, cache.path(example), tuple(json.loads(findings)))
        for issuer, patient, label, findings, example, rank in rows
        if rank <= cap_of.get(issuer, 0)
    ]


def report(site: SiteSettings, task: Task) -> IngestReport:
    """Results of the last ingest, without reading the sources again.

    Raises:
        CatalogStale: there was none, or it was made under another contract.
    """
    issuers = [source.issuer for source in site.sources if source.task == task.name]
    with index.opened(site) as catalog:
        _require_current(site, task, catalog.ingests(task.name, issuers))
        return _report(catalog, site, task, issuers)


def _report(catalog: Index, site: SiteSettings, task: Task, issuers: Sequence[str]) -> IngestReport:
    results = findings.report(task, catalog, issuers, ExampleCache(site, task))
    problem = identity.problem_of(catalog, site, task)
    if number := results.left_out["IDENTITY_CONFLICT"]:
        waits = f"{number} image(s) are left out until somebody has said who their patients are: run consilium-site "
        results = replace(results, warnings=[*results.warnings, waits + "identities"])
    return replace(results, warnings=[*results.warnings, f"cannot take part: {problem}"]) if problem else results


def require_contract(site: SiteSettings, task: Task) -> None:
    """Pass if the catalog was made under this release's contract and reaches its required fractions.

    Raises:
        CatalogStale: there was no ingest, or under another contract.
        ContractNotMet: naming each fraction that is too low.
    """
    with index.opened(site) as catalog:
        _require_contract(catalog, site, task)


def _require_contract(catalog: Index, site: SiteSettings, task: Task) -> None:
    issuers = [source.issuer for source in site.sources if source.task == task.name]
    _require_current(site, task, catalog.ingests(task.name, issuers))
    results = findings.contract_report(task, catalog, issuers)
    if results.shortfalls:
        raise ContractNotMet(f"{site.name} cannot take part in {task.name}: {'; '.join(results.shortfalls)}")


def honour_withdrawals(site: SiteSettings) -> int:
    """Remove patients who have withdrawn since the last time: images, examples and everything computed from them.

    Called before every round, so a withdrawal counts from the next one on. The audit log is told first.

    Returns:
        How many patients were forgotten.

    Raises:
        SiteMisconfigured: the list cannot be read; nobody is trained on while it is missing.
        LedgerBroken: the audit log cannot be written, so nothing was forgotten.
    """
    names = withdrawn(site)
    if not names or not (site.catalog / "index.sqlite").exists():
        return 0
    key = secret(site)
    issuers = sorted({source.issuer for source in site.sources})
    with people.opened(site) as known:
        pseudonyms = sorted(known.pseudonyms(issuers, names))
    with index.opened(site) as catalog:
        images = catalog.of_patients(pseudonyms)
        patients = len({image.patient for image in images})
        if not patients:
            return 0
        with AuditLog.open(site.audit_log, key) as audit_log:
            audit_log.append_event(Kind.WITHDRAWAL, {"patients": patients, "images": len(images)})
        unused = catalog.forget(images)
    for name in {image.task for image in images}:
        of_task = {image.example for image in images if image.task == name}
        ExampleCache(site, tasks.get(name)).delete(example for example in unused if example in of_task)
    return patients


def _refuse_derived(site: SiteSettings, task: Task, listings: Sequence[tuple[Source, Listing]]) -> None:
    derived = {source.kind for source, listing in listings for record in listing.records if record.acquisition is None}
    allowed = site.simulated and contracts.of_task(task.name).derived == "simulated_only"
    if derived and not allowed:
        raise ContractNotMet(
            f"{site.name}: sources of kind {', '.join(sorted(derived))} hold images derived for research, without a "
            f"header in which the contract of {task.name} could be checked. Use the DICOM originals"
            + ("" if site.simulated else ", or set `simulated: true` if this is not a real hospital")
        )


def _require_current(site: SiteSettings, task: Task, ingests: Sequence[Ingest]) -> None:
    missing = {s.issuer for s in site.sources if s.task == task.name} - {ingest.issuer for ingest in ingests}
    if missing or not ingests:
        raise CatalogStale(f"{site.name} has not ingested its images of {task.name}; run: consilium-site ingest")
    if any(ingest.contract != contracts.digest_of_task(task.name) for ingest in ingests):
        raise CatalogStale(
            f"{site.name} has ingested {task.name} under a contract other than this release's; "
            "run: consilium-site ingest (only headers are read again)"
        )


def _note(catalog: Index, task: Task, listings: Sequence[tuple[Source, Listing]]) -> None:
    for issuer in {source.issuer for source, _ in listings}:
        left_out: Counter[str] = Counter()
        warnings = []
        for source, listing in listings:
            if source.issuer == issuer:
                left_out.update(listing.left_out)
                warnings += listing.warnings
        digest = contracts.digest_of_task(task.name)
        catalog.note_ingest(
            Ingest(
                task=task.name,
                issuer=issuer,
                contract=digest,
                left_out=dict(left_out),
                warnings=warnings,
                at=index.now(),
            )
        )
