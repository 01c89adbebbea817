"""Tasks are folders, found by name; a name that is no folder imports nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks as package
from tasks import task as tasks
from tasks.task import Task, UnknownTask

FOLDER = Path(tasks.__file__).parent


def test_every_folder_with_a_task_is_found() -> None:
    told = sorted(path.parent.name for path in FOLDER.glob("*/__init__.py") if "TASK = " in path.read_text("utf-8"))
    told.remove("template")  # what new tasks are copied from
    assert tasks.clinical() == told
    assert [tasks.get(name).name for name in told] == told


@pytest.mark.parametrize(
    "name", ["models", "phantoms", "template", "task", "wire", "study", "", ".", "__init__", "__pycache__"]
)
def test_what_is_no_task_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        tasks.get(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in tasks.clinical())


@pytest.mark.parametrize(
    "name", ["antigravity", "tasks.antigravity", "../antigravity", "breast_ultrasound.phantom", "breast_ultrasound/x"]
)
def test_a_name_that_is_no_folder_imports_nothing(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(UnknownTask):
        tasks.get(name)
    assert set(sys.modules) == before


@pytest.mark.parametrize("content", ["", "TASK = 3\n", "from tasks.breast_ultrasound import TASK\n"])
def test_a_folder_that_does_not_define_its_own_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    (tmp_path / "half_done").mkdir()
    (tmp_path / "half_done" / "__init__.py").write_text(content)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    with pytest.raises(TypeError, match=r"tasks/half_done/__init__\.py must define TASK"):
        tasks.get("half_done")
    sys.modules.pop("tasks.half_done", None)


def test_what_is_shared_by_tasks_is_no_task() -> None:
    assert not {"metrics", "models", "phantoms", "template"} & set(tasks.clinical())


@pytest.mark.parametrize(
    ("most", "number", "frames"),
    [(1, 1, (0,)), (1, 8, (4,)), (1, 9, (4,)), (3, 2, (0, 1)), (3, 9, (1, 4, 7)), (4, 4, (0, 1, 2, 3))],
)
def test_frames_of_a_clip_are_the_middles_of_its_parts(most: int, number: int, frames: tuple[int, ...]) -> None:
    assert replace(tasks.get(tasks.clinical()[0]), frames_per_clip=most).frames(number) == frames


@pytest.mark.parametrize(
    ("moments", "number", "beside"),
    [(2, 1, ()), (2, 2, (1,)), (2, 9, (8,)), (3, 2, ()), (3, 3, (1, 2)), (3, 10, (4, 9)), (0, 9, ()), (1, 9, ())],
)
def test_moments_are_read_together_from_the_first_frame_to_the_last(
    moments: int, number: int, beside: tuple[int, ...]
) -> None:
    task = replace(tasks.get(tasks.clinical()[0]), frames_per_clip=4, moments=tuple(map(str, range(moments))))
    assert task.beside(number) == beside
    assert not moments or task.frames(number) == (0,)


def test_the_loss_is_the_mean_over_a_patients_images() -> None:
    task: Task = tasks.get(tasks.clinical()[0])
    logits, labels = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [0.0]])
    by_hand = (-np.log(0.5) - np.log(1 - 1 / (1 + np.exp(-2.0)))) / 2
    task = replace(task, secondary_findings=(), structures=())
    assert float(task.loss(logits, labels)) == pytest.approx(by_hand, rel=1e-6)
