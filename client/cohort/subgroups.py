"""The group a patient belongs to, from header values in the catalog. Groups are never released by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.cohort import index
from client.site import SiteSettings
from tasks.metrics.histogram import score_histogram
from tasks.protocol.subgroups import LEAST, LEVELS, level
from tasks.task import Task

KEYWORDS = {"sex": "PatientSex", "age": "PatientAge", "vendor": "Manufacturer"}


@dataclass(frozen=True)
class LevelsOf:
    """How an attribute is read from the catalog.

    Attributes:
        fact: the name of its value among an image's facts.
        level: the number of a value's level; "" is an absent value.
        unknown: the level of those of whom no image tells one.
    """

    fact: str
    level: Callable[[str], int]
    unknown: int


_FIXED = {
    name: LevelsOf(KEYWORDS[name], partial(level, name), len(levels) - 1) for name, levels in LEVELS.items()
}  # fmt: skip


def levels_of(
    site: SiteSettings, task: Task, patients: Sequence[str], attributes: Mapping[str, LevelsOf] = _FIXED
) -> dict[str, NDArray[np.int64]]:
    """For each attribute the level of each patient, int64 of shape (patients,).

    A patient whose images differ has the level of the first image that tells one, in the order of their pseudonyms.
    """
    issuers = [source.issuer for source in site.sources if source.task == task.name]
    of_patients = {name: np.full(len(patients), each.unknown) for name, each in attributes.items()}
    row_of = {patient: row for row, patient in enumerate(patients)}
    with index.opened(site) as catalog:
        images = sorted(catalog.images(task.name, issuers), key=lambda image: image.image, reverse=True)
    for image in images:
        if image.usable and image.patient in row_of:
            facts = json.loads(image.facts)
            for name, each in attributes.items():
                number = each.level(str(facts.get(each.fact, "")))
                if number != each.unknown:
                    of_patients[name][row_of[image.patient]] = number
    return of_patients


def histograms(
    attribute: str,
    levels: NDArray[np.int64],
    scores: NDArray[np.float64],
    labels: NDArray[np.float32],
    bins: int,
    edges: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """One score histogram per level, shape (levels, 2, bins): each patient is counted once."""
    return np.stack(
        [score_histogram(scores[levels == n], labels[levels == n], bins, edges) for n in range(len(LEVELS[attribute]))]
    )


def suppressed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same without levels that have fewer than ``LEAST`` patients of a class. For exact counts, which only
    simulated hospitals release: noise protects small groups better than suppression."""
    return np.where((counts.sum(axis=-1) >= LEAST).all(axis=-1)[:, None, None], counts, 0.0)
