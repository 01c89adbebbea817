"""Public image sets: rows that are not taken are counted, withdrawn patients too."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.errors import EmptySource, SiteMisconfigured
from client.sources.manifest import list_manifest
from client.sources.medmnist import list_medmnist
from client.sources.record import Unreadable
from client.sources.settings import ManifestSource, MedmnistSource
from tasks.breast_ultrasound import TASK

NOBODY: frozenset[str] = frozenset()


def _manifest(folder: Path, *rows: str, **settings: object) -> ManifestSource:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "a.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "flat.png")
    (folder / "manifest.csv").write_text("\n".join(["file,patient_id,label,site", *rows, ""]), "utf-8")
    values = {"kind": "manifest", "task": TASK.name, "issuer": "set", "path": folder}
    return ManifestSource.model_validate(values | settings)


def test_rows_are_records(tmp_path: Path) -> None:
    source = _manifest(tmp_path, "a.png,P1,0,x", "a.png,P1,0,x", "flat.png,P2,1,x", "b.png,,1,x", "c.png,P3,1,y")
    listing = list_manifest(source, TASK, NOBODY)
    assert [record.patient_id for record in listing.records] == ["P1", "P2", "P3"]
    assert listing.left_out == {"DUPLICATE_LABEL_ROW": 1, "NO_PATIENT_ID": 1}
    assert listing.records[0].read().pixels.max() == pytest.approx(63 / 255)
    for record, reason in zip(listing.records[1:], ["CONSTANT_IMAGE", "DECODE_FAILED"], strict=True):
        with pytest.raises(Unreadable) as refusal:
            record.read()
        assert refusal.value.reason == reason


def test_members_and_withdrawals(tmp_path: Path) -> None:
    source = _manifest(tmp_path, "a.png,P1,0,x", "b.png,P2,1,y", where={"site": ["x", "y"]})
    assert list_manifest(source, TASK, frozenset({"P2"})).left_out == {"WITHDRAWN": 1}
    everybody = list_manifest(source, TASK, frozenset({"P1", "P2"}))
    assert everybody.records == []
    assert everybody.left_out == {"WITHDRAWN": 2}
    with pytest.raises(EmptySource):
        list_manifest(_manifest(tmp_path, "a.png,P1,0,x", where={"site": ["z"]}), TASK, NOBODY)
    with pytest.raises(SiteMisconfigured, match="line 2"):
        list_manifest(_manifest(tmp_path, "a.png,P1,2,x"), TASK, NOBODY)


def test_medmnist_images_can_be_withdrawn(tmp_path: Path) -> None:
    parts = {f"{part}_images": np.full((2, 4, 4), 9, np.uint8) for part in ("train", "val", "test")}
    labels = {f"{part}_labels": np.array([[0], [1]], np.uint8) for part in ("train", "val", "test")}
    np.savez(tmp_path / "set.npz", **parts, **labels)
    (tmp_path / "indices").write_text("0 1 5", "utf-8")
    source = MedmnistSource(
        kind="medmnist", task=TASK.name, issuer="set", path=tmp_path / "set.npz", indices=tmp_path / "indices"
    )
    listing = list_medmnist(source, TASK, frozenset({"image-000001"}))
    assert [(record.patient_id, record.label) for record in listing.records] == [
        ("image-000000", 0),
        ("image-000005", 1),
    ]
    assert listing.left_out == {"WITHDRAWN": 1}
