"""Public image sets: rows that are not taken are counted, withdrawn patients too."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from client.errors import EmptySource, SiteMisconfigured
from client.sources.files.manifest import list_manifest
from client.sources.record import Unreadable
from client.sources.settings import ManifestSource
from tasks.breast_ultrasound import TASK
from tasks.lung_ct import TASK as LUNG_CT
from tasks.lung_ultrasound import TASK as LUNG

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
    for record, reason in zip(listing.records[1:], ["CONSTANT_IMAGE", "FILE_ABSENT"], strict=True):
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
    with pytest.raises(SiteMisconfigured, match=r"label has words that no class has: '2' \(1, first in line 2\)"):
        list_manifest(_manifest(tmp_path, "a.png,P1,2,x"), TASK, NOBODY)


def _outlined(folder: Path, *cells: str, **settings: object) -> ManifestSource:
    """One image for each cell of masks, of patients P0, P1 and so on."""
    for name, mark in (("m0.png", (0, 0)), ("m1.png", (5, 3)), ("m2.png", (6, 1))):
        mask = np.zeros((8, 8), np.uint8)
        mask[mark] = 255 * (name != "m0.png")
        Image.fromarray(mask).save(folder / name)
    Image.fromarray(np.ones((8, 9), np.uint8)).save(folder / "wide.png")
    (folder / "broken.png").write_bytes(b"no image")
    for number in range(len(cells)):
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / f"{number}.png")
    rows = [f"{n}.png,P{n},0,{cell}" for n, cell in enumerate(cells)]
    (folder / "manifest.csv").write_text("\n".join(["file,patient_id,label,masks", *rows, ""]), "utf-8")
    values = {"kind": "manifest", "task": TASK.name, "issuer": "set", "path": folder}
    return ManifestSource.model_validate(values | {"mask_columns": {"lesion": "masks"}} | settings)


def test_masks_are_united_and_an_empty_one_says_that_nothing_was_found(tmp_path: Path) -> None:
    cells = ["m1.png; m2.png", "m0.png", "", "wide.png", "m1.png;broken.png"]
    listing = list_manifest(_outlined(tmp_path, *cells), TASK, NOBODY)
    both, empty, *rest = (record.read_masks for record in listing.records)
    assert both is not None
    assert empty is not None
    assert both().shape == (1, 8, 8)
    assert np.argwhere(both()).tolist() == [[0, 5, 3], [0, 6, 1]]
    assert not empty().any()
    assert rest == [None, None, None], "nobody has looked, or what there is cannot be used"
    assert listing.left_out == {"MASK_OF_OTHER_SIZE": 1, "MASK_UNREADABLE": 1}
    assert len({record.signature for record in listing.records[:2]}) == 2


def test_a_mask_that_breaks_after_it_was_listed_is_refused(tmp_path: Path) -> None:
    (record,) = list_manifest(_outlined(tmp_path, "m1.png"), TASK, NOBODY).records
    (tmp_path / "m1.png").write_bytes((tmp_path / "m1.png").read_bytes()[:-30])
    assert record.read_masks is not None
    with pytest.raises(Unreadable) as refusal:
        record.read_masks()
    assert refusal.value.reason == "MASK_UNREADABLE"


def test_findings_come_from_columns_of_any_name(tmp_path: Path) -> None:
    columns = {"b_lines": "x_blines", "effusion": "x_eff"}
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    header = "file,patient_id,label,x_blines,x_eff,other"
    values = {"kind": "manifest", "task": LUNG.name, "issuer": "set", "path": tmp_path, "finding_columns": columns}
    source = ManifestSource.model_validate(values)
    names = [finding.name for finding in LUNG.secondary_findings]
    (tmp_path / "manifest.csv").write_text(f"{header}\na.png,P1,1,1.0,0.0,maybe\nb.png,P1,1,,,\n", "utf-8")
    first, second = list_manifest(source, LUNG, NOBODY).records
    assert {n: v for n, v in zip(names, first.findings, strict=True) if v is not None} == {"b_lines": 1, "effusion": 0}
    assert set(second.findings) == {None}
    (tmp_path / "manifest.csv").write_text(f"{header}\na.png,P1,1,0.5,1,\nb.png,P1,1,1,x,\n", "utf-8")
    with pytest.raises(SiteMisconfigured, match=r"line 2: x_blines='0.5'\n  line 3: x_eff='x'"):
        list_manifest(source, LUNG, NOBODY)


def test_columns_of_what_the_task_does_not_ask_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="secondary findings of breast_ultrasound are"):
        _manifest(tmp_path, finding_columns={"b_lines": "x"})
    with pytest.raises(ValidationError, match=r"structures of breast_ultrasound are \['lesion'\]"):
        _manifest(tmp_path, mask_columns={"heart": "x"})


def test_rows_of_one_file_are_joined_and_contradictions_leave_it_out(tmp_path: Path) -> None:
    source = _outlined(tmp_path, "m1.png", "m0.png")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(manifest.read_text() + "0.png,P0,0,m2.png\n1.png,P1,1,m0.png\n1.png,P1,0,m0.png\n", "utf-8")
    listing = list_manifest(source, TASK, NOBODY)
    assert [record.patient_id for record in listing.records] == ["P0"]
    assert listing.records[0].read_masks is not None
    assert np.argwhere(listing.records[0].read_masks()).tolist() == [[0, 5, 3], [0, 6, 1]]
    assert listing.left_out == {"DUPLICATE_LABEL_ROW": 1, "CONTRADICTING_LABEL_ROWS": 1}


def test_a_published_split_gives_sides_and_keeps_its_test_part_out(tmp_path: Path) -> None:
    rows = ["a.png,P1,0,Train", "b.png,P2,1,val", "c.png,P3,1,TEST", "d.png,P4,1,", "e.png,P1,0,"]
    listing = list_manifest(_manifest(tmp_path, *rows, split_column="site"), TASK, NOBODY)
    sides = [(record.patient_id, record.side) for record in listing.records]
    assert sides == [("P1", "train"), ("P2", "validation"), ("P4", None), ("P1", "train")], "a patient has one side"
    assert listing.left_out == {"HELD_OUT": 1}
    said = {"split_column": "site", "split_sides": {"val": "train", "test": "validation"}}
    listing = list_manifest(_manifest(tmp_path, *rows, **said), TASK, NOBODY)
    assert [record.side for record in listing.records] == ["train", "train", "validation", None, "train"]


def test_volumes_of_a_set_are_scans(tmp_path: Path) -> None:
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "v.nii.gz")
    (tmp_path / "set.tsv").write_text("scan\tcase\tgrade\nv.nii.gz\tP1\tbad\na.png\tP2\tgood\n", "utf-8")
    values_of = {"kind": "manifest", "task": LUNG_CT.name, "issuer": "set", "path": tmp_path}
    values_of |= {"table": tmp_path / "set.tsv", "file_column": "scan", "patient_column": "case"}
    values_of |= {"label_column": "grade", "positive": ["BAD"], "negative": ["good"]}
    listing = list_manifest(ManifestSource.model_validate(values_of), LUNG_CT, NOBODY)
    (record,) = listing.records
    assert record.label == 1
    assert record.read_scan is not None
    (volume,) = record.read_scan(None).volumes.values()
    assert sorted(volume.values.shape) == [4, 5, 6]
    assert listing.left_out == {"NOT_A_SCAN": 1}
