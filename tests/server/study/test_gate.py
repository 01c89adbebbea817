"""Which figures a gate may ask of a task."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from conf.schema.evaluation import Gate
from server.study.gate import OF_ANSWERS, unfit_gate
from tasks import task as tasks
from tasks.answers import KINDS


def test_every_kind_and_every_setting_is_known() -> None:
    assert OF_ANSWERS.keys() == {*KINDS}
    of_answers = {name for names in OF_ANSWERS.values() for name in names}
    assert asdict(Gate()).keys() == {"auc", "sensitivity", "specificity"} | of_answers


@pytest.mark.parametrize(
    ("task", "asked", "says"),
    [
        ("breast_ultrasound", {"kappa": 0.5}, "gate.kappa: breast_ultrasound has no such figure; it may ask for auc"),
        ("breast_ultrasound_three", {"mean_error": 1.0}, "sensitivity, specificity, macro_auc, accuracy"),
        ("heart_size", {"accuracy": 0.5}, "specificity, mean_error"),
    ],
)
def test_a_figure_of_another_kind_is_refused_with_those_that_there_are(
    task: str, asked: dict[str, float | None], says: str
) -> None:
    assert says in unfit_gate(asked, tasks.get(task))


def test_what_fits_is_not_refused() -> None:
    three, heart = tasks.get("breast_ultrasound_three"), tasks.get("heart_size")
    assert unfit_gate({"macro_auc": 0.8, "auc": 0.8, "kappa": None}, three) == ""
    assert unfit_gate({"mean_error": 5.0, "sensitivity": 0.5}, heart) == ""
