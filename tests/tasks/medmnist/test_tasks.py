"""The tasks of archives: found by name, and kept apart from those that hospitals answer from their own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tasks import contract as contracts
from tasks import task as tasks
from tasks.imaging.volumes import NoExample
from tasks.medmnist.questions import TASKS
from tasks.medmnist.table import ARCHIVES
from tasks.task import NoPhantoms, PhantomHospital, Picture, Scan, Volume


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_each_archive_is_a_task_with_its_own_labels(name: str) -> None:
    task, archive = tasks.get(name), ARCHIVES[name]
    assert (task.name, task.question) == (name, archive.question)
    assert task.question.endswith("?")
    told = {"binary": task.classes, "findings": tuple(finding.name for finding in task.secondary_findings)}
    assert told.get(archive.kind, getattr(task.answer, "names", ())) == archive.labels
    codes = [finding.code for finding in task.secondary_findings] or [*getattr(task.answer, "codes", ()), task.finding]
    assert len({code.value for code in codes}) == len(codes)
    assert max(len(code.value) for code in codes) <= 16, "a CodeValue is a short string (PS3.3 table 8.8-1a)"
    assert max(len(code.meaning) for code in codes) <= 64
    contract = contracts.of_task(name)
    assert (contract.task, contract.derived) == (name, "simulated_only")


def test_archives_are_known_by_name_and_no_clinical_tasks() -> None:
    assert set(TASKS) < set(tasks.names())
    assert not set(TASKS) & set(tasks.clinical())
    assert "medmnist" not in tasks.names()
    assert {tasks.folder_of("pathmnist"), tasks.folder_of("heart_size")} == {"medmnist", "heart_size"}
    assert contracts.digest_of_task("pathmnist") != contracts.digest_of_task("octmnist")


def test_there_are_no_phantoms_of_an_archive(tmp_path: Path) -> None:
    with pytest.raises(NoPhantoms, match="pathmnist has no phantoms; set experiment=medmnist archive=FILE"):
        tasks.get("pathmnist").draw_phantom(tmp_path, PhantomHospital("alder", 2), 0)


def test_a_picture_of_other_colours_is_left_out_by_a_word() -> None:
    grey = np.full((28, 28), 0.5, np.float32)
    with pytest.raises(NoExample, match="WRONG_COLOURS: 1 colours, not 3"):
        tasks.get("pathmnist").read_example(Picture(grey))
    assert tasks.get("pathmnist").read_example(Picture(grey, beside=(grey / 2, grey / 4)))[:, 0, 0].tolist() == [
        0.5,
        0.25,
        0.125,
    ]


def test_a_larger_volume_is_averaged() -> None:
    values = np.zeros((56, 56, 56), np.float32)
    values[::2] = 1
    example = tasks.get("organmnist3d").read_example(Scan({"volume": Volume(values, np.eye(4))}))
    assert example.shape == (1, 28, 28, 28)
    np.testing.assert_allclose(example, 0.5)
