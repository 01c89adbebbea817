"""Answers of a task's own kind from structured reports: classes and grades by their codes, values by quantity and unit.

A measurement group of TID 1500 (PS3.16) says at most one answer to each question, for the images that it refers to, see
``reports.py``. What it measures in a unit that the task does not know, or beyond the declared range, is no answer and
is counted by a word; nothing is clipped, and nothing chosen of several: not in a group, and not of several reports.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from client.errors import SiteMisconfigured
from client.sources.labels.reports import FINDING, code_of, evaluations_of, groups_of
from client.sources.labels.table import KEYS, Findings, Labels, joined
from client.sources.settings import ReportAnswers
from tasks.answers import Answer, Classes, Grade, Measure, NoSuchAnswer
from tasks.task import QUESTION, Task

OTHER_UNIT, OUT_OF_RANGE = "MEASUREMENT_OF_OTHER_UNIT", "MEASUREMENT_OUT_OF_RANGE"
CONTRADICTS_ITSELF, SILENT = "GROUP_CONTRADICTS_ITSELF", "GROUP_WITHOUT_LABEL"
_SHOWN = 3


@dataclass(frozen=True)
class Said:
    """What a group says to a question.

    Attributes:
        value: the truth, see ``tasks/answers.py``; ``None`` if it says none.
        reason: the word for why not.
        detail: for a person, what stands there.
    """

    value: float | None = None
    reason: str = SILENT
    detail: str = ""


@dataclass(frozen=True)
class Question:
    """What to look for in a group: ``answer``, under ``concept``, with the numbers of classes or grades by code."""

    answer: Answer
    concept: str
    numbers: Mapping[str, int]


def answers_of_reports(source: ReportAnswers, files: list[Path], task: Task, left_out: Counter[str]) -> Labels:
    """Labels by SOPInstanceUID, and findings where the reports answer further questions of other kinds than yes or no.

    Counted beside what ``groups_of`` counts: ``GROUP_WITHOUT_LABEL`` (it answers nothing), ``GROUP_WITHOUT_IMAGE``,
    ``MEASUREMENT_OF_OTHER_UNIT``, ``MEASUREMENT_OUT_OF_RANGE``, ``GROUP_CONTRADICTS_ITSELF``, and as for a labels file
    ``CONTRADICTING_LABEL_ROWS``, ``DUPLICATE_LABEL_ROW``, ``CONTRADICTING_FINDINGS``.

    Raises:
        SiteMisconfigured: the settings name a question, a class or a grade that the task does not have.
    """
    questions = _questions(source, task)
    told: dict[str, list[tuple[str, float]]] = {name: [] for name in questions}
    beyond: list[str] = []
    for path, said, images in groups_of(files, left_out, partial(_said, questions)):
        known = {name: one.value for name, one in said.items() if one.value is not None}
        reasons = {one.reason for one in said.values() if one.value is None} - {SILENT}
        left_out.update(reasons or ({SILENT} if not known else ()))
        left_out["GROUP_WITHOUT_IMAGE"] += bool(known) and not images
        beyond += [f"{path.name} ({one.detail})" for one in said.values() if one.reason in (OTHER_UNIT, OUT_OF_RANGE)]
        for name, value in known.items():
            told[name] += [(image, value) for image in images]
    values, repeated = joined(told[QUESTION])
    left_out.update(repeated)
    findings = _findings(told, task, left_out)
    return Labels(source.path, KEYS[0], values, left_out, findings=findings, warnings=_warnings(beyond))


def _questions(source: ReportAnswers, task: Task) -> dict[str, Question]:
    asked = {name: answer for name, answer in task.questions.items() if answer.kind != "binary"}
    known = {name for answer in asked.values() if isinstance(answer, Classes | Grade) for name in answer.names}
    wrong = [f"concepts.{name}" for name in source.concepts if name not in asked]
    wrong += [f"codes.{name}" for name in source.codes if name not in known]
    if wrong:
        raise SiteMisconfigured(
            f"annotations of kind sr_answers: {', '.join(wrong)} is nothing that {task.name} knows; it asks for "
            f"{', '.join(asked)}" + (f" and knows {', '.join(sorted(known))}" if known else "")
        )
    return {name: _question(answer, source, name) for name, answer in asked.items()}


def _question(answer: Answer, source: ReportAnswers, name: str) -> Question:
    if isinstance(answer, Measure):
        return Question(answer, source.concepts.get(name, _text(answer.code)), {})
    assert isinstance(answer, Classes | Grade)
    numbers = {_text(code): number for number, code in enumerate(answer.codes)}
    numbers |= {code: n for n, word in enumerate(answer.names) for code in source.codes.get(word, ())}
    return Question(answer, source.concepts.get(name, FINDING), numbers)


def _text(code: Any) -> str:
    return f"{code.scheme}:{code.value}"


def _said(questions: Mapping[str, Question], group: Any) -> dict[str, Said]:
    return {
        name: _measured(one, group) if isinstance(one.answer, Measure) else _named(one, group)
        for name, one in questions.items()
    }


def _named(question: Question, group: Any) -> Said:
    codes = {code_of(value) for value in evaluations_of(group, question.concept)}
    return _only({float(question.numbers[code]) for code in codes & question.numbers.keys()}, question.answer)


def _measured(question: Question, group: Any) -> Said:
    answer, values = question.answer, set[float]()
    assert isinstance(answer, Measure)
    for measurement in group.get_measurements():
        if code_of(measurement.name) != question.concept:
            continue
        unit, number = code_of(measurement.unit), float(measurement.value)
        scheme, _, own = unit.partition(":")
        if scheme != "UCUM" or own not in {answer.unit.value, *(name for name, _ in answer.units)}:
            return Said(reason=OTHER_UNIT, detail=f"{number:g} {unit}")
        try:
            values.add(answer.read(repr(number), own))
        except NoSuchAnswer:
            return Said(reason=OUT_OF_RANGE, detail=f"{number:g} {own}")
    return _only(values, answer)


def _only(values: set[float], answer: Answer) -> Said:
    if len(values) > 1:
        return Said(reason=CONTRADICTS_ITSELF, detail=", ".join(answer.said(value) for value in sorted(values)))
    return Said(values.pop()) if values else Said()


def _findings(told: Mapping[str, list[tuple[str, float]]], task: Task, left_out: Counter[str]) -> dict[str, Findings]:
    """By image, in the order of the task's secondary findings."""
    known: dict[str, dict[str, float]] = {}
    for name in told.keys() - {QUESTION}:
        known[name], repeated = joined(told[name])
        left_out["CONTRADICTING_FINDINGS"] += repeated["CONTRADICTING_LABEL_ROWS"]
    images = set().union(*known.values())
    return {
        image: tuple(known.get(finding.name, {}).get(image) for finding in task.secondary_findings) for image in images
    }


def _warnings(beyond: list[str]) -> list[str]:
    if not beyond:
        return []
    more = f" and {len(beyond) - _SHOWN} more" if len(beyond) > _SHOWN else ""
    return [
        "reports measure in a unit that the task does not know or beyond its declared range, and label nothing: "
        f"{', '.join(beyond[:_SHOWN])}{more}"
    ]
