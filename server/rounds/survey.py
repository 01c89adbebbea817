"""A survey's order to all hospitals, and their tables as they arrive, each checked by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from server.rounds import claimed_privacy
from server.rounds.exchange import Channel, SurveyRoster, exchange
from tasks.protocol.survey import SurveyDocument
from tasks.protocol.wire import Arrays, SurveyOrder, SurveyReport

_MOST_PATIENTS = 1e9


@dataclass(frozen=True)
class Answers:
    """What hospitals have answered, by name, and why others have not."""

    reports: dict[str, SurveyReport] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def collect(channel: Channel, roster: SurveyRoster, answered: Callable[[int], None] = lambda number: None) -> Answers:
    """Ask every hospital. ``answered`` is told how many have answered, in whatever way."""
    answers = Answers()
    for number, answer in enumerate(exchange(channel, roster, SurveyOrder(roster.document), SurveyReport), start=1):
        problem = answer.problem
        if answer.report is not None and not problem:
            try:
                problem = _unusable(answer.report, roster.document)
            except Exception as error:  # costs the hospital this report alone
                problem = f"its tables cannot be processed ({type(error).__name__})"
        if answer.report is None or problem:
            answers.problems[answer.hospital] = problem or "no report"
        else:
            answers.reports[answer.hospital] = answer.report
        answered(number)
    return answers


def _unusable(report: SurveyReport, document: SurveyDocument) -> str:
    shapes = document.shapes()
    if report.arrays.keys() != shapes.keys():
        return f"it must bring exactly {', '.join(shapes)}"
    if wrong := _wrong_tables(report.arrays, shapes):
        return wrong
    return claimed_privacy.unsound(report.noise, report, document.epsilon, document.delta)


def _wrong_tables(tables: Arrays, shapes: dict[str, tuple[int, ...]]) -> str:
    for name, shape in shapes.items():
        table = tables[name]
        if table.shape != shape or table.dtype != np.float64:
            return f"{name} is {table.dtype} {table.shape}, not float64 {shape}"
        if not (np.abs(table) <= _MOST_PATIENTS).all():
            return f"{name} has values that are not finite or beyond {_MOST_PATIENTS:g}"
    return ""
