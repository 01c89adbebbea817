"""Identity: the one place that decides whether two patients of the catalog may be the same person.

The unit of privacy is a patient: one PatientID of one issuer. The same person numbered by two issuers is two patients,
each with a separate effect and possibly on both sides of the split, and no sum in the ledger bounds that person's loss.
So if a hospital has several issuers, for any task, all their images are compared, and patients of a pair that looks
like one person are not used until someone has signed that they are different people.

What this cannot detect: one person of whom the issuers hold only different images. Whoever lists two issuers is
responsible for that. Simulated hospitals are exempt: their patients are not real, and the pooled one has all others'
issuers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from client.cohort.cache import ExampleCache, load_example
from client.cohort.index import Index
from client.cohort.intake import keyed
from client.cohort.near_duplicates import confirm, nominate
from client.cohort.rows import AlikePair, Image
from client.errors import SamePersonTwice
from client.ledger.audit_log import AuditLog, Kind
from client.site import SiteSettings, secret
from tasks import task as tasks
from tasks.task import Task

SEPARATOR = ","
_MOST_CANDIDATES = 50_000


def issuers_to_compare(site: SiteSettings) -> list[str]:
    """The issuers among whose patients one person may appear twice; none if that is impossible."""
    issuers = sorted({source.issuer for source in site.sources})
    return [] if site.simulated or len(issuers) < 2 else issuers


def compare(catalog: Index, site: SiteSettings) -> None:
    """Look for pairs after an ingest, unless nothing is new. With too many candidates it stays undone, which is refused
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
    pairs = confirm(candidates, lambda n: load_example(caches[printed[n].task].path(printed[n].example)))
    catalog.note_compared(issuers, images, list(_pairs(site, [(printed[a], printed[b]) for a, b in pairs])))
    if pairs:
        catalog.tell_apart(_signed(site))


def _pairs(site: SiteSettings, images_alike: Iterable[tuple[Image, Image]]) -> Iterator[AlikePair]:
    key = secret(site)
    owners = Counter(tuple(sorted([(one.patient, one.issuer), (two.patient, two.issuer)])) for one, two in images_alike)
    for ((one, its), (two, others)), images in owners.items():
        yield AlikePair(
            pair=keyed(key, "pair", "", f"{one} {two}"),
            one=one,
            issuer=its,
            other=two,
            other_issuer=others,
            images=images,
        )


def _signed(site: SiteSettings) -> list[str]:
    """Digests of the pairs that are signed as different people in the audit log."""
    if not site.audit_log.exists():
        return []
    with AuditLog.open(site.audit_log, secret(site)) as audit_log:
        signed = [str(event.facts["pairs"]) for event in audit_log.events(Kind.IDENTITIES)]
    return [digest for digests in signed for digest in digests.split(SEPARATOR)]


def require_told_apart(catalog: Index, site: SiteSettings, task: Task) -> None:
    """Pass if none of the task's patients looks like a patient of another issuer, or all such pairs are signed.

    Asked behind ``Index.remembered``, so that it costs an order nothing.

    Raises:
        SamePersonTwice: naming how many, and the remedy.
    """
    if problem := problem_of(catalog, site, task):
        raise SamePersonTwice(f"{site.name} cannot take part in {task.name}: {problem}")


def problem_of(catalog: Index, site: SiteSettings, task: Task) -> str:
    """A sentence on why the task's patients cannot be used; "" if they can."""
    issuers = issuers_to_compare(site)
    if not issuers:
        return ""
    if not catalog.are_compared(issuers):
        return not_compared(issuers)
    if open_pairs := catalog.alike(issuers, task.name):
        return (
            f"{len(open_pairs)} pair(s) of patients of two issuers look like one person, who would count twice. Give "
            "sources that number the same people one issuer, or remove one; if they are different people, sign that "
            "with: consilium-site identities"
        )
    return ""


def not_compared(issuers: Iterable[str]) -> str:
    """The message for a catalog whose patients have not all been compared."""
    return (
        f"patients of {', '.join(issuers)} have not all been compared: an ingest was not completed, or more than "
        f"{_MOST_CANDIDATES:,} pairs of images resemble each other. Run: consilium-site ingest. If this message "
        "appears again, give sources that number the same people one issuer, or narrow them"
    )
