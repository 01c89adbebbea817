"""Reports as others read them: highdicom, and dciodvfy where it is installed (Debian package dicom3tools)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes

from client.prediction.model import CheckedModel, open_model
from client.prediction.predict import ScoredImage
from client.prediction.structured_report import comment, report_of
from client.prediction.worklist import of_folder
from client.reading.slices import Plane, slices_of
from client.reading.stack import Stack
from client.site import load
from client.sources.files.examinations import ReadStacks
from tasks import task as tasks
from tasks.metrics.recalibration import Recalibration
from tasks.task import PhantomHospital
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import TASK, model
from tests.drawn import draw

KEY = b"k" * 32

Edit = Callable[[Dataset], None]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospital")
    handed_over.provision_hospital(folder, patients=1)
    draw(TASK, folder / "two", PhantomHospital("birch", 1, images_per_patient=(2, 2)), 3)
    return folder


def _scored(hospital: Path, to: Path, edit: Edit = lambda dataset: None) -> list[ScoredImage]:
    """Two images of one study, each file edited."""
    for path in (hospital / "two" / "dicom").rglob("*.dcm"):
        dataset = dcmread(path)
        edit(dataset)
        (to / path.parent.name).mkdir(parents=True, exist_ok=True)
        dataset.save_as(to / path.parent.name / path.name)
    work = of_folder(load(hospital / "site.yaml"), TASK, to, "breast", lambda *told: None)
    assert len(work.images) == 2
    return [ScoredImage(image, p, b"") for image, p in zip(work.images, (0.25, 0.9), strict=True)]


def _written(path: Path, opened: CheckedModel, images: Sequence[ScoredImage]) -> Any:
    report_of(opened, images, KEY).save_as(path, enforce_file_format=True)
    return hd.sr.srread(path)


def test_highdicom_reads_what_was_measured(hospital: Path, tmp_path: Path) -> None:
    opened, images = model(tmp_path), _scored(hospital, tmp_path / "in")
    report = _written(tmp_path / "sr.dcm", opened, images)
    assert isinstance(report.content, hd.sr.MeasurementReport)
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 3
    certainty = [float(group.get_measurements()[0].value) for group in groups]
    assert certainty == [25.0, 90.0, 57.5]
    for group in groups:
        (measurement,) = group.get_measurements()
        assert (measurement.name, measurement.unit) == (codes.DCM.CertaintyOfFinding, codes.UCUM.Percent)
        assert (group.finding_type.value, group.finding_type.scheme_designator) == ("86049000", "SCT")
    sources = [[image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in g.source_images] for g in groups]
    uids = [scored.image.uid for scored in images]
    assert sources == [[uids[0]], [uids[1]], uids]
    (side,) = groups[2].get_qualitative_evaluations()
    assert side.value.value == "AT-OR-ABOVE"
    assert groups[2].get_measurements()[0].derivation == codes.SCT.Mean
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]
    named = [item for series in evidence.ReferencedSeriesSequence for item in series.ReferencedSOPSequence]
    assert sorted(item.ReferencedSOPInstanceUID for item in named) == sorted(uids)


def test_a_calibrated_model_certifies_probabilities(hospital: Path, tmp_path: Path) -> None:
    """The examination's is of the mean score, so it is no mean of the images' certainties."""
    line = Recalibration(-1.0, 2.0)
    opened, images = model(tmp_path, calibration=line, prevalence=0.4), _scored(hospital, tmp_path / "in")
    groups = _written(tmp_path / "sr.dcm", opened, images).content.get_image_measurement_groups()
    certainty = [float(group.get_measurements()[0].value) for group in groups]
    assert certainty == pytest.approx([100 * float(line.probability(score)) for score in (0.25, 0.9, 0.575)], abs=0.01)
    assert groups[2].get_measurements()[0].derivation is None
    (side,) = groups[2].get_qualitative_evaluations()
    assert side.value.value == "AT-OR-ABOVE", "a score of 0.575 against the threshold of 0.43"
    assert "have calibrated" in comment(opened)


def test_it_says_whose_output_it_is_and_for_what_it_must_not_be_used(hospital: Path, tmp_path: Path) -> None:
    opened, images = model(tmp_path), _scored(hospital, tmp_path / "in")
    report = _written(tmp_path / "sr.dcm", opened, images)
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert report.ContentQualification == "RESEARCH"
    assert report.SeriesDescription.startswith("NOT FOR CLINICAL USE")
    assert report.Modality == "SR"
    source = dcmread(images[0].image.path, stop_before_pixels=True)
    assert report.SeriesInstanceUID != source.SeriesInstanceUID
    for keyword in (
        "StudyInstanceUID",
        "PatientID",
        "PatientName",
        "AccessionNumber",
        "IssuerOfPatientID",
        "StudyDate",
    ):
        assert report[keyword].value == source[keyword].value
    (comment,) = [item for item in report.content[0].ContentSequence if item.name == codes.DCM.Comment]
    assert comment.value.startswith("NOT FOR CLINICAL USE")
    told = {
        (item.name.meaning, item.value)
        for item in report.content.get_image_measurement_groups()[0][0].ContentSequence
        if item.name.meaning.startswith("Algorithm")
    }
    assert ("Algorithm Name", "Consilium breast_ultrasound") in told
    assert ("Algorithm Version", f"demo-1 {opened.sha256}") in told
    assert ("Algorithm Parameters", "NOT FOR CLINICAL USE") in told


def test_without_a_threshold_no_side_is_told(hospital: Path, tmp_path: Path) -> None:
    images = _scored(hospital, tmp_path / "in")
    report = _written(tmp_path / "sr.dcm", model(tmp_path, threshold=None), images)
    groups = report.content.get_image_measurement_groups()
    assert [len(group.get_qualitative_evaluations()) for group in groups] == [0, 0, 0]


def _japanese(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def _umlauts(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Jürgen"


def _bare(dataset: Dataset) -> None:
    for keyword in (
        "StudyID",
        "StudyTime",
        "AccessionNumber",
        "ReferringPhysicianName",
        "PatientBirthDate",
        "PatientSex",
    ):
        if keyword in dataset:
            del dataset[keyword]
    del dataset.DeidentificationMethod
    dataset.PatientSex = "X"


def _many(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 3
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    dataset.PixelData = dataset.PixelData[: dataset.Rows * dataset.Columns] * 3
    dataset.FrameTime = "33"
    dataset.FrameIncrementPointer = 0x00181063


@pytest.mark.parametrize("edit", [lambda d: None, _japanese, _umlauts, _bare, _many], ids=lambda edit: edit.__name__)
def test_it_is_valid_whatever_the_images_lack(hospital: Path, tmp_path: Path, edit: Edit) -> None:
    opened, images = model(tmp_path), _scored(hospital, tmp_path / "in", edit)
    report = _written(tmp_path / "sr.dcm", opened, images)
    source = dcmread(images[0].image.path, stop_before_pixels=True)
    assert str(report.PatientName) == str(source.PatientName)
    assert report.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
    if edit is _many:
        (first,) = report.content.get_image_measurement_groups()[0].source_images
        assert first.ReferencedSOPSequence[0].ReferencedFrameNumber == 2
    _is_valid(tmp_path / "sr.dcm")


def test_a_report_has_the_name_of_what_it_was_made_of(hospital: Path, tmp_path: Path) -> None:
    opened, images = model(tmp_path), _scored(hospital, tmp_path / "in")
    one, again, other = (report_of(opened, some, KEY) for some in (images, images[::-1], images[:1]))
    elsewhere, newer = report_of(opened, images, b"o" * 32), report_of(replace(opened, sha256="e" * 64), images, KEY)
    assert one.SOPInstanceUID == again.SOPInstanceUID
    assert len({report.SOPInstanceUID for report in (one, other, elsewhere, newer)}) == 4
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert len({report.SeriesInstanceUID for report in (one, elsewhere, newer)}) == 3
    dataset = dcmread(images[0].image.path)
    dataset.PixelData = bytes(255 - value for value in dataset.PixelData)
    dataset.save_as(images[0].image.path)
    assert report_of(opened, images, KEY).SOPInstanceUID != one.SOPInstanceUID, "of other pixels under the same UID"


@pytest.mark.parametrize("name", ["lung_ct", "brain_mr"])
def test_of_a_scan_every_slice_and_the_mark_are_in_the_evidence(tmp_path: Path, name: str) -> None:
    task = tasks.get(name)
    site = load(handed_over.provision_scans(tmp_path, task, "alder", 1))
    opened = open_model(tmp_path / "m", handed_over.write_scan_model(tmp_path / "m", task))
    (image,) = of_folder(site, task, tmp_path / name / "dicom", "", lambda *told: None).images
    report = _written(tmp_path / "sr.dcm", opened, [ScoredImage(image, 0.9, b"")])
    (group,) = report.content.get_image_measurement_groups()
    assert float(group.get_measurements()[0].value) == 90.0
    assert group.get_measurements()[0].derivation is None
    (side,) = group.get_qualitative_evaluations()
    assert side.value.value == "AT-OR-ABOVE"
    files = [dcmread(path, stop_before_pixels=True) for path in (tmp_path / name / "dicom").rglob("*.dcm")]
    slices = {f.SOPInstanceUID for f in files if f.Modality != "SEG"}
    assert len(slices) > 20
    assert {source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for source in group.source_images} == slices
    (mark,) = [f.SOPInstanceUID for f in files if f.Modality == "SEG"]
    assert _uids(report.CurrentRequestedProcedureEvidenceSequence) == slices | {mark}
    assert (report.PatientID, report.StudyInstanceUID) == (image.patient, image.study)
    _is_valid(tmp_path / "sr.dcm")


def test_of_a_scan_in_one_file_the_frames_are_named(hospital: Path, tmp_path: Path) -> None:
    (scored, _) = _scored(hospital, tmp_path / "in", _many)
    header = dcmread(scored.image.path, stop_before_pixels=True)
    slices = tuple(slices_of(scored.image.path, header)[:2])
    plane = Plane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0))
    scan = ReadStacks({"CT": Stack(slices, (0.0, 1.0), plane, frozenset(), None)}, None)
    image = replace(scored.image, scan=scan)
    report = _written(tmp_path / "sr.dcm", model(tmp_path), [replace(scored, image=image)])
    (source,) = report.content.get_image_measurement_groups()[0].source_images
    assert list(source.ReferencedSOPSequence[0].ReferencedFrameNumber) == [1, 2]


def _uids(evidence: Any) -> set[str]:
    return {
        item.ReferencedSOPInstanceUID
        for study in evidence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }


def _is_valid(path: Path) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed: Debian package dicom3tools")
    told = subprocess.run([validator, str(path)], capture_output=True, text=True, timeout=30)
    assert "EnhancedSR" in told.stderr
    assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == []
