"""An archive dealt out: each image to one hospital at most, the same by the same seed, the published split kept."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.errors import SiteMisconfigured
from client.setup.partition import partition
from conf import load
from conf.schema.federation import MedmnistFederation
from conf.schema.study import Study
from tasks import task as tasks
from tests import archives

XRAY = tasks.get("pneumonia_xray")


def _medmnist_study(folder: Path, sizes: dict[str, int], seed: int = 1, skew: float = 1.0) -> Study:
    labels = np.arange(60).reshape(-1, 1) % 4 == 0
    parts = {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)}
    arrays = {f"{part}_labels": labels[where].astype(np.uint8) for part, where in parts.items()}
    arrays |= {f"{part}_images": np.zeros((len(labels[where]), 4, 4), np.uint8) for part, where in parts.items()}
    np.savez(folder / "set.npz", **arrays)  # type: ignore[arg-type]
    federation = MedmnistFederation(archive="set.npz", sizes=sizes, label_skew=skew)
    study = Study(federation=federation, data_root=str(folder), seed=seed)
    study.task.name = XRAY.name
    return study


def _indices(folder: Path, study: Study) -> dict[str, list[int]]:
    divided = partition(study, XRAY, folder)
    return {n: [int(i) for i in Path(s[0]["indices"]).read_text().split()] for n, s in divided.sources.items()}


def test_no_image_of_an_archive_is_given_twice(tmp_path: Path) -> None:
    study = _medmnist_study(tmp_path, {"a": 20, "b": 10, "c": 5})
    given = _indices(tmp_path, study)
    everything = [index for indices in given.values() for index in indices]
    assert len(everything) == len(set(everything))
    assert _indices(tmp_path, study) == given
    study.seed = 2
    assert _indices(tmp_path, study) != given


def test_a_hospital_that_gets_fewer_than_it_should_is_noted(tmp_path: Path) -> None:
    divided = partition(_medmnist_study(tmp_path, {"a": 50, "b": 50}, skew=100), XRAY, tmp_path)
    sizes = {name: len(Path(s[0]["indices"]).read_text().split()) for name, s in divided.sources.items()}
    short = [name for name, size in sizes.items() if size < 50]
    assert "b" in short
    for name in short:
        assert any(note.startswith(f"{name} has {sizes[name]} patients, not 50") for note in divided.notes)


@pytest.mark.parametrize("name", ["retinamnist", "organmnist3d", "chestmnist"])
def test_all_of_any_archive_is_dealt_out_with_its_published_split(name: str, tmp_path: Path) -> None:
    path = archives.write(tmp_path, name, (300, 30, 100), side=2)
    study = load.load(["experiment=medmnist", f"archive={path}"])
    divided = partition(study, tasks.get(name), tmp_path)
    given = [int(i) for s in divided.sources.values() for i in Path(s[0]["indices"]).read_text().split()]
    assert Counter(given) == Counter(range(430))
    sizes = {n: len(Path(s[0]["indices"]).read_text().split()) for n, s in divided.sources.items()}
    assert sizes["ash"] > sizes["oak"] > 0, "as uneven as they are to be"
    assert "The archive's own split is kept: train trained on, val left out, test for the figures." in divided.notes
    sides = [s[0]["split_sides"] for s in divided.sources.values()]
    assert sides == [{"train": "train", "val": "leave_out", "test": "validation"}] * 6


def test_an_archive_of_another_name_or_of_another_task_is_refused(tmp_path: Path) -> None:
    study = load.load(["experiment=medmnist", f"archive={archives.write(tmp_path, 'octmnist')}"])
    study.archive, study.federation.archive = "", "organcmnist.npz"  # type: ignore[attr-defined]
    with pytest.raises(SiteMisconfigured, match=r"organcmnist\.npz is not in that folder; it has octmnist\.npz"):
        partition(study, tasks.get("organcmnist"), tmp_path)
    (tmp_path / "octmnist.npz").rename(tmp_path / "retinamnist.npz")
    study = load.load(["experiment=medmnist", f"archive={tmp_path / 'retinamnist.npz'}"])
    with pytest.raises(SiteMisconfigured, match=r"retinamnist\.npz does not fit task retinamnist: train_images"):
        partition(study, tasks.get("retinamnist"), tmp_path)
