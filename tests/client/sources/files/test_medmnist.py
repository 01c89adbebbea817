"""Archives of MedMNIST: each kind is read as its task asks, and what does not fit is refused in one sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from client.cohort.preparation import Decoding, Job, prepare
from client.errors import SiteMisconfigured
from client.sources.files.medmnist import list_medmnist, read_archive
from client.sources.record import Listing
from client.sources.settings import MedmnistSource
from tasks import task as tasks
from tasks.breast_ultrasound import TASK
from tasks.task import Task
from tests import archives

NOBODY: frozenset[str] = frozenset()


class Kept:
    """In place of a cache on disk."""

    def __init__(self) -> None:
        self.examples: list[np.ndarray] = []

    def save(self, _name: str, example: np.ndarray, _masks: object) -> None:
        self.examples.append(example)


def _listed(path: Path, task: Task, indices: str = "0 5 15", **values: object) -> Listing:
    (path.parent / "indices").write_text(indices, "utf-8")
    known = {"kind": "medmnist", "task": task.name, "issuer": "set", "path": path, "indices": path.parent / "indices"}
    return list_medmnist(MedmnistSource.model_validate(known | values), task, NOBODY)


@pytest.mark.parametrize("name", ["pathmnist", "retinamnist", "chestmnist", "breastmnist", "organmnist3d"])
def test_an_archive_of_each_kind_becomes_examples(name: str, tmp_path: Path) -> None:
    task, path = tasks.get(name), archives.write(tmp_path, name)
    records = _listed(path, task).records
    with np.load(path) as file:
        labels = file["train_labels"]
    for record, number in zip(records[:2], (0, 5), strict=True):
        several = bool(task.secondary_findings)
        assert record.label == (labels[number].max() if several else labels[number, 0])
        assert record.findings == (tuple(labels[number]) if several else ())
    kept = Kept()
    with Decoding() as decoding:
        jobs = [Job(record, record.image_id) for record in records]
        for _ in prepare(jobs, task, kept, decoding):  # type: ignore[arg-type]
            pass
    assert {example.shape for example in kept.examples} == {task.example_shape}
    assert len(kept.examples) == 3


def test_colours_and_voxels_pass_as_they_are_and_larger_ones_are_made_small(tmp_path: Path) -> None:
    for name in ("bloodmnist", "nodulemnist3d"):
        task, path = tasks.get(name), archives.write(tmp_path, name)
        with np.load(path) as file:
            first = file["train_images"][0].astype(np.float32) / 255
        (record,) = _listed(path, task, "0").records
        seen = record.read() if record.read_scan is None else record.read_scan(None)
        wanted = np.moveaxis(first, -1, 0) if record.read_scan is None else first[None]
        np.testing.assert_allclose(task.read_example(seen), wanted, atol=1e-6)
        (record,) = _listed(archives.write(tmp_path, name, (2, 2, 2), 64), task, "0").records
        seen = record.read() if record.read_scan is None else record.read_scan(None)
        assert task.read_example(seen).shape == task.example_shape


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = archives.write(tmp_path, "pathmnist")
    retina = tasks.get("retinamnist")
    with pytest.raises(
        SiteMisconfigured, match=r"does not fit task retinamnist: train_labels go from 0 to 8, not from"
    ):
        read_archive(path, retina)
    with pytest.raises(SiteMisconfigured, match=r"of shape \(12, 28, 28, 3\), not uint8 of shape \(images, rows, col"):
        read_archive(path, tasks.get("octmnist"))
    with pytest.raises(SiteMisconfigured, match=r"\(12, 28, 28, 28\), not uint8 of shape \(images, rows, columns, 3\)"):
        read_archive(archives.write(tmp_path, "organmnist3d"), retina)
    with pytest.raises(SiteMisconfigured, match=r"of shape \(12, 14\), not whole numbers of shape \(12, 1\)"):
        read_archive(archives.write(tmp_path, "chestmnist"), tasks.get("octmnist"))
    with pytest.raises(SiteMisconfigured, match="asks for a measured value"):
        read_archive(archives.write(tmp_path, "octmnist"), tasks.get("heart_size"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half of a zip", b"text"])
def test_a_file_that_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(SiteMisconfigured, match=r"set\.npz is no archive of MedMNIST \("):
        read_archive(tmp_path / "set.npz", TASK)


def test_arrays_of_other_names_or_of_python_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x_train=np.zeros((2, 4, 4), np.uint8))
    np.save(tmp_path / "one.npz.npy", np.zeros(3))
    pickled = {f"{part}_{what}": np.array([{}]) for part in ("train", "val", "test") for what in ("images", "labels")}
    np.savez(tmp_path / "pickled.npz", **pickled)  # type: ignore[arg-type]
    for name, reason in (("other.npz", "train_images"), ("one.npz.npy", ""), ("pickled.npz", "allow_pickle=False")):
        with pytest.raises(SiteMisconfigured, match=rf"is no archive of MedMNIST \(.*{reason}"):
            read_archive(tmp_path / name, TASK)


def test_images_can_be_withdrawn(tmp_path: Path) -> None:
    path = archives.write(tmp_path, "pneumoniamnist")
    (tmp_path / "indices").write_text("0 1 5", "utf-8")
    source = MedmnistSource(kind="medmnist", task=TASK.name, issuer="set", path=path, indices=tmp_path / "indices")
    listing = list_medmnist(source, TASK, frozenset({"image-000001"}))
    told = [(record.patient_id, record.label) for record in listing.records]
    assert told == [("image-000000", 0), ("image-000005", 1)]
    assert listing.left_out == {"WITHDRAWN": 1}


def test_parts_of_an_archive_are_its_published_split(tmp_path: Path) -> None:
    path, sides = (
        archives.write(tmp_path, "pneumoniamnist"),
        {"train": "train", "val": "leave_out", "test": "validation"},
    )
    listing = _listed(path, TASK, " ".join(map(str, range(24))), split_sides=sides)
    assert Counter(record.side for record in listing.records) == {"train": 12, "validation": 8}
    assert listing.left_out == {"HELD_OUT": 4}
    with pytest.raises(ValidationError, match="'train', 'val' or 'test'"):
        _listed(path, TASK, split_sides={"dev": "train"})
    with pytest.raises(SiteMisconfigured, match="list index out of range"):
        _listed(path, TASK, "99")
