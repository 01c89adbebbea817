"""BIDS data sets: which volumes are taken, and that left stays left."""

import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from client.errors import EmptySource, LabelsMatchNothing, SiteMisconfigured
from client.sources.files.nifti import list_nifti
from client.sources.nifti_volume import NiftiReader
from client.sources.record import Unreadable
from client.sources.settings import NiftiSource
from tasks.breast_ultrasound import TASK

NOBODY: frozenset[str] = frozenset()
RNG = np.random.default_rng(5)


def _write(path: Path, values: Any = None, affine: Any = None, **header: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = RNG.integers(-200, 900, (4, 5, 6)).astype(np.int16)
    image = nib.Nifti1Image(values, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units(header.pop("unit", "mm"))
    for name, value in header.items():
        image.header[name] = value
    nib.save(image, path)
    return path


def _data_set(folder: Path, rows: list[str] | None = None) -> Path:
    for number in (1, 2, 3):
        for session in ("a", "b"):
            name = f"sub-{number:02d}_ses-{session}_T1w.nii.gz"
            _write(folder / f"sub-{number:02d}" / f"ses-{session}" / "anat" / name)
    _write(folder / "sub-01" / "ses-a" / "func" / "sub-01_ses-a_bold.nii.gz")
    _write(folder / "derivatives" / "sub-01" / "anat" / "sub-01_ses-a_T1w.nii.gz")
    table = ["participant_id\tage\tdiagnosis", *(rows or ["sub-01\t50\t0", "sub-02\t60\t1", "sub-03\t70\t0"])]
    (folder / "participants.tsv").write_text("\n".join([*table, ""]), "utf-8")
    return folder


def _source(folder: Path, **settings: Any) -> NiftiSource:
    values = {"kind": "nifti", "task": TASK.name, "issuer": "bids", "path": folder, "label_column": "diagnosis"}
    return NiftiSource.model_validate(values | {"suffix": "T1w"} | settings)


def test_volumes_of_the_raw_data_are_listed(tmp_path: Path) -> None:
    listing = list_nifti(_source(_data_set(tmp_path)), TASK, NOBODY)
    assert {record.patient_id: record.label for record in listing.records} == {"sub-01": 0, "sub-02": 1, "sub-03": 0}
    assert len(listing.records) == 6
    assert not listing.left_out
    assert listing.records[0].image_id == "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"
    assert len(list_nifti(_source(tmp_path, entities={"ses": "b"}), TASK, NOBODY).records) == 3


def test_who_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = ["sub-01\t1\tmalignant", "sub-02\t2\t0", "sub-02\t2\t1", "sub-04\t1\t0", "sub-04\t1\t0", "sub-05\t1\tn/a"]
    _data_set(tmp_path, rows)
    (tmp_path / "sub-01" / "ses-a" / "anat" / "sub-01_ses-z_T1w.nii.gz").symlink_to(tmp_path / "nowhere")
    listing = list_nifti(_source(tmp_path), TASK, NOBODY)
    assert {(record.patient_id, record.label) for record in listing.records} == {("sub-01", 1)}
    assert listing.left_out == {
        "CONTRADICTING_LABEL_ROWS": 1,
        "DUPLICATE_LABEL_ROW": 1,
        "PARTICIPANT_WITHOUT_LABEL": 1,
        "IMAGE_WITHOUT_LABEL": 4,
        "LABEL_WITHOUT_IMAGE": 1,
        "FILE_ABSENT": 1,
    }
    withdrawn = list_nifti(_source(tmp_path), TASK, frozenset({"01"}))
    assert withdrawn.records == []
    assert withdrawn.left_out["WITHDRAWN"] == 3


def test_wrong_tables_are_named(tmp_path: Path) -> None:
    _data_set(tmp_path, ["sub-01\t1\tperhaps", "02\t1\t0"])
    with pytest.raises(SiteMisconfigured, match=r"(?s)line 2: .*'perhaps'.*line 3: participant_id='02'"):
        list_nifti(_source(tmp_path), TASK, NOBODY)
    with pytest.raises(SiteMisconfigured, match="lacks the column"):
        list_nifti(_source(tmp_path, label_column="group"), TASK, NOBODY)
    _data_set(tmp_path, ["sub-77\t1\t0"])
    with pytest.raises(LabelsMatchNothing, match=r"'sub-77'.*'sub-01'"):
        list_nifti(_source(tmp_path), TASK, NOBODY)
    with pytest.raises(EmptySource, match="FLAIR"):
        list_nifti(_source(tmp_path, suffix="FLAIR"), TASK, NOBODY)


ORIENTATIONS = [a + b + c for a in "LR" for b in "AP" for c in "SI"] + ["PIR", "SAL", "ILP", "ASR"]


@given(st.sampled_from(ORIENTATIONS), st.integers(0, 2**32 - 1))
def test_a_voxel_keeps_its_value_and_its_place(codes: str, seed: int) -> None:
    """However the file stores its axes, the same point of the patient has the same value."""
    rng = np.random.default_rng(seed)
    upright = rng.integers(-500, 500, (4, 5, 6)).astype(np.int16)  # axes towards R, A, S
    affine = np.diag([0.7, 0.8, 2.5, 1.0])
    affine[:3, 3] = rng.normal(size=3) * 30
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(codes)))
    stored = nib.orientations.apply_orientation(upright, turn)
    with tempfile.TemporaryDirectory() as folder:
        path = _write(Path(folder) / "v.nii", stored, affine @ inv_ornt_aff(turn, upright.shape))
        volume = NiftiReader(path).volume()
    assert volume.values.shape == (6, 5, 4)
    assert np.linalg.norm(volume.affine[:3, :3], axis=0) == pytest.approx((2.5, 0.8, 0.7))
    x, y, z = 1, 3, 4
    place = affine @ [x, y, z, 1] * [-1, -1, 1, 1]  # RAS to DICOM's LPS
    index = np.linalg.inv(volume.affine) @ place
    assert np.allclose(index[:3], np.round(index[:3]), atol=1e-4)
    assert volume.values[tuple(np.round(index[:3]).astype(int))] == upright[x, y, z]
    assert np.all(np.diag(volume.affine[[2, 1, 0]][:, :3]) > 0)  # slices go up, rows to posterior, columns to the left


