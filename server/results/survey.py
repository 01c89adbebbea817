"""What a survey has found: every cell with its interval, of each hospital and of all together.

A count leaves a hospital as count + N(0, s^2), s being known. So count +- 1.96 s is a 95 % interval whatever the count
is, and of H hospitals' sum it is +- 1.96 times the root of the sum of their s^2. Counts are kept as they arrived:
unrounded, and below zero where the noise has put them there; cutting them off would shift every sum upwards. Only a
display stops at zero, and says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from server.rounds.survey import Answers
from tasks import task as tasks
from tasks.metrics.interval import Z
from tasks.protocol.survey import INTENSITY, LABEL, WORDS, SurveyDocument, table_name

EVERYBODY = "all hospitals"
CUT = (
    "Intervals are those of the noise that hospitals have added, 19 in 20 of which hold the true count. They are drawn "
    "and shown from 0 on; the counts are as they arrived, so a cell may be below 0."
)


@dataclass(frozen=True)
class SurveyTable:
    """One table.

    Attributes:
        name: as in the report.
        title: in words.
        cells: the names of the cells, in order.
        counts: by hospital, and of ``EVERYBODY``, a count for each cell.
    """

    name: str
    title: str
    cells: list[str]
    counts: dict[str, list[float]]


@dataclass(frozen=True)
class SurveyResults:
    """A survey, answered.

    Attributes:
        noise: standard deviation of the noise on every cell, by hospital and of ``EVERYBODY``.
        epsilons: what a patient of each hospital has spent, at ``deltas``.
        silent: hospitals without an answer, and why.
    """

    survey: str
    task: str
    tables: list[SurveyTable]
    noise: dict[str, float]
    epsilons: dict[str, float | None]
    deltas: dict[str, float]
    silent: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def interval(self, who: str, count: float) -> tuple[float, float]:
        """The limits of a count's 95 % interval."""
        half = Z * self.noise[who]
        return count - half, count + half

    def metrics(self) -> dict[str, float]:
        """By name, as MLflow takes them: each count and its limits."""
        found: dict[str, float] = {}
        for table in self.tables:
            for who, counts in table.counts.items():
                for cell, count in zip(table.cells, counts, strict=True):
                    key = _plain(f"ask/{table.name}/{cell}/{who}")
                    low, high = self.interval(who, count)
                    found |= {key: count, f"{key}/low": low, f"{key}/high": high}
        return found


def results(document: SurveyDocument, answers: Answers, notes: list[str]) -> SurveyResults:
    """Tables of what hospitals have reported."""
    reports = dict(sorted(answers.reports.items()))
    tables = []
    for table in document.tables:
        name = table_name(table)
        counts = {who: [float(cell) for cell in report.arrays[name].ravel()] for who, report in reports.items()}
        counts[EVERYBODY] = [math.fsum(cells) for cells in zip(*counts.values(), strict=True)]
        levels = [_levels(document, attribute) for attribute in table]
        title = " and ".join(_worded(document, attribute) for attribute in table)
        tables.append(SurveyTable(name, title, [", ".join(cell) for cell in product(*levels)], counts))
    noise = {who: report.noise for who, report in reports.items()}
    return SurveyResults(
        survey=document.name,
        task=document.task,
        tables=tables,
        noise=noise | {EVERYBODY: math.sqrt(sum(each**2 for each in noise.values()))},
        epsilons={who: report.epsilon for who, report in reports.items()},
        deltas={who: report.delta for who, report in reports.items()},
        silent=dict(sorted(answers.problems.items())),
        notes=notes,
    )


def _levels(document: SurveyDocument, attribute: str) -> tuple[str, ...]:
    """Names of levels, with the task's words for its classes."""
    if attribute == LABEL:
        return tuple(name.replace("_", " ") for name in tasks.get(document.task).classes)
    return document.levels(attribute)


def _worded(document: SurveyDocument, attribute: str) -> str:
    if attribute == LABEL:
        return "finding"
    return WORDS.get(attribute, attribute.replace("_", " "))


def shown(results: SurveyResults, who: str, count: float) -> str:
    """A count with its interval, as people read it; the interval from 0 on."""
    low, high = results.interval(who, count)
    return f"{round(count)} ({round(max(low, 0))} to {round(max(high, 0))})"


def shown_tables(results: SurveyResults) -> Iterator[Table]:
    """For the terminal."""
    for table in results.tables:
        what = "patients, each divided among cells" if table.name == INTENSITY else "patients"
        drawn = Table(title=f"{what.capitalize()} by {table.title}", title_justify="left", title_style="bold")
        drawn.add_column("", overflow="fold")
        for who in table.counts:
            drawn.add_column(escape(who), justify="right")
        for number, cell in enumerate(table.cells):
            drawn.add_row(escape(cell), *(shown(results, who, each[number]) for who, each in table.counts.items()))
        yield drawn


def text(found: SurveyResults) -> str:
    """The results as text for a file."""
    return json.dumps(asdict(found), indent=1)


def read(path: Path) -> SurveyResults:
    """Results from their file."""
    values: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
    return SurveyResults(**{**values, "tables": [SurveyTable(**table) for table in values["tables"]]})


def _plain(key: str) -> str:
    """What MLflow accepts in a metric's name."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in "/_-. " else "-" for c in key)
