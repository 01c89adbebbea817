"""Which figures a study's gate may ask of a task, see ``conf/schema/evaluation.py``."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.answers import Kind
from tasks.task import Task

ERROR = "mean_error"
"""The one that must not be large."""
OF_ANSWERS: dict[Kind, tuple[str, ...]] = {
    "binary": (),
    "classes": ("macro_auc", "accuracy"),
    "grade": ("kappa", "accuracy", ERROR),
    "measure": (ERROR,),
}
"""Figures of the answers themselves, by the kind of the task's own question. Those of its event every task has."""
ALL_OF_ANSWERS = frozenset(name for names in OF_ANSWERS.values() for name in names)


def unfit_gate(wanted: Mapping[str, float | None], task: Task) -> str:
    """Why a gate cannot be of this task; "" if it can."""
    possible = OF_ANSWERS[task.answer.kind]
    wrong = [name for name, bound in wanted.items() if bound is not None and name in ALL_OF_ANSWERS - {*possible}]
    if not wrong:
        return ""
    fitting = ", ".join(("auc", "sensitivity", "specificity", *possible))
    return f"evaluation.gate.{wrong[0]}: {task.name} has no such figure; it may ask for {fitting}"
