"""Tasks are folders, found by name; a name that is no folder imports nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks as package
from tasks import task as tasks
from tasks.task import Picture, Task, UnknownTask

FOLDER = Path(tasks.__file__).parent


def test_every_folder_with_a_task_is_found() -> None:
    told = sorted(path.parent.name for path in FOLDER.glob("*/__init__.py") if "TASK = " in path.read_text("utf-8"))
    assert tasks.names() == told
    assert [tasks.get(name).name for name in told] == told


@pytest.mark.parametrize("name", ["models", "phantoms", "task", "wire", "study", "", ".", "__init__", "__pycache__"])
def test_what_is_no_task_is_refused_with_those_that_exist(name: str) -> None:
    with pytest.raises(UnknownTask) as caught:
        tasks.get(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in tasks.names())


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


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_reads_any_picture_to_its_declared_shape(name: str) -> None:
    task = tasks.get(name)
    for rows, columns in ((40, 60), (300, 200), (17, 17)):
        pixels = np.random.default_rng(0).random((rows, columns), dtype=np.float32)
        example = task.read_example(Picture(pixels))
        assert (example.shape, example.dtype) == (task.example_shape, np.float32)
        assert np.all((example >= 0) & (example <= 1))
        np.testing.assert_array_equal(example, task.read_example(Picture(pixels.copy())))


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_has_what_a_person_needs_to_read(name: str) -> None:
    task = tasks.get(name)
    assert task.question.endswith("?")
    assert len(set(task.classes)) == 2
    assert (FOLDER / name / "labels.md").read_text("utf-8").strip()


def test_the_loss_is_the_mean_over_a_patients_images() -> None:
    task: Task = tasks.get(tasks.names()[0])
    logits, labels = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])
    by_hand = (-np.log(0.5) - np.log(1 - 1 / (1 + np.exp(-2.0)))) / 2
    assert float(task.loss(logits, labels)) == pytest.approx(by_hand, rel=1e-6)
