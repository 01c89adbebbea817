"""What hospitals' archives hold beside faultless series: each kind is read rightly, or refused by its own word.

The same expectations are held against files made here and against those of others (``cases/dicom`` beside the folder
that CONSILIUM_DATA names), where they are."""

from __future__ import annotations

import csv
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.site import SiteSettings
from tests.client.sources.files import case_files as made
from tests.client.sources.files.case_files import Outcome, outcome

Provision = Callable[..., SiteSettings]
CASES = Path(os.environ.get("CONSILIUM_DATA", "")).parent / "cases" / "dicom"
OF_OTHERS = {"volume_chinese_description", "labels_gbk"}
"""Tested with what reads labels and chooses series."""


def _read(found: Outcome, told: dict[str, int] | None = None, outlined: bool = False) -> None:
    assert (found.rejected, found.unreadable, dict(found.left_out)) == ([], [], told or {})
    ((example, masks),) = found.examples
    assert np.ptp(example[0]) > 0
    assert (masks is not None and bool(masks.any())) is outlined
    if masks is not None:
        assert example[0][masks[0]].mean() > example[0][~masks[0]].mean(), "a nodule is denser than the lung around it"


def _rejected(found: Outcome, rule: str) -> None:
    assert (found.rejected, found.examples, dict(found.left_out)) == ([(rule,)], [], {})


def _left_out(found: Outcome, word: str, number: int) -> None:
    assert (dict(found.left_out), found.examples, found.rejected) == ({word: number}, [], [])


RIGHT: dict[str, tuple[str, Callable[[Outcome], None]]] = {
    "ct_outlined_series_and_longer_one_elsewhere": (
        "lung_ct",
        lambda found: _read(found, {"OTHER_SERIES:OUTLINED_ELSEWHERE": 1}, outlined=True),
    ),
    "ct_chest_and_longer_abdomen": (
        "lung_ct",
        lambda found: _read(found, {"OTHER_SERIES:RULE:organ": 1}, outlined=True),
    ),
    "enhanced_mr_measures_per_frame": ("brain_mr", _read),
    "volume_imagetype_differs": ("brain_mr", lambda found: _read(found, {"NOTE:SLICES_DIFFER": 1})),
    "volume_two_thicknesses": ("brain_mr", lambda found: _left_out(found, "UNEVEN_SPACING", 1)),
    "volume_positions_1_decimal_1250": ("brain_mr", _read),
    "ct_without_rescale": ("lung_ct", lambda found: _rejected(found, "hounsfield")),
    "ct_seg_labelmap": ("lung_ct", lambda found: _read(found, outlined=True)),
    "us_only_colour_region": ("breast_ultrasound", lambda found: _rejected(found, "regions")),
    "us_region_max_is_columns": ("breast_ultrasound", _read),
    "xray_two_patients_one_study": ("chest_xray", lambda found: _left_out(found, "STUDY_OF_SEVERAL_PATIENTS", 2)),
    "xray_no_sop_uid": ("chest_xray", lambda found: _left_out(found, "NO_UID", 2)),
    "volume_resent_new_uids": ("brain_mr", lambda found: _read(found, {"NOTE:SENT_TWICE": 1})),
    "xray_burned_in_yes": ("chest_xray", lambda found: _rejected(found, "no-burned-in-annotation")),
    "bare_data_set": ("chest_xray", _read),
}


def _outlined_and_longer(folder: Path) -> None:
    made.outline(folder, made.ct_series(folder, BodyPartExamined="CHESTABDPELVIS"))
    more = {"SeriesInstanceUID": f"{made.STUDY}.8", "BodyPartExamined": "CHESTABDPELVIS"}
    made.ct_series(folder, 32, first=100, below=200, nodule=False, SeriesDescription="ABDOMEN", **more)


def _chest_and_longer(folder: Path) -> None:
    made.outline(folder, made.ct_series(folder))
    more = {"SeriesInstanceUID": f"{made.STUDY}.8", "BodyPartExamined": "ABDOMEN"}
    made.ct_series(folder, 32, first=100, below=200, nodule=False, SeriesDescription="ABDOMEN", **more)


