"""Patients in tables, for a survey. Exact counts: ``client/report.py`` adds the noise, and nothing leaves without it.

Counted are the patients with a usable image of the task, on both sides of the split. Each is in one cell of each table:
positive where one of its images is, of a secondary finding ``not recorded`` where none of its images tells, and for
what a header says as the first of its images that tells it, in the order of their pseudonyms. Of intensities each
divides one count among the cells, by the pixels of all its images.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from client.cohort import cache, catalog, subgroups
from client.cohort.catalog import CatalogEntry
from client.cohort.subgroups import LevelsOf
from client.site import SiteSettings
from client.sources.acquisition import SPACING_MM, THICKNESS_MM
from tasks.answers import Answer
from tasks.protocol.survey import INTENSITY, LABEL, SPACING, THICKNESS, SurveyDocument, table_name
from tasks.protocol.wire import Arrays
from tasks.task import Task

_LOG = logging.getLogger(__name__)
FACTS = {**subgroups.KEYWORDS, SPACING: SPACING_MM, THICKNESS: THICKNESS_MM}
"""By attribute, the name of its value among an image's facts."""
_UNIT = 2.0**30
"""Shares of intensities are multiples of 1 / this, rounded down: sums of up to eight million patients' are exact, so
one patient changes them by what it has there and not by a rounding more."""


@dataclass(frozen=True)
class SurveyedPatients:
    """Patients with their usable images."""

    site: SiteSettings
    task: Task
    images: dict[str, list[CatalogEntry]]

    def tables(self, survey: SurveyDocument) -> Arrays:
        """The survey's tables, float64: adding or removing a patient changes each by 1 at most, in the L1 norm."""
        levels = self._levels(survey)
        tables: Arrays = {}
        for table, shape in zip(survey.tables, survey.shapes().values(), strict=True):
            counts = np.zeros(shape)
            if table == [INTENSITY]:
                for entries in self.images.values():
                    counts += shares(entries, survey.intensities)
            else:
                np.add.at(counts, tuple(levels[attribute] for attribute in table), 1.0)
            tables[table_name(table)] = counts
        return tables

    def _levels(self, survey: SurveyDocument) -> dict[str, NDArray[np.int64]]:
        """The level of each patient, int64 of shape (patients,), of each attribute but intensity."""
        asked = survey.attributes()
        told = {
            one: LevelsOf(FACTS[one], partial(survey.level, one), len(survey.levels(one)) - 1)
            for one in asked
            if one in FACTS
        }
        levels = subgroups.levels_of(self.site, self.task, list(self.images), told) if told else {}
        if LABEL in asked:
            levels[LABEL] = self._events(self.task.answer, lambda entry: entry.label)
        names = [finding.name for finding in self.task.secondary_findings]
        for finding in survey.findings():
            place = names.index(finding)
            answer = self.task.secondary_findings[place].answer
            levels[finding] = self._events(answer, partial(_finding, place))
        return levels

    def _events(self, answer: Answer, truth: Callable[[CatalogEntry], float]) -> NDArray[np.int64]:
        """Of each patient 1 with the event, 0 without, 2 where none of the images tells."""
        truths = [answer.of_patient(np.array([truth(entry) for entry in each])) for each in self.images.values()]
        return np.nan_to_num(answer.event_of(np.array(truths, np.float64)), nan=2.0).astype(np.int64)


def patients_of(site: SiteSettings, task: Task) -> SurveyedPatients:
    """Whom the hospital could bring into a study of the task.

    Raises:
        CatalogStale, SamePersonTwice: see ``client.cohort.catalog.sides``.
    """
    catalog.honour_withdrawals(site)
    images: dict[str, list[CatalogEntry]] = {}
    for entries in catalog.sides(site, task).values():
        for entry in entries:
            images.setdefault(entry.patient, []).append(entry)
    return SurveyedPatients(site, task, images)


def shares(entries: Sequence[CatalogEntry], cells: int) -> NDArray[np.float64]:
    """How one patient's pixels divide among equal cells of [0, 1]: float64 of shape (cells,), 1 or less in sum.

    What lies outside counts in the outermost cell, what is no number in the first one. An image that cannot be read
    counts as no pixels: an error would tell that there is such a patient.
    """
    counts = np.zeros(cells, np.int64)
    for entry in entries:
        try:
            pixels = cache.load_example(entry.example).ravel()
        except Exception:
            _LOG.exception("a prepared image cannot be read; it is left out of the survey's intensities")
            continue
        inside = np.clip(np.nan_to_num(pixels.astype(np.float64), nan=0.0), 0.0, 1.0)
        counts += np.bincount(np.minimum((inside * cells).astype(np.int64), cells - 1), minlength=cells)
    return np.floor(counts * _UNIT / max(int(counts.sum()), 1)) / _UNIT


def _finding(place: int, entry: CatalogEntry) -> float:
    """An image's truth of a secondary finding, NaN where it does not tell."""
    known = entry.findings[place] if len(entry.findings) > place else None
    return math.nan if known is None else known
