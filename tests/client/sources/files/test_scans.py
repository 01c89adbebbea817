"""A folder of slices as scans: what becomes a volume, what is left out and why, and where outlines lie."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from client.cohort.cache import ExampleCache, load_example, load_masks
from client.cohort.catalog import ingest
from client.cohort.preparation import Decoding, Job, Prepared, prepare
from client.errors import EmptySource, LabelsMatchNothing
from client.pixels.refusal import UnreadableDicom
from client.reading.decoding import Decoder
from client.reading.dicom import read_header
from client.site import SiteSettings
from client.sources.files.folder import list_folder
from client.sources.files.nifti import list_nifti
from client.sources.pacs.dicomweb import list_dicomweb
from client.sources.record import Listing, Record, Unreadable
from client.sources.settings import DicomwebSource, FolderSource, NiftiSource
from tasks import task as tasks
from tasks.phantoms.brain_mr.scanner import scanner_of
from tasks.task import PhantomHospital, Scan, Task
from tests.client.dicom_files import ROBUSTNESS, needs_robustness_set, robustness_rows
from tests.client.sources.pacs.dicomweb_server import Service, running
from tests.drawn import draw

BRAIN, LUNG = tasks.get("brain_mr"), tasks.get("lung_ct")
NOBODY: frozenset[str] = frozenset()
Provision = Callable[..., SiteSettings]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hospitals of both tasks that have all sequences of all patients."""
    folder = tmp_path_factory.mktemp("drawn")
    for task in (BRAIN, LUNG):
        draw(task, folder / task.name, PhantomHospital(WHOLE, patients=3, prevalence=0.5), 0)
    return folder


def _acquires_all(name: str) -> bool:
    return not any(scanner_of(PhantomHospital(name, 1)).missed.values())


WHOLE = next(name for name in (f"site{n}" for n in range(500)) if _acquires_all(name))


@pytest.fixture
def brain(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn / "brain_mr", tmp_path / "brain")
    return tmp_path / "brain"


@pytest.fixture
def lung(drawn: Path, tmp_path: Path) -> Path:
    shutil.copytree(drawn / "lung_ct", tmp_path / "lung")
    return tmp_path / "lung"


def _list(folder: Path, task: Task, withdrawn: frozenset[str] = NOBODY) -> Listing:
    return list_folder(_source(folder, task), task, withdrawn)


def _source(folder: Path, task: Task) -> FolderSource:
    return FolderSource(
        kind="folder", task=task.name, issuer="alder", path=folder / "dicom", labels=folder / "labels.csv"
    )


def _of(listing: Listing, patient: str) -> Record:
    (record,) = [record for record in listing.records if record.patient_id == patient]
    return record


def _read(record: Record) -> Scan:
    assert record.read_scan is not None
    return record.read_scan(None)


def _files(folder: Path, patient: str, chosen: Callable[[Dataset], bool]) -> list[Path]:
    return [path for path in sorted((folder / "dicom" / patient).glob("*.dcm")) if chosen(dcmread(path))]


def _change(paths: list[Path], change: Callable[[Dataset], Any]) -> None:
    for path in paths:
        dataset = dcmread(path)
        change(dataset)
        dataset.save_as(path)


def _is(sequence: str) -> Callable[[Dataset], bool]:
    def chosen(dataset: Dataset) -> bool:
        if dataset.Modality == "SEG":
            return False
        return next(s.name for s in BRAIN.sequences if s.finds(str(dataset.SeriesDescription))) == sequence

    return chosen


def _is_segmentation(dataset: Dataset) -> bool:
    return bool(dataset.Modality == "SEG")


def _is_image(dataset: Dataset) -> bool:
    return bool(dataset.Modality != "SEG")


FIRST = f"{WHOLE.upper()}-0001"


def test_a_study_is_one_record_with_all_its_sequences(brain: Path) -> None:
    listing = _list(brain, BRAIN)
    with (brain / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["StudyInstanceUID"]: BRAIN.classes.index(row["label"]) for row in csv.DictReader(file)}
    assert {record.image_id: record.label for record in listing.records} == rows
    assert not listing.left_out
    scan = _read(_of(listing, FIRST))
    assert set(scan.volumes) == {sequence.name for sequence in BRAIN.sequences}
    assert scan.masks is not None
    assert set(scan.masks) == {structure.name for structure in BRAIN.structures}


