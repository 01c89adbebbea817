"""A hospital's cohort on one page: patients, devices, and how well the contract is met.

Exact for the hospital itself. ``for_sending`` counts only patients, suppresses small counts and rounds the others; a
person may send that, Consilium never does.

Tested in ``tests/client/cli/test_data.py``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from client.cohort import catalog, index
from client.cohort.findings import SMALL, IngestReport, coarse
from client.cohort.rows import Image
from client.site import SiteSettings
from tasks.task import Task

SHOWN = ("Modality", "Manufacturer", "ManufacturerModelName", "Rows", "BitsStored", "TransferSyntax")


@dataclass(frozen=True)
class Description:
    """The cohort of one task.

    Attributes:
        patients: patients by side of the split and by class.
        images: usable images, and how many the patient with the fewest, the median one and the one with most have.
        devices: for each of ``SHOWN``, patients by value.
        contract: patients by the first rule that rejects an image of theirs.
        conforming: fraction of examined images that keep the contract.
    """

    task: str
    question: str
    patients: dict[str, int]
    images: dict[str, int]
    devices: dict[str, dict[str, int]]
    contract: dict[str, int]
    conforming: float | None


def describe(site: SiteSettings, task: Task) -> Description:
    """Describe the results of the last ingest.

    Raises:
        CatalogStale: there was none, or under another contract.
    """
    report = catalog.report(site, task)
    with index.opened(site) as opened:
        images = opened.images(task.name, [source.issuer for source in site.sources if source.task == task.name])
    usable = [image for image in images if image.usable]
    return Description(
        task=task.name,
        question=task.question,
        patients=report.patients | report.classes,
        images=_images(usable),
        devices=_devices(usable),
        contract=_patients_by(images, lambda image: image.rejected[:1]),
        conforming=_fraction(report),
    )


def for_sending(description: Description) -> dict[str, object]:
    """The same with counts that identify nobody: those below ten are suppressed, values shared by fewer patients are
    left out, and all others are rounded to tens."""
    return {
        "task": description.task,
        "question": description.question,
        "patients": {name: coarse(number) for name, number in description.patients.items()},
        **{keyword: _common(values) for keyword, values in description.devices.items()},
        "rejected by": _common(description.contract),
        "conforming": None if description.conforming is None else f"about {round(description.conforming * 10) * 10} %",
    }


def _common(values: Mapping[str, int]) -> dict[str, str]:
    return {value: coarse(number) for value, number in values.items() if number >= SMALL}


def _fraction(report: IngestReport) -> float | None:
    return report.contract.conforming / report.contract.examined if report.contract.examined else None


def _images(usable: Sequence[Image]) -> dict[str, int]:
    of_patient: dict[str, int] = defaultdict(int)
    for image in usable:
        of_patient[image.patient] += 1
    each = sorted(of_patient.values()) or [0]
    return {"all": len(usable), "fewest": each[0], "median": each[len(each) // 2], "most": each[-1]}


def _devices(usable: Sequence[Image]) -> dict[str, dict[str, int]]:
    told = {facts: json.loads(facts) for facts in {image.facts for image in usable}}

    def values(keyword: str) -> dict[str, int]:
        return _patients_by(usable, lambda image: _told(told[image.facts], keyword))

    return {keyword: values(keyword) for keyword in SHOWN}


def _told(facts: Mapping[str, str], keyword: str) -> tuple[str, ...]:
    return (facts[keyword],) if keyword in facts else ()


def _patients_by(images: Sequence[Image], names: Callable[[Image], Sequence[str]]) -> dict[str, int]:
    """Number of patients with each name among their images, most frequent first."""
    patients: dict[str, set[str]] = defaultdict(set)
    for image in images:
        for name in names(image):
            patients[name].add(image.patient)
    return {name: len(owners) for name, owners in sorted(patients.items(), key=lambda item: (-len(item[1]), item[0]))}
