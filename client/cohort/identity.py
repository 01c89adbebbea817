"""Who is who: the one place that says whether two patients of the catalog may be one person.

What privacy counts is a patient: one PatientID of one issuer. The same person under the numbers of two issuers is two
patients, each with an effect of their own and maybe on both sides of the split, and no sum in the ledger bounds that
person's loss. So where a hospital has several issuers, of whatever task, all their images are compared, and nobody of a
pair that looks like one person is used until somebody has signed that they are two.

What this cannot see: one person of whom the issuers hold different images only. Who names two issuers vouches for that.
A simulated hospital is not asked: its patients are nobody, and the pooled one has all others' issuers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from client.cohort.cache import ExampleCache, load_example
from client.cohort.index import AlikePair, Image, Index
from client.cohort.intake import keyed
from client.cohort.near_duplicates import confirm, nominate
from client.errors import SamePersonTwice
from client.ledger.audit_log import AuditLog, Kind
from client.site import SiteSettings, secret
from tasks import task as tasks
from tasks.task import Task

SEPARATOR = ","
_MOST_CANDIDATES = 50_000


def issuers_to_compare(site: SiteSettings) -> list[str]:
    """The issuers among whose patients one person may be twice; none where that cannot be."""
    issuers = sorted({source.issuer for source in site.sources})
    return [] if site.simulated or len(issuers) < 2 else issuers


def compare(catalog: Index, site: SiteSettings) -> None:
    """Look for pairs after an ingest, unless nothing is new. Too many candidates leave it undone, and that is refused
    later.

    Raises:
        CacheDamaged: a prepared image cannot be read.
    """
    issuers = issuers_to_compare(site)
    if not issuers or catalog.are_compared(issuers):
        return
    images = catalog.usable_images(issuers)
    printed = [image for image in images if image.fingerprint is not None]
    fingerprints = [image.fingerprint for image in printed if image.fingerprint is not None]
    candidates = nominate(fingerprints, [image.issuer for image in printed], _MOST_CANDIDATES)
    if len(candidates) >= _MOST_CANDIDATES:
        return
    caches = {name: ExampleCache(site, tasks.get(name)) for name in {image.task for image in printed}}
    found = confirm(candidates, lambda n: load_example(caches[printed[n].task].path(printed[n].example)))
    catalog.note_compared(issuers, images, list(_pairs(site, [(printed[a], printed[b]) for a, b in found])))
    if found:
        catalog.tell_apart(_signed(site))


def _pairs(site: SiteSettings, found: Iterable[tuple[Image, Image]]) -> Iterator[AlikePair]:
    key = secret(site)
    owners = Counter(tuple(sorted([(one.patient, one.issuer), (two.patient, two.issuer)])) for one, two in found)
    for ((one, its), (two, others)), images in owners.items():
        yield AlikePair(keyed(key, "pair", "", f"{one} {two}"), one, its, two, others, images)


def _signed(site: SiteSettings) -> list[str]:
    """Digests of the pairs of which somebody has signed, as the audit log has them, that they are two persons."""
    if not site.audit_log.exists():
        return []
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        signed = [str(event.facts["pairs"]) for event in audit_log.events(Kind.IDENTITIES)]
    return [digest for digests in signed for digest in digests.split(SEPARATOR)]


def require_told_apart(catalog: Index, site: SiteSettings, task: Task) -> None:
    """Pass if nobody of the task's patients looks like a patient of another issuer, or if that was signed.

    Asked behind ``Index.kept``, so that it costs an order nothing.

    Raises:
        SamePersonTwice: naming how many, and the remedy.
    """
    if problem := problem_of(catalog, site, task):
        raise SamePersonTwice(f"{site.name} cannot take part in {task.name}: {problem}")


def problem_of(catalog: Index, site: SiteSettings, task: Task) -> str:
    """A sentence on what keeps the task's patients from being used; "" if nothing does."""
    issuers = issuers_to_compare(site)
    if not issuers:
        return ""
    if not catalog.are_compared(issuers):
        return not_compared(issuers)
    if open_pairs := catalog.alike(issuers, task.name):
        return (
            f"{len(open_pairs)} pair(s) of patients of two issuers look like one person, who would count twice. Give "
            "sources that number the same people one issuer, or drop one; if they are different people, somebody has "
            "to sign that: consilium-site identities"
        )
    return ""


def not_compared(issuers: Iterable[str]) -> str:
    """The sentence on a catalog whose patients have not all been compared."""
    return (
        f"patients of {', '.join(issuers)} have not all been compared, since an ingest has not ended or more than "
        f"{_MOST_CANDIDATES:,} pairs of images resemble each other. Say: consilium-site ingest. If it tells so again, "
        "give sources that number the same people one issuer, or narrow them"
    )