def test_values_and_masks_are_those_of_the_files(lung: Path) -> None:
    """Read by hand, by position, with pydicom alone."""
    datasets = [dcmread(path) for path in (lung / "dicom" / FIRST).glob("*.dcm")]
    images = sorted((d for d in datasets if d.Modality == "CT"), key=lambda d: float(d.ImagePositionPatient[2]))
    (segmentation,) = [d for d in datasets if d.Modality == "SEG"]
    scan = _read(_of(_list(lung, LUNG), FIRST))
    ct = scan.volumes["CT"]
    np.testing.assert_array_equal(ct.values, np.stack([d.pixel_array.astype(np.float32) - 1024 for d in images]))
    assert ct.unit == "HU"
    np.testing.assert_allclose(ct.affine[:3, 3], [float(v) for v in images[0].ImagePositionPatient])
    expected = np.zeros(ct.values.shape, dtype=np.bool_)
    heights = [float(d.ImagePositionPatient[2]) for d in images]
    pixels = segmentation.pixel_array.reshape(-1, *expected.shape[1:])
    for groups, mask in zip(segmentation.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        height = float(groups.PlanePositionSequence[0].ImagePositionPatient[2])
        expected[int(np.argmin(np.abs(np.subtract(heights, height))))] |= mask > 0
    assert scan.masks is not None
    np.testing.assert_array_equal(scan.masks["nodule"].values, expected)
    np.testing.assert_array_equal(scan.masks["nodule"].affine, ct.affine)
    assert expected.any()


def test_decoding_processes_give_the_same(lung: Path) -> None:
    record = _of(_list(lung, LUNG), FIRST)
    assert record.read_scan is not None
    with Decoder() as decoder:
        there, here = record.read_scan(decoder.read_values), _read(record)
    np.testing.assert_array_equal(there.volumes["CT"].values, here.volumes["CT"].values)
    assert there.masks is not None
    assert here.masks is not None
    np.testing.assert_array_equal(there.masks["nodule"].values, here.masks["nodule"].values)


def test_missing_sequences_are_absent_and_the_first_is_required(brain: Path) -> None:
    for path in _files(brain, FIRST, _is("T2")):
        path.unlink()
    assert set(_read(_of(_list(brain, BRAIN), FIRST)).volumes) == {"T1ce", "FLAIR", "T1"}
    for path in _files(brain, FIRST, _is("T1ce")):
        path.unlink()
    listing = _list(brain, BRAIN)
    assert FIRST not in {record.patient_id for record in listing.records}
    assert listing.left_out["NO_SERIES_OF_T1CE"] == 1


def test_a_hole_in_the_first_series_is_told_and_in_another_costs_only_that(brain: Path) -> None:
    between = _files(brain, FIRST, _is("FLAIR"))[5]
    between.unlink()
    listing = _list(brain, BRAIN)
    assert "FLAIR" not in _read(_of(listing, FIRST)).volumes
    assert listing.left_out == {"SERIES_SLICES_MISSING": 1}
    _files(brain, FIRST, _is("T1ce"))[5].unlink()
    assert _list(brain, BRAIN).left_out["SLICES_MISSING"] == 1


def test_the_longest_volume_of_a_sequence_is_taken(brain: Path) -> None:
    """A second FLAIR with fewer slices, and a third that is longer but has a hole."""
    flair = _files(brain, FIRST, _is("FLAIR"))
    for series, count in (("short", len(flair) - 4), ("holed", len(flair))):
        for number, path in enumerate(flair[:count]):
            if series == "holed" and number == 3:
                continue
            dataset = dcmread(path)
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
            dataset.SOPInstanceUID = generate_uid(entropy_srcs=[series, str(number)])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            dataset.save_as(path.with_name(f"{series}-{number}.dcm"))
    assert len(_read(_of(_list(brain, BRAIN), FIRST)).volumes["FLAIR"].values) == len(flair)


def test_a_longer_series_of_another_modality_is_not_taken(lung: Path) -> None:
    """As in PET-CT, where the PET comes under the same description."""
    images = _files(lung, FIRST, _is_image)
    slices = len(_read(_of(_list(lung, LUNG), FIRST)).volumes["CT"].values)
    _change(images[: len(images) - 4], lambda d: setattr(d, "Modality", "PT"))
    assert len(_read(_of(_list(lung, LUNG), FIRST)).volumes["CT"].values) == 4 < slices
    _change(images, lambda d: setattr(d, "Modality", "PT"))
    listing = _list(lung, LUNG)
    assert listing.left_out["NO_SERIES_OF_CT"] == 1
    _change(images, lambda d: setattr(d, "Modality", ""))
    record = _of(_list(lung, LUNG), FIRST)
    assert record.acquisition is not None
    assert record.acquisition.judgement.rejected == ("modality",)


def test_a_series_in_another_space_is_not_laid_over_the_first(brain: Path) -> None:
    _change(_files(brain, FIRST, _is("T2")), lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"))
    listing = _list(brain, BRAIN)
    assert "T2" not in _read(_of(listing, FIRST)).volumes
    assert listing.left_out == {"SERIES_IN_OTHER_SPACE": 1}


def test_patients_without_label_number_or_consent_are_counted(brain: Path) -> None:
    second, third = FIRST[:-1] + "2", FIRST[:-1] + "3"
    _change(_files(brain, second, lambda d: True), lambda d: setattr(d, "PatientID", ""))
    _change(_files(brain, third, _is("T2")), lambda d: setattr(d, "PatientID", "SOMEBODY-ELSE"))
    listing = _list(brain, BRAIN, frozenset({FIRST}))
    assert listing.records == []
    assert listing.left_out == {"WITHDRAWN": 1, "NO_PATIENT_ID": 1, "STUDY_OF_SEVERAL_PATIENTS": 1}
    rows = (brain / "labels.csv").read_text("utf-8").splitlines()
    (brain / "labels.csv").write_text("\n".join([*rows[:1], rows[3], "X,1.2.3,low_grade", ""]), "utf-8")
    left_out = _list(brain, BRAIN).left_out
    assert left_out == {"IMAGE_WITHOUT_LABEL": 2, "STUDY_OF_SEVERAL_PATIENTS": 1, "LABEL_WITHOUT_IMAGE": 1}
    (brain / "labels.csv").write_text("\n".join([*rows[:1], "X,1.2.3,low_grade", ""]), "utf-8")
    with pytest.raises(LabelsMatchNothing, match="none of 3 examinations"):
        _list(brain, BRAIN)
    shutil.rmtree(brain / "dicom")
    (brain / "dicom").mkdir()
    with pytest.raises(EmptySource):
        _list(brain, BRAIN)


@pytest.mark.parametrize("key", ["PatientID", "AccessionNumber", "SOPInstanceUID"])
def test_labels_may_be_by_any_key(lung: Path, key: str) -> None:
    expected = {record.patient_id: record.label for record in _list(lung, LUNG).records}
    named = {patient: dcmread(_files(lung, patient, _is_image)[4])[key].value for patient in expected}
    lines = [f"{named[patient]},{label}" for patient, label in expected.items()]
    (lung / "labels.csv").write_text("\n".join([f"{key},label", *lines, ""]), "utf-8")
    listing = _list(lung, LUNG)
    assert {record.patient_id: record.label for record in listing.records} == expected
    assert not listing.left_out


def test_one_slice_that_breaks_the_contract_breaks_the_examination(brain: Path) -> None:
    _change(_files(brain, FIRST, _is("FLAIR"))[3:4], lambda d: setattr(d, "LossyImageCompression", "01"))
    listing = _list(brain, BRAIN)
    judgements = {r.patient_id: r.acquisition.judgement.rejected for r in listing.records if r.acquisition is not None}
    assert judgements.pop(FIRST) == ("no-lossy-history",)
    assert set(judgements.values()) == {()}


def test_a_series_that_is_not_read_is_not_judged(brain: Path) -> None:
    def localizer(dataset: Dataset) -> None:
        dataset.SeriesDescription, dataset.LossyImageCompression = "localizer", "01"

    _change(_files(brain, FIRST, _is("T2")), localizer)
    record = _of(_list(brain, BRAIN), FIRST)
    assert record.acquisition is not None
    assert record.acquisition.judgement.conforms


def test_the_signature_changes_with_any_slice_and_any_outline(lung: Path) -> None:
    before = {record.patient_id: record.signature for record in _list(lung, LUNG).records}
    _change(_files(lung, FIRST, _is_image)[7:8], lambda d: setattr(d, "PatientComments", "seen again"))
    second = FIRST[:-1] + "2"
    _change(_files(lung, second, _is_segmentation), lambda d: setattr(d, "PatientComments", "seen again"))
    after = {record.patient_id: record.signature for record in _list(lung, LUNG).records}
    assert {patient for patient in after if after[patient] != before[patient]} == {FIRST, second}


# Outlines


def test_where_a_frame_lies_tells_its_slice_without_a_reference(lung: Path) -> None:
    expected = _read(_of(_list(lung, LUNG), FIRST)).masks

    def forget(dataset: Dataset) -> None:
        del dataset.ReferencedSeriesSequence
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            del groups.DerivationImageSequence

    _change(_files(lung, FIRST, _is_segmentation), forget)
    found = _read(_of(_list(lung, LUNG), FIRST)).masks
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found["nodule"].values, expected["nodule"].values)


def test_a_reference_tells_the_slice_where_the_frame_does_not_say_where_it_lies(lung: Path) -> None:
    expected = _read(_of(_list(lung, LUNG), FIRST)).masks

    def forget(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            del groups.PlanePositionSequence

    _change(_files(lung, FIRST, _is_segmentation), forget)
    found = _read(_of(_list(lung, LUNG), FIRST)).masks
    assert expected is not None
    assert found is not None
    np.testing.assert_array_equal(found["nodule"].values, expected["nodule"].values)


def test_outlines_that_lie_beside_the_slices_are_not_used(lung: Path) -> None:
    def move(dataset: Dataset) -> None:
        for groups in dataset.PerFrameFunctionalGroupsSequence:
            position = groups.PlanePositionSequence[0].ImagePositionPatient
            position[0] = float(position[0]) + 5

    _change(_files(lung, FIRST, _is_segmentation), move)
    listing = _list(lung, LUNG)
    assert _read(_of(listing, FIRST)).masks is None
    assert listing.left_out == {"SEGMENTATION_OFF_GRID": 1}


def test_what_was_not_sought_is_not_taken_as_absent(brain: Path) -> None:
    def forget(dataset: Dataset) -> None:
        dataset.SegmentSequence[2].SegmentedPropertyTypeCodeSequence[0].CodeValue = "C81175"  # non-enhancing lesion

    _change(_files(brain, FIRST, _is_segmentation), forget)
    listing = _list(brain, BRAIN)
    assert _read(_of(listing, FIRST)).masks is None
    assert listing.left_out == {"SEGMENTATION_INCOMPLETE": 1}


def test_segmentations_of_other_things_and_broken_ones(lung: Path) -> None:
    def other(dataset: Dataset) -> None:
        dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "39607008"  # lung

    def broken(dataset: Dataset) -> None:
        del dataset.SegmentSequence

    _change(_files(lung, FIRST, _is_segmentation), other)
    _change(_files(lung, FIRST[:-1] + "2", _is_segmentation), broken)
    listing = _list(lung, LUNG)
    assert _read(_of(listing, FIRST)).masks is None
    assert listing.left_out == {"SEGMENTATION_UNREADABLE": 1}
    assert len(listing.records) == 3


def test_a_slice_or_an_outline_that_cannot_be_decoded_costs_the_examination(lung: Path) -> None:
    listing = _list(lung, LUNG)
    (segmentation,) = _files(lung, FIRST, _is_segmentation)
    data = segmentation.read_bytes()
    segmentation.write_bytes(data[:-2000])
    with pytest.raises(Unreadable, match="SEGMENTATION_UNREADABLE"):
        _read(_of(listing, FIRST))
    image = _files(lung, FIRST[:-1] + "2", _is_image)[3]
    image.write_bytes(image.read_bytes()[:-2000])
    with pytest.raises(Unreadable):
        _read(_of(listing, FIRST[:-1] + "2"))


@needs_robustness_set
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [BRAIN, LUNG], ids=lambda task: str(task.name))
def test_files_of_any_kind_are_left_out_by_a_reason(task: Task, tmp_path: Path) -> None:
    """The real set: old, broken and hostile files, none of which is a chest CT or a brain MR of a glioma."""
    studies = set()
    for row in robustness_rows():
        with suppress(UnreadableDicom):
            studies.add(str(read_header(ROBUSTNESS / row["file"]).get("StudyInstanceUID", "") or "").strip())
    rows = "".join(f"{name},{number % 2}\n" for number, name in enumerate(sorted(studies - {""})))
    (tmp_path / "labels.csv").write_text(f"StudyInstanceUID,label\n{rows}", "utf-8")
    source = FolderSource(kind="folder", task=task.name, issuer="x", path=ROBUSTNESS, labels=tmp_path / "labels.csv")
    listing = list_folder(source, task, NOBODY)
    assert sum(listing.left_out.values()) > 100
    for record in listing.records:
        assert record.acquisition is not None
        assert not record.acquisition.judgement.conforms
        with suppress(Unreadable):
            assert "CT" in _read(record).volumes


# From an archive and from BIDS


def test_an_archive_gives_the_same_scans(lung: Path, tmp_path: Path) -> None:
    expected = _list(lung, LUNG)
    source = {"kind": "dicomweb", "task": LUNG.name, "issuer": "alder", "path": tmp_path / "spool"}
    source |= {"labels": lung / "labels.csv", "scope": {"modalities": ["CT", "SEG"]}}
    with running(Service(sorted((lung / "dicom").rglob("*.dcm")))) as service:
        found = list_dicomweb(DicomwebSource.model_validate(source | {"url": service.url}), LUNG, NOBODY)
    assert not found.left_out
    assert len(found.records) == len(expected.records)
    for one, other in zip(found.records, expected.records, strict=True):
        assert (one.image_id, one.patient_id, one.label) == (other.image_id, other.patient_id, other.label)
        there, here = _read(one), _read(other)
        np.testing.assert_array_equal(there.volumes["CT"].values, here.volumes["CT"].values)
        assert there.masks is not None
        assert here.masks is not None
        np.testing.assert_array_equal(there.masks["nodule"].values, here.masks["nodule"].values)


def test_bids_tells_sequences_by_file_names(brain: Path, tmp_path: Path) -> None:
    """The scan that was written as NIfTI gives the example of the scan that was read as DICOM."""
    scan = _read(_of(_list(brain, BRAIN), FIRST))
    names = {"T1ce": "ce-gadolinium_T1w", "T1": "T1w", "T2": "T2w", "FLAIR": "FLAIR"}
    folder = tmp_path / "bids"
    for participant, taken in (("sub-01", names), ("sub-02", {"T1": "T1w"})):
        (folder / participant / "anat").mkdir(parents=True)
        for sequence, name in taken.items():
            volume = scan.volumes[sequence]
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine  # of (slice, row, column), to RAS
            image = nib.Nifti1Image(volume.values, affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, folder / participant / "anat" / f"{participant}_{name}.nii.gz")
    (folder / "participants.tsv").write_text("participant_id\tgrade\nsub-01\t1\nsub-02\t0\n", "utf-8")
    source = NiftiSource(kind="nifti", task="brain_mr", issuer="b", path=folder, label_column="grade", suffix="T1w")
    listing = list_nifti(source, BRAIN, NOBODY)
    (record,) = listing.records
    assert listing.left_out == {"NO_SERIES_OF_T1CE": 2}, "the plain T1 beside it, and the participant without contrast"
    assert (record.patient_id, record.label) == ("sub-01", 1)
    found = _read(record)
    assert set(found.volumes) == set(names)
    np.testing.assert_allclose(BRAIN.read_example(found), BRAIN.read_example(scan), atol=2e-3)


# On to the cache


def test_examples_and_masks_reach_the_cache(lung: Path, provision_hospital: Provision) -> None:
    for path in _files(lung, FIRST, _is_segmentation):
        path.unlink()
    cache = ExampleCache(provision_hospital(), LUNG)
    records = _list(lung, LUNG).records
    jobs = [Job(record, cache.name(record.patient_id)) for record in records]
    with Decoding() as decoding:
        found = {job.record.patient_id: (job, outcome) for job, outcome in prepare(jobs, LUNG, cache, decoding)}
    _, refused = found.pop(FIRST)
    assert isinstance(refused, Unreadable)
    assert refused.reason == "NO_OUTLINE"
    for job, outcome in found.values():
        assert isinstance(outcome, Prepared)
        scan, path = _read(job.record), cache.path(job.example)
        np.testing.assert_array_equal(load_example(path), LUNG.read_example(scan))
        assert LUNG.read_masks is not None
        np.testing.assert_array_equal(load_masks(path), LUNG.read_masks(scan))
    assert len({outcome.fingerprint for _, outcome in found.values() if isinstance(outcome, Prepared)}) == 2


def test_a_hospital_takes_scans_into_its_catalog(brain: Path, provision_hospital: Provision) -> None:
    """And finds nothing new the second time."""
    _files(brain, FIRST, _is("T1ce"))[5].unlink()
    settings = provision_hospital(sources=[_source(brain, BRAIN).model_dump(mode="json", exclude_none=True)])
    report = ingest(settings, BRAIN)
    assert (report.images, sum(report.patients.values())) == (2, 2)
    assert report.left_out == {"SLICES_MISSING": 1}
    assert ingest(settings, BRAIN).images == 2


def test_a_source_of_pictures_is_no_source_of_scans(lung: Path, provision_hospital: Provision) -> None:
    cache = ExampleCache(provision_hospital(), LUNG)
    (record, *_) = _list(lung, LUNG).records
    with Decoding() as decoding:
        ((_, refused),) = prepare([Job(replace(record, read_scan=None), "x")], LUNG, cache, decoding)
    assert isinstance(refused, Unreadable)
    assert refused.reason == "NOT_A_SCAN"


def test_series_are_found_by_how_they_were_acquired_and_by_the_hospitals_words(brain: Path) -> None:
    def nameless(dataset: Dataset) -> None:
        dataset.SeriesDescription = "Serie 7"
        dataset.EchoTime, dataset.RepetitionTime, dataset.ContrastBolusAgent = "9", "600", "Gadovist"

    def own(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet, dataset.SeriesDescription = "GB18030", "头颅甲序列"

    _change(_files(brain, FIRST, _is("T1ce")), nameless)
    assert "T1ce" in _read(_of(_list(brain, BRAIN), FIRST)).volumes
    _change(_files(brain, FIRST, lambda d: d.get("SeriesDescription") == "Serie 7"), own)
    _change(_files(brain, FIRST, lambda d: d.get("ContrastBolusAgent") == "Gadovist"), lambda d: d.pop("EchoTime"))
    listing = _list(brain, BRAIN)
    assert FIRST not in [record.patient_id for record in listing.records]
    assert listing.left_out["NO_SERIES_OF_T1CE"] == 1
    (unknown,) = [warning for warning in listing.warnings if "no sequence of the task" in warning]
    assert "'头颅甲序列' (1)" in unknown
    said = _source(brain, BRAIN).model_dump() | {"series_words": {"T1ce": ["甲序列"]}}
    words = FolderSource.model_validate(said)
    assert "T1ce" in _read(_of(list_folder(words, BRAIN, NOBODY), FIRST)).volumes
    with pytest.raises(ValidationError, match=r"series_words names \['T1'\]; sequences of lung_ct"):
        FolderSource.model_validate(said | {"task": LUNG.name, "series_words": {"T1": ["x"]}})