def _cut(n: int) -> dict[str, Any]:
    return {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D"]} if n >= 10 else {}


def _two_blocks(n: int) -> dict[str, Any]:
    if n < 8:
        return {"ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "ADD"]}
    return {"SliceThickness": 7, "ImagePositionPatient": [-96.0, -96.0, -4.0 + 7.0 * (n - 7)]}


def _one_decimal(n: int) -> dict[str, Any]:
    return {"ImagePositionPatient": ["-96.0", "-96.0", f"{-32 + 1.25 * n + 1e-6:.1f}"], "SliceThickness": 1.25}


def _resent(folder: Path) -> None:
    made.mr_series(folder)
    made.mr_series(folder, first=100)


def _two_patients(folder: Path, **changes: Any) -> None:
    made.xray(folder, 1, **changes)
    made.xray(folder, 2, PatientID="ALDER-2", **changes)


def _two_without_uid(folder: Path) -> None:
    made.xray(folder, 1, SOPInstanceUID=None)
    made.xray(folder, 2, SOPInstanceUID=None, PatientID="ALDER-2", StudyInstanceUID=f"{made.STUDY}.2")
    made.label(folder, f"{made.STUDY},1", f"{made.STUDY}.2,0")


MADE: dict[str, Callable[[Path], object]] = {
    "ct_outlined_series_and_longer_one_elsewhere": _outlined_and_longer,
    "ct_chest_and_longer_abdomen": _chest_and_longer,
    "enhanced_mr_measures_per_frame": lambda folder: made.enhanced(folder, ct=False),
    "volume_imagetype_differs": lambda folder: made.mr_series(folder, changes=_cut),
    "volume_two_thicknesses": lambda folder: made.mr_series(folder, changes=_two_blocks),
    "volume_positions_1_decimal_1250": lambda folder: made.mr_series(folder, 32, changes=_one_decimal),
    "ct_without_rescale": lambda folder: made.outline(
        folder, made.ct_series(folder, RescaleSlope=None, RescaleIntercept=None)
    ),
    "ct_seg_labelmap": lambda folder: made.outline(folder, made.ct_series(folder), labels=True),
    "us_only_colour_region": lambda folder: made.ultrasound(folder, {"RegionDataType": 2}),
    "us_region_max_is_columns": lambda folder: made.ultrasound(folder, {"RegionLocationMaxX1": 640}),
    "xray_two_patients_one_study": _two_patients,
    "xray_no_sop_uid": _two_without_uid,
    "volume_resent_new_uids": _resent,
    "xray_burned_in_yes": lambda folder: made.xray(folder, BurnedInAnnotation="YES"),
    "bare_data_set": lambda folder: made.xray(folder, meta=False),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_made_here_is_read_rightly(name: str, tmp_path: Path, provision_hospital: Provision) -> None:
    task, right = RIGHT[name]
    made.label(tmp_path / "case")
    MADE[name](tmp_path / "case")
    right(outcome(tmp_path / "case", task, provision_hospital()))


@pytest.mark.parametrize("name", RIGHT)
def test_what_others_made_is_read_rightly(name: str, tmp_path: Path, provision_hospital: Provision) -> None:
    if not (CASES / f"{name}.zip").is_file():
        pytest.skip("no cases/dicom beside the folder that CONSILIUM_DATA names")
    with zipfile.ZipFile(CASES / f"{name}.zip") as archive:
        archive.extractall(tmp_path / "case")
    task, right = RIGHT[name]
    right(outcome(tmp_path / "case", task, provision_hospital()))


def test_every_case_of_others_has_an_answer() -> None:
    if not (CASES / "cases.csv").is_file():
        pytest.skip("no cases/dicom beside the folder that CONSILIUM_DATA names")
    with (CASES / "cases.csv").open(newline="", encoding="utf-8") as file:
        assert {Path(row["file"]).stem for row in csv.DictReader(file)} == {*RIGHT, *OF_OTHERS}


# Further of the same kinds


@pytest.mark.parametrize("per_frame", [True, False])
def test_an_enhanced_ct_goes_through_the_whole_task(
    per_frame: bool, tmp_path: Path, provision_hospital: Provision
) -> None:
    made.label(tmp_path)
    made.outline(tmp_path, made.enhanced(tmp_path, ct=True, measures_per_frame=per_frame))
    _read(outcome(tmp_path, "lung_ct", provision_hospital()), outlined=True)


def test_a_ct_whose_intercept_was_lost_to_zero_is_not_believed(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    made.outline(tmp_path, made.ct_series(tmp_path, RescaleIntercept=0))
    found = outcome(tmp_path, "lung_ct", provision_hospital())
    assert (found.unreadable, found.examples) == (["NOT_HOUNSFIELD"], [])


def test_an_outline_of_another_space_is_not_laid_over_the_series(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    slices = made.ct_series(tmp_path)
    made.outline(tmp_path, slices, FrameOfReferenceUID="1.2.3")
    site = provision_hospital()
    _read(outcome(tmp_path, "lung_ct", site), outlined=True)  # it refers to these very slices
    for one in slices:
        one.SOPInstanceUID += ".7"
        made.save(tmp_path / "dicom" / f"{int(one.InstanceNumber):03}.dcm", one)
    found = outcome(tmp_path, "lung_ct", site)
    assert (found.unreadable, dict(found.left_out)) == (["NO_OUTLINE"], {"SEGMENTATION_ELSEWHERE": 1})


def test_two_series_alike_are_told(tmp_path: Path, provision_hospital: Provision) -> None:
    """Sent twice under a new SeriesInstanceUID; and a shorter and a derived one."""
    made.label(tmp_path)
    made.outline(tmp_path, made.ct_series(tmp_path))
    made.ct_series(tmp_path, first=100, SeriesInstanceUID=f"{made.STUDY}.8")
    made.ct_series(tmp_path, first=200, SeriesInstanceUID=f"{made.STUDY}.9", ImageType=["DERIVED", "SECONDARY"])
    made.ct_series(tmp_path, 2, first=300, SeriesInstanceUID=f"{made.STUDY}.10")
    told = {"OTHER_SERIES:JUST_AS_GOOD": 1, "OTHER_SERIES:RULE:original": 1, "OTHER_SERIES:OUTLINED_ELSEWHERE": 1}
    _read(outcome(tmp_path, "lung_ct", provision_hospital()), told, outlined=True)


def test_contours_are_refused_by_their_own_word(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    made.ct_series(tmp_path)
    contours = made.dataset(np.zeros((1, 2), np.uint8), 99, SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3")
    del contours.PixelData
    made.save(tmp_path / "dicom" / "rtstruct.dcm", contours)
    found = outcome(tmp_path, "lung_ct", provision_hospital())
    assert (found.unreadable, dict(found.left_out)) == (["NO_OUTLINE"], {"RT_STRUCTURE_SET": 1})


def test_a_hospital_may_accept_burned_in_annotations(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    made.xray(tmp_path, BurnedInAnnotation="YES")
    found = outcome(tmp_path, "chest_xray", provision_hospital(), burned_in_annotation="accept")
    _read(found)
    assert "no-burned-in-annotation" in found.warned[0]


@pytest.mark.parametrize("kind", [{"RegionDataType": 3, "RegionSpatialFormat": 3}, {"RegionSpatialFormat": 2}])
def test_only_b_mode_regions_keep_a_frame(kind: dict[str, int], tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    made.ultrasound(tmp_path, kind)
    site = provision_hospital()
    _rejected(outcome(tmp_path, "breast_ultrasound", site), "regions")
    made.ultrasound(tmp_path, kind | {"RegionLocationMinY0": 430, "RegionLocationMaxY1": 470}, {})
    found = outcome(tmp_path, "breast_ultrasound", site)
    _read(found)
    assert found.examples[0][0].max() < 0.5, "the white bar is blacked out"


def test_two_patients_with_one_name_for_an_image_are_not_copies(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path, f"{made.STUDY},1", f"{made.STUDY}.2,0")
    made.xray(tmp_path, 1)
    made.xray(tmp_path, 2, PatientID="ALDER-2", StudyInstanceUID=f"{made.STUDY}.2", SOPInstanceUID=f"{made.STUDY}.1.1")
    _left_out(outcome(tmp_path, "chest_xray", provision_hospital()), "INSTANCE_OF_SEVERAL_PATIENTS", 2)


def test_slices_without_position_are_said(tmp_path: Path, provision_hospital: Provision) -> None:
    made.label(tmp_path)
    made.mr_series(tmp_path, changes=lambda n: {"ImagePositionPatient": None})
    _left_out(outcome(tmp_path, "brain_mr", provision_hospital()), "NO_POSITION", 1)
