"""Outlines that exclude each other, and one that contains two of them. What every task must keep stands in
``tests/tasks/test_every_task.py``."""

from __future__ import annotations

from pathlib import Path

from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks.exclusion import contradicted
from tasks.left_heart import TASK
from tasks.task import PhantomHospital


def test_cavity_muscle_and_atrium_lie_apart_and_the_epicardium_around_two_of_them(tmp_path: Path) -> None:
    TASK.draw_phantom(tmp_path, PhantomHospital("alder", patients=3, images_per_patient=(1, 2)), 0)
    source = FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=tmp_path / "dicom", labels=tmp_path / "labels.csv"
    )
    records = list_folder(source, TASK, frozenset()).records
    assert len(records) >= 3
    for record in records:
        assert record.read_masks is not None
        masks = record.read_masks()
        assert masks.any(axis=(1, 2)).all()
        assert contradicted(masks, TASK.exclusive_places) == 0
        assert contradicted(masks, [(0, 3)]) == masks[0].sum(), "all of the cavity lies within the epicardium"
        assert (masks[3] == masks[0] | masks[1]).all()
