"""Each patient is in one cell of each histogram of a question, and tables have the shapes that a document states."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tasks import tables
from tasks import task as tasks
from tasks.answers import Answer, Binary, Classes, Grade, Measure
from tasks.codes import Code
from tasks.protocol import wire
from tasks.protocol.study import StudyDocument
from tasks.task import QUESTION, Finding

CODES = tuple(Code("99CONSILIUM", f"G{n}", f"grade {n}") for n in range(4))
LESION = Classes(("normal", "benign", "malignant"), ("malignant",), CODES[:3])
GRADE = Grade(("none", "doubtful", "mild", "severe"), "mild", CODES)
SIZE = Measure(CODES[0], Code("UCUM", "mm", "millimeter"), 0.0, 50.0, event_above=20.0)
TASK = replace(
    tasks.get("breast_ultrasound"),
    answer=LESION,
    secondary_findings=(Finding("grade", CODES[0], GRADE), Finding("yes", CODES[0]), Finding("size", CODES[0], SIZE)),
)


def test_a_document_states_the_tables_of_its_task(document: StudyDocument) -> None:
    assert tables.answer_terms(tasks.get("chest_xray"), 16) == {}
    for bins, cells in ((16, 8), (4096, 128)):
        terms = tables.answer_terms(TASK, bins)
        assert {name: (each.kind, each.cells) for name, each in terms.items()} == {
            QUESTION: ("classes", [3, 3]),
            "grade": ("grade", [4, 4]),
            "size": ("measure", [3, cells]),
        }
        stated = replace(document, evaluation=replace(document.evaluation, bins=bins, answers=terms))
        shapes = wire.due_scores(stated, stated.rounds)
        assert wire.due_scores(stated, 1) == {"histogram": (2, bins)}, "nothing before the last round"
        draw = np.random.default_rng(1)
        for name, answer in TASK.questions.items():
            truths = np.array([1.0, math.nan, 0.0])
            told = draw.dirichlet(np.ones(max(answer.told_numbers, 2)), 3)[:, : answer.told_numbers]
            counted = tables.counted(name, answer, truths, told=told, bins=bins)
            assert {table: cells.shape for table, cells in counted.items()} == {
                table: shape for table, shape in shapes.items() if table.partition("-")[2] == name
            }


@pytest.mark.parametrize(("answer", "histograms"), [(Binary(), 0), (LESION, 4), (GRADE, 1), (SIZE, 3)])
def test_a_patient_moves_as_many_cells_by_one_as_the_document_counts_releases(answer: Answer, histograms: int) -> None:
    """Which the ledger charges: the wrong version would count a table with several histograms as one."""
    draw = np.random.default_rng(2)
    truths = draw.integers(0, 3, 20).astype(np.float64)
    told = draw.dirichlet(np.ones(max(answer.told_numbers, 2)), 20)[:, : answer.told_numbers]
    there = tables.counted("q", answer, truths, told=told, bins=16)
    gone = tables.counted("q", answer, truths[1:], told=told[1:], bins=16)
    moved = np.concatenate([(there[name] - gone[name]).ravel() for name in there]) if there else np.zeros(1)
    assert set(moved) <= {0.0, 1.0}
    assert moved.sum() == histograms
    terms = tables.answer_terms(replace(TASK, answer=answer, secondary_findings=()), 16)
    assert sum(each.histograms for each in terms.values()) == histograms
    unknown = tables.counted("q", answer, np.full(20, math.nan), told=told, bins=16)
    assert all((cells == 0).all() for cells in unknown.values())


def test_weights_are_for_the_answers_that_there_are() -> None:
    assert TASK.unfit_weights([]) == TASK.unfit_weights([1.0, 0.5, 1.0]) == ""
    assert "one for each of normal, benign, malignant" in TASK.unfit_weights([1.0, 0.5])
    assert tasks.get("chest_xray").unfit_weights([0.1, 1.0]) == ""
    assert "no classes" in replace(TASK, answer=SIZE).unfit_weights([1.0])


def test_two_questions_of_one_name_are_refused() -> None:
    for twice in ("grade", QUESTION):
        with pytest.raises(ValueError, match="different names"):
            replace(TASK, secondary_findings=(*TASK.secondary_findings, Finding(twice, CODES[0])))
