"""Tables of questions with other answers than yes or no: which leave a hospital after a study's last round, and how
patients are counted in them. ``tasks/metrics/`` says what can be told from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.answers import Answer, Binary, Classes, Grade, Measure
from tasks.metrics.classes import rest_histograms, told_classes
from tasks.metrics.grades import told_grades
from tasks.metrics.measures import measure_cells, told_measures
from tasks.protocol.study import MEASURE_ROWS, AnswerTerms
from tasks.protocol.wire import REST, TOLD
from tasks.task import Task


def answer_terms(task: Task, bins: int) -> dict[str, AnswerTerms]:
    """What a study document says of a task's questions, by name, where scores have so many bins; nothing where all
    answers are yes or no."""
    found = {}
    for name, answer in task.questions.items():
        match answer:
            case Classes():
                found[name] = AnswerTerms("classes", [answer.cells, answer.cells])
            case Grade():
                found[name] = AnswerTerms("grade", [answer.cells, answer.cells])
            case Measure():
                found[name] = AnswerTerms("measure", [MEASURE_ROWS, measure_cells(bins)])
            case Binary():
                pass
    return found


def counted(
    name: str,
    answer: Answer,
    truths: NDArray[np.float64],
    told: NDArray[np.float64],
    *,
    bins: int,
    edges: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Patients in the tables of one question, by the tables' names. Each patient is in one cell of each histogram;
    whose truth nobody knows is in none.

    Args:
        name: of the question.
        truths: shape (patients,), see ``tasks/answers.py``; NaN where nobody knows.
        told: shape (patients, ``Answer.told_numbers``).
        bins, edges: of scores, as for ``score_histogram``.
    """
    match answer:
        case Classes():
            return {TOLD + name: told_classes(told, truths), REST + name: rest_histograms(told, truths, bins, edges)}
        case Grade():
            return {TOLD + name: told_grades(answer.answer(told), truths, answer.cells)}
        case Measure():
            values = answer.answer(told)
            return {TOLD + name: told_measures(truths, values, answer.low, answer.high, measure_cells(bins))}
        case Binary():
            return {}
