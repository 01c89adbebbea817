"""Figures of an ingest. For hospital staff only; ``for_sending`` makes them safe to share.

Tested in ``tests/client/cohort/test_catalog.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from client.cohort.cache import ExampleCache, load_example
from client.cohort.index import Index
from client.cohort.near_duplicates import confirm, nominate
from client.cohort.remedies import RULE
from client.cohort.rows import Image
from tasks import contract as contracts
from tasks.answers import Binary, Classes, Grade, Measure
from tasks.task import Task

SMALL = 10
"""Counts below this may identify people and never leave; larger ones are rounded to a multiple of it."""
_MOST_CANDIDATES = 5_000


@dataclass(frozen=True)
class ContractReport:
    """How well a hospital's labelled images meet the contract.

    Attributes:
        examined: labelled images with a header, those that cannot be read among them.
        conforming: of these, readable and not rejected.
        unlabelled: images in scope without a label.
        derived: research images without a header, which were not examined.
        first: rejected images by the first rule that rejects them, in the contract's order.
        every: rejected images by every rule that rejects them.
        warned: images by rules that were broken or undecided without consequence.
        shortfalls: sentences on what keeps the hospital from taking part; none if nothing does.
    """

    examined: int
    conforming: int
    unlabelled: int
    derived: int
    first: dict[str, int]
    every: dict[str, int]
    warned: dict[str, int]
    shortfalls: list[str]


@dataclass(frozen=True)
class NearDuplicates:
    """Images of different patients that look the same.

    Attributes:
        pairs: how many.
        across_sides: pairs with one image in training and one in validation.
        complete: whether all candidates were compared; if not there may be more.
    """

    pairs: int
    across_sides: int
    complete: bool


@dataclass(frozen=True)
class IngestReport:
    """Results of an ingest. For hospital staff only: it has exact counts.

    Attributes:
        images: usable images in the catalog.
        patients: patients by side of the split.
        classes: patients with at least one image of the class or grade, by name; of a measured value patients without
            and with its event.
        left_out: images, files and label rows that were not used, by reason; a rule of the contract as ``RULE:id``.
        warnings: sentences about what a person should look at.
        contract: how the images keep the contract.
        near_duplicates: images that look alike.
        findings: for each secondary finding of the task, patients of whom it is known, and those who have it, or its
            event.
        outlined: patients with an image on which somebody has outlined the task's structures, or found none.
    """

    images: int
    patients: dict[str, int]
    classes: dict[str, int]
    left_out: Counter[str]
    warnings: list[str]
    contract: ContractReport
    near_duplicates: NearDuplicates
    findings: dict[str, tuple[int, int]] = field(default_factory=dict)
    outlined: int = 0


def report(task: Task, catalog: Index, issuers: Sequence[str], cache: ExampleCache) -> IngestReport:
    """Summarise what the index holds of these issuers for a task."""
    images = catalog.images(task.name, issuers)
    usable = [image for image in images if image.usable]
    sides = catalog.sides(task.name, issuers)
    contract = contract_report(task, catalog, issuers, images)
    left_out = Counter(image.unreadable for image in images if image.unreadable)
    left_out.update({f"{RULE}{rule}": number for rule, number in contract.first.items()})
    warnings = []
    for ingest in sorted(catalog.ingests(task.name, issuers), key=lambda ingest: ingest.issuer):
        left_out.update(ingest.left_out)
        warnings += ingest.warnings
    near_duplicates = _near_duplicates(usable, sides, cache)
    patients = {side: len({i.patient for i in usable if sides[i.patient] == side}) for side in ("train", "validation")}
    of_class = {name: {image.patient for image in some} for name, some in images_of_classes(task, usable).items()}
    classes = {name: len(patients) for name, patients in of_class.items()}
    warnings += _on_classes(task, of_class)
    warnings += [f"cannot take part: {sentence}" for sentence in contract.shortfalls]
    warnings += _on_near_duplicates(near_duplicates)
    if +left_out:
        warnings.append(f"left out: {counts(+left_out)}")
    outlined = len({image.patient for image in usable if image.outlined})
    return IngestReport(
        images=len(usable),
        patients=patients,
        classes=classes,
        left_out=+left_out,
        warnings=warnings,
        contract=contract,
        near_duplicates=near_duplicates,
        findings=_known(task, usable),
        outlined=outlined,
    )


def _known(task: Task, usable: Sequence[Image]) -> dict[str, tuple[int, int]]:
    counts_by_finding = {}
    for number, finding in enumerate(task.secondary_findings):
        values = [(image.patient, image.findings[number]) for image in usable if image.findings]
        told = {patient: float(value) for patient, value in values if value is not None}
        events = finding.answer.event_of(np.array([value for _, value in values], np.float64))
        having = {patient for (patient, _), event in zip(values, events, strict=True) if event == 1}
        counts_by_finding[finding.name] = len(told), len(having)
    return counts_by_finding


def images_of_classes(task: Task, usable: Sequence[Image]) -> dict[str, list[Image]]:
    """Images of each class or grade, or of a measured value without and with its event."""
    found: dict[str, list[Image]] = {name: [] for name in task.categories}
    for image, name in zip(usable, task.categories_of(image.label for image in usable), strict=True):
        found[name].append(image)
    return found


def contract_report(
    task: Task, catalog: Index, issuers: Sequence[str], images: Sequence[Image] | None = None
) -> ContractReport:
    """How well the catalog's images meet the task's contract."""
    everything = catalog.images(task.name, issuers) if images is None else images
    contract = contracts.of_task(task.name)
    unlabelled = sum(i.left_out.get("IMAGE_WITHOUT_LABEL", 0) for i in catalog.ingests(task.name, issuers))
    examined = [image for image in everything if image.facts != "{}"]
    rejected = [image for image in examined if image.rejected]
    first = Counter(image.rejected[0] for image in rejected)
    every = Counter(rule for image in rejected for rule in image.rejected)
    warned = Counter(rule for image in examined for rule in image.warned)
    conforming = sum(image.usable for image in examined)
    order = [rule.id for rule in contract.rules]
    return ContractReport(
        examined=len(examined),
        conforming=conforming,
        unlabelled=unlabelled,
        derived=len(everything) - len(examined),
        first={rule: first[rule] for rule in order if first[rule]},
        every={rule: every[rule] for rule in order if every[rule]},
        warned={rule: warned[rule] for rule in order if warned[rule]},
        shortfalls=[
            *_too_few_conforming(contract.join.conforming, conforming, len(examined), first),
            *_too_few_labelled(contract.join.labelled, len(everything), len(everything) + unlabelled),
        ],
    )


def _too_few_conforming(required: float, conforming: int, examined: int, first: Counter[str]) -> Iterator[str]:
    if examined and conforming < required * examined:
        worst = f"; most frequent failure: {max(first, key=lambda rule: first[rule])!r}" if first else ""
        share = _percent(conforming, examined)
        yield f"{share} of the labelled images meet the contract, {required:.0%} are required{worst}"


def _too_few_labelled(required: float, labelled: int, in_scope: int) -> Iterator[str]:
    if in_scope and labelled < required * in_scope:
        yield f"{_percent(labelled, in_scope)} of the images in scope have a label, {required:.0%} are required"


def for_sending(counts: Mapping[str, int]) -> dict[str, str]:
    """Counts that may be shared: small ones suppressed, others rounded, so that no difference of two reveals a small
    one. Consilium never sends them; a person may."""
    return {name: coarse(number) for name, number in counts.items()}


def coarse(number: int) -> str:
    """``<10``, or about how many."""
    return f"<{SMALL}" if number < SMALL else f"about {round(number / SMALL) * SMALL}"


def counts(left_out: Mapping[str, int]) -> str:
    """Reasons and their counts, as one line."""
    return ", ".join(f"{reason} {n}" for reason, n in sorted(left_out.items())) or "nothing left out"


def alike(usable: Sequence[Image], cache: ExampleCache) -> tuple[list[tuple[Image, Image]], bool]:
    """Pairs of images of different patients that look the same, and whether all candidates were compared."""
    printed = [(image, image.fingerprint) for image in usable if image.fingerprint is not None]
    candidates = nominate([p for _, p in printed], [image.patient for image, _ in printed], _MOST_CANDIDATES)
    pairs = confirm(candidates, lambda position: load_example(cache.path(printed[position][0].example)))
    return [(printed[a][0], printed[b][0]) for a, b in pairs], len(candidates) < _MOST_CANDIDATES


def _near_duplicates(usable: Sequence[Image], sides: Mapping[str, str], cache: ExampleCache) -> NearDuplicates:
    pairs, complete = alike(usable, cache)
    across = sum(sides[one.patient] != sides[other.patient] for one, other in pairs)
    return NearDuplicates(len(pairs), across, complete)


def _on_classes(task: Task, of_class: Mapping[str, set[str]]) -> list[str]:
    only = ": this hospital has only one class" if task.answer.kind == "binary" else ""
    found = [f"no patient is {name}{only}" for name, patients in of_class.items() if not patients]
    times = Counter(patient for patients in of_class.values() for patient in patients)
    if mixed := sum(number > 1 for number in times.values()):
        found.append(f"{mixed} patient(s) have images of {_of_several(task)}")
    return found


def _of_several(task: Task) -> str:
    """How images that differ count."""
    match task.answer:
        case Binary():
            return f"both classes; each counts as {task.classes[1]}"
        case Classes(names=names):
            return f"several classes; each counts as the last of {', '.join(names)} that it has"
        case Grade(several=which):
            return f"several grades; each counts with the {which}"
        case Measure(several=which):
            return f"values on both sides of {task.answer.said(task.answer.threshold)}; each counts with the {which}"


def _on_near_duplicates(near_duplicates: NearDuplicates) -> list[str]:
    if not near_duplicates.pairs:
        return []
    least = "" if near_duplicates.complete else "at least "
    across = f", {near_duplicates.across_sides} of them across the split" if near_duplicates.across_sides else ""
    return [
        f"{least}{near_duplicates.pairs} pair(s) of images of different patients look the same{across}: one patient "
        "with two numbers, or a copied image; `consilium-site check --html FILE` shows them"
    ]


def _percent(part: int, whole: int) -> str:
    """Rounded down, so that a fraction that is too low never reads as enough."""
    return f"{int(1000 * part / whole) / 10:g} %"