def test_scale_and_units_are_applied(tmp_path: Path) -> None:
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    path = _write(tmp_path / "v.nii", stored, np.diag([2000.0, 3000.0, 4000.0, 1.0]), unit="micron")
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2.0, -1024.0], dtype="<f4").tobytes()  # scl_slope and scl_inter of the header
    path.write_bytes(raw)
    volume = NiftiReader(path).volume()
    assert np.linalg.norm(volume.affine[:3, :3], axis=0) == pytest.approx((4, 3, 2))
    assert set(np.unique(volume.values)) == {value * 2.0 - 1024 for value in range(60)}
    assert volume.values.dtype == np.float32


def test_the_picture_is_grey_over_the_declared_range(tmp_path: Path) -> None:
    eight = RNG.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    picture = NiftiReader(_write(tmp_path / "a.nii", eight)).picture()
    assert picture.pixels.shape == (5, 4)
    assert picture.spacing_mm == pytest.approx((3, 2))
    assert np.allclose(np.sort(picture.pixels.ravel()), np.sort(eight[:, :, 3].ravel()) / 255)
    shown = NiftiReader(_write(tmp_path / "b.nii", eight, cal_min=100, cal_max=101)).picture()
    assert set(np.unique(shown.pixels)) == {0.0, 1.0}
    floats = NiftiReader(_write(tmp_path / "c.nii", eight.astype(np.float32) * 7)).picture()
    assert 0 <= floats.pixels.min() < floats.pixels.max() <= 1


def _refusal(path: Path) -> str:
    with pytest.raises(Unreadable) as refusal:
        NiftiReader(path).volume()
    return refusal.value.reason


def test_what_is_no_volume_is_named(tmp_path: Path) -> None:
    good = _write(tmp_path / "good.nii")
    (tmp_path / "cut.nii").write_bytes(good.read_bytes()[:-9])
    (tmp_path / "text.nii").write_text("no image")
    lost = np.ones((3, 3, 3), np.float32)
    lost[0, 0, 0] = np.nan
    assert _refusal(tmp_path / "absent.nii") == "NOT_NIFTI"
    assert _refusal(tmp_path / "text.nii") == "NOT_NIFTI"
    assert _refusal(tmp_path / "cut.nii") == "DECODE_FAILED"
    assert _refusal(_write(tmp_path / "time.nii", np.ones((2, 2, 2, 9), np.float32))) == "NOT_A_VOLUME"
    assert _refusal(_write(tmp_path / "flat.nii", np.ones((4, 4), np.float32))) == "NOT_A_VOLUME"
    assert _refusal(_write(tmp_path / "nan.nii", lost)) == "NOT_FINITE"
    assert _refusal(_write(tmp_path / "constant.nii", np.ones((3, 3, 3), np.int16))) == "CONSTANT_IMAGE"
    raw = bytearray(good.read_bytes())
    raw[252:256] = bytes(4)  # qform_code and sform_code of the header
    (tmp_path / "lost.nii").write_bytes(raw)
    assert _refusal(tmp_path / "lost.nii") == "NO_ORIENTATION"
    one_time_point = RNG.random((3, 3, 3, 1)).astype(np.float32)
    assert NiftiReader(_write(tmp_path / "one.nii", one_time_point)).volume().values.shape == (3, 3, 3)


def test_a_header_that_claims_too_much_is_refused_before_reading(tmp_path: Path) -> None:
    path = _write(tmp_path / "bomb.nii")
    raw = bytearray(path.read_bytes())
    raw[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], dtype="<i2").tobytes()  # dim of the header
    path.write_bytes(raw)
    assert _refusal(path) == "TOO_LARGE"
