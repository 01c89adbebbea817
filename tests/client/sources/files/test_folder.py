"""Folder and labels: what is listed, and that everything else is counted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.errors import EmptySource, LabelsMatchNothing, SiteMisconfigured
from client.reading.decoding import Decoder
from client.sources.files.folder import list_folder
from client.sources.frame import Frame
from client.sources.labels.table import read_labels
from client.sources.settings import FolderSource
from tasks.breast_ultrasound import TASK
from tasks.codes import Code
from tasks.imaging.frames import moments_of
from tasks.imaging.volumes import NoExample
from tasks.phantoms.dicom_writer import common_attributes, pixel_attributes, uid, write
from tasks.task import Finding
from tests.client.sources import small_hospital

NOBODY: frozenset[str] = frozenset()


def _source(folder: Path) -> FolderSource:
    return FolderSource(
        kind="folder", task=TASK.name, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv"
    )


def _labels(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, "utf-8")
    return path


def test_everything_labelled_is_listed(tmp_path: Path) -> None:
    small_hospital.fill(tmp_path)
    listing = list_folder(_source(tmp_path), TASK, NOBODY)
    assert sorted({(record.patient_id, record.label) for record in listing.records}) == [
        ("ALDER-0001", 0),
        ("ALDER-0002", 1),
        ("ALDER-0003", 0),
        ("ALDER-0004", 1),
    ]
    assert len(listing.records) == 8
    assert not listing.left_out


def test_everything_else_is_counted(tmp_path: Path) -> None:
    files = small_hospital.fill(tmp_path)
    (tmp_path / "dicom" / "copy.dcm").write_bytes(files[0].read_bytes())
    (tmp_path / "dicom" / "notes.txt").write_text("not an image")
    _labels(tmp_path, "PatientID,label\nALDER-0001,0\nALDER-0001,0\nALDER-0002,0\nALDER-0002,1\nALDER-0003,1\nX,0\n")
    listing = list_folder(_source(tmp_path), TASK, frozenset({"ALDER-0003"}))
    assert {record.patient_id for record in listing.records} == {"ALDER-0001"}
    assert listing.left_out == {
        "DUPLICATE_LABEL_ROW": 1,
        "CONTRADICTING_LABEL_ROWS": 1,
        "IMAGE_WITHOUT_LABEL": 4,
        "LABEL_WITHOUT_IMAGE": 1,
        "DUPLICATE_INSTANCE": 1,
        "WITHDRAWN": 2,
        "NOT_DICOM": 1,
    }


def test_a_clip_gives_the_frames_that_the_task_takes(tmp_path: Path) -> None:
    small_hospital.fill(tmp_path)
    pixels = np.arange(40 * 6, dtype=np.uint8).reshape(40, 2, 3)
    for number, patient in enumerate(("ALDER-0001", "NOBODY"), start=7):
        attributes = common_attributes("small", "alder", number, 0) | pixel_attributes(pixels, 8, "MONOCHROME2")
        attributes |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1", "SOPInstanceUID": uid("clip", number)}
        write(tmp_path / "dicom" / f"clip{number}.dcm", attributes | {"PatientID": patient, "Modality": "US"})
    for most, frames in ((1, [20]), (4, [5, 15, 25, 35])):
        listing = list_folder(_source(tmp_path), replace(TASK, frames_per_clip=most), NOBODY)
        of_clip = [record for record in listing.records if record.image_id.startswith(uid("clip", 7))]
        assert len({record.image_id for record in of_clip}) == len(frames)
        assert {(record.patient_id, record.label) for record in of_clip} == {("ALDER-0001", 0)}
        for record, frame in zip(of_clip, frames, strict=True):
            np.testing.assert_allclose(record.read().pixels, pixels[frame] / 255, atol=1e-6)
        assert listing.left_out == {"IMAGE_WITHOUT_LABEL": len(frames)}, "counted as images, like those with a label"


def test_a_clips_moments_are_read_together(tmp_path: Path) -> None:
    """Here and in a decoding process; a still has too few, which its task says."""
    small_hospital.fill(tmp_path)
    pixels = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)
    attributes = common_attributes("small", "alder", 7, 0) | pixel_attributes(pixels, 8, "MONOCHROME2")
    attributes |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.3.1", "SOPInstanceUID": uid("clip", 7), "Modality": "US"}
    write(tmp_path / "dicom" / "clip.dcm", attributes | {"PatientID": "ALDER-0001"})
    task = replace(TASK, moments=("first", "middle", "last"))
    records = {record.image_id: record for record in list_folder(_source(tmp_path), task, NOBODY).records}
    read = records.pop(uid("clip", 7)).read
    assert isinstance(read, Frame)
    with Decoder() as decoder:
        for picture in (read(), decoder.read(read.path, read.index, read.beside)):
            assert [len(picture.beside), picture.pixels.shape] == [2, (2, 3)]
            planes = [picture.pixels, *picture.beside]
            np.testing.assert_allclose(planes, pixels[[0, 2, 4]] / 255, atol=1e-6)
            moments = moments_of(picture, task.moments)
            assert all(moment.pixels is plane for moment, plane in zip(moments, planes, strict=True))
    still = next(iter(records.values())).read()
    with pytest.raises(NoExample, match=r"TOO_FEW_FRAMES: 1 read together, not one for each of first, middle, last"):
        moments_of(still, task.moments)


def test_a_withdrawn_patient_without_label_is_withdrawn_first(tmp_path: Path) -> None:
    small_hospital.fill(tmp_path)
    _labels(tmp_path, "PatientID,label\nALDER-0001,0\n")
    listing = list_folder(_source(tmp_path), TASK, frozenset({"ALDER-0002"}))
    assert listing.left_out == {"WITHDRAWN": 2, "IMAGE_WITHOUT_LABEL": 4}


def test_nothing_there_and_nothing_matching_are_two_errors(tmp_path: Path) -> None:
    (tmp_path / "dicom").mkdir()
    _labels(tmp_path, "PatientID,label\n0001,0\n")
    with pytest.raises(EmptySource, match="mounted"):
        list_folder(_source(tmp_path), TASK, NOBODY)
    small_hospital.fill(tmp_path)
    _labels(tmp_path, "PatientID,label\n0001,0\n")
    with pytest.raises(LabelsMatchNothing, match=r"keyed by PatientID.*'0001'.*'ALDER-0001'"):
        list_folder(_source(tmp_path), TASK, NOBODY)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_spreadsheets_of_many_countries_are_read(tmp_path: Path, separator: str, mark: str) -> None:
    rows = [["AccessionNumber", "label"], ["A1", "Malignant"], ["A2", "0"], ["A3", "1"], ["A4", "benign"]]
    path = _labels(tmp_path, mark + "\n".join(separator.join(row) for row in rows))
    labels = read_labels(path, TASK.classes)
    assert labels.key == "AccessionNumber"
    assert labels.values == {"A1": 1, "A2": 0, "A3": 1, "A4": 0}


def test_the_finest_key_counts(tmp_path: Path) -> None:
    path = _labels(tmp_path, "PatientID,SOPInstanceUID,label\nP,1.2,0\nP,1.3,1\n")
    assert read_labels(path, TASK.classes).values == {"1.2": 0, "1.3": 1}


def test_bad_rows_are_named_all_at_once(tmp_path: Path) -> None:
    path = _labels(tmp_path, "PatientID,label\nA,0\nB,maybe\n,1\n")
    with pytest.raises(SiteMisconfigured, match=r"(?s)line 3: .*'maybe'.*line 4: PatientID=''"):
        read_labels(path, TASK.classes)
    with pytest.raises(SiteMisconfigured, match="needs a column 'label'"):
        read_labels(_labels(tmp_path, "PatientID,diagnosis\nA,0\n"), TASK.classes)
    with pytest.raises(SiteMisconfigured, match="cannot read"):
        read_labels(tmp_path / "absent.csv", TASK.classes)


def test_further_findings_are_read_where_they_are_known(tmp_path: Path) -> None:
    small_hospital.fill(tmp_path)
    codes = Code("SCT", "1", "x")
    asking = replace(TASK, secondary_findings=(Finding("effusion", codes), Finding("nodule", codes)))
    _labels(
        tmp_path,
        "PatientID,label,nodule,StudyDate,effussion\n"
        "ALDER-0001,0,1,,\nALDER-0002,1,,,\nALDER-0003,0,0.0,,\nALDER-0003,0,,,\nALDER-0004,1,1,,\nALDER-0004,1,0,,\n",
    )
    listing = list_folder(_source(tmp_path), asking, NOBODY)
    told = {record.patient_id: record.findings for record in listing.records}
    assert told == {"ALDER-0001": (None, 1), "ALDER-0002": (), "ALDER-0003": (None, 0), "ALDER-0004": ()}
    assert listing.left_out == {"CONTRADICTING_FINDINGS": 1, "DUPLICATE_LABEL_ROW": 2}
    assert listing.warnings == [
        "labels.csv has unused column(s) effussion; the secondary findings of this task are called effusion, nodule"
    ]
    assert list_folder(_source(tmp_path), TASK, NOBODY).warnings == []


def test_findings_that_are_neither_yes_nor_no_are_shown_with_their_lines(tmp_path: Path) -> None:
    path = _labels(tmp_path, "PatientID,label,nodule\nA,0,yes\nB,benign,1\nC,9,2\n")
    with pytest.raises(SiteMisconfigured) as refusal:
        read_labels(path, TASK.classes, [Finding("nodule", Code("SCT", "1", "x"))])
    told = str(refusal.value).splitlines()
    assert told[0].endswith("each of nodule must be 0, 1 or empty (not known):")
    assert told[1:] == ["  line 2: nodule='yes'", "  line 4: PatientID='C', label='9', nodule='2'"]
