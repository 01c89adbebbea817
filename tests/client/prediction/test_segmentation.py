"""Outlines as others read them: highdicom, our own readers, and dciodvfy where it is installed (dicom3tools)."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import EnhancedMRImageStorage, generate_uid
from typer.testing import CliRunner

from client.cli.main import app
from client.prediction.local_image import LocalImage
from client.prediction.model import CheckedModel, open_model
from client.prediction.outline import Outline
from client.prediction.predict import ScoredImage
from client.prediction.segmentation import segmentations_of
from client.prediction.worklist import of_folder
from client.reading.decoding import Decoder
from client.reading.dicom import read_frame, read_header
from client.site import load
from client.sources.files.folder import list_folder
from client.sources.settings import FolderSource
from tasks import task as tasks
from tasks.exclusion import contradicted
from tasks.phantoms.dicom_writer import common_attributes, pixel_attributes, uid, write
from tasks.task import Task
from tests.client.prediction import handed_over
from tests.client.prediction.handed_over import OUTLINE_SPEC, SCAN_OUTLINE_SPEC, TASK, weights, write_model

BRAIN, LUNG = tasks.get("brain_mr"), tasks.get("lung_ct")
ALL = [TASK, BRAIN, LUNG]
ULTRASOUND_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"


class Hospital:
    """One with phantoms of a task and a model that outlines them, after a prediction."""

    def __init__(self, home: Path, task: Task, change: Callable[[Path], None] = lambda dicom: None) -> None:
        self.task, self.spec = task, SCAN_OUTLINE_SPEC if task.sequences else OUTLINE_SPEC
        home.mkdir()
        scans = bool(task.sequences)
        self.site = (
            handed_over.provision_scans(home, task, "alder", 1) if scans else handed_over.provision_hospital(home, 3)
        )
        self.dicom = (home / task.name if scans else home) / "dicom"
        change(self.dicom)
        self.labels = self.dicom.parent / "labels.csv"
        self.file = home / "m.safetensors"
        self.digest = write_model(self.file, weights(task, self.spec), asked=task, spec=self.spec)
        self.out = home / "out"
        words = ["predict", self.file, "--sha256", self.digest, "--out", self.out, "--path", self.dicom, "--json"]
        words += ["--organ", task.name.partition("_")[0]]  # where a file does not tell
        told = CliRunner().invoke(app, [str(word) for word in (*words, "--site", self.site)])
        assert told.exit_code == 0, told.output
        self.facts: Any = json.loads(told.stdout)

    @property
    def model(self) -> CheckedModel:
        return open_model(self.file, self.digest)

    def outlines(self) -> list[Path]:
        return sorted((self.out / "outlines").glob("*.dcm"))

    def source(self, folder: Path) -> FolderSource:
        return FolderSource(kind="folder", task=self.task.name, issuer="alder", path=folder, labels=self.labels)


@pytest.fixture(scope="module", params=ALL, ids=lambda task: task.name)
def hospital(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    return Hospital(tmp_path_factory.mktemp("outlining") / request.param.name, request.param)


def _marked(hospital: Hospital) -> dict[str, NDArray[np.bool_]]:
    """What the model marks on each instance, (structures, rows, columns), computed in another way than predict does."""
    model, found = hospital.model, {}
    for record in list_folder(hospital.source(hospital.dicom), hospital.task, frozenset()).records:
        seen = record.read() if record.read_scan is None else record.read_scan(None)
        marked = model.look(hospital.task.read_example(seen)[None]).marked
        assert marked is not None
        assert hospital.task.place_masks is not None
        placed = hospital.task.place_masks(seen, marked[0])
        if record.read_scan is None:
            found[record.image_id] = placed
        else:
            stack = record.read_scan.stacks[hospital.task.sequences[0].name]  # type: ignore[attr-defined]
            found |= {one.instance: placed[:, number] for number, one in enumerate(stack.slices)}
    return found


def test_others_find_on_each_image_what_the_model_marks(hospital: Hospital) -> None:
    expected, seen = _marked(hospital), set()
    assert any(masks.any() for masks in expected.values())
    for path in hospital.outlines():
        segmentation = hd.seg.segread(path)
        instances = [str(uid) for _, _, uid in segmentation.get_source_image_uids()]
        assert [segmentation.get_segment_description(n).segment_label for n in segmentation.segment_numbers] == [
            structure.name.replace("_", " ") for structure in hospital.task.structures
        ]
        pixels = segmentation.get_pixels_by_source_instance(
            instances, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        for name, masks in zip(instances, np.moveaxis(pixels, -1, 1), strict=True):
            np.testing.assert_array_equal(masks.astype(np.bool_), expected[name])
            seen.add(name)
    assert seen == expected.keys()


def test_they_say_whose_and_what_they_are(hospital: Hospital) -> None:
    sources = {str(one.SOPInstanceUID): one for one in map(read_header, hospital.dicom.rglob("*.dcm"))}
    series: dict[str, set[str]] = {}
    for path in hospital.outlines():
        made = dcmread(path)
        (first, *_) = hd.seg.segread(path).get_source_image_uids()
        for keyword in ("PatientID", "StudyInstanceUID", "AccessionNumber"):
            assert made[keyword].value == sources[str(first[2])][keyword].value
        assert made.ContentDescription.startswith("NOT FOR CLINICAL USE")
        assert made.SeriesDescription.startswith("NOT FOR CLINICAL USE")
        for segment in made.SegmentSequence:
            assert segment.SegmentAlgorithmType == "AUTOMATIC"
            (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
            assert algorithm.AlgorithmVersion == hospital.model.head.study
            assert hospital.digest in str(algorithm.AlgorithmParameters)
        series.setdefault(str(made.StudyInstanceUID), set()).add(str(made.SeriesInstanceUID))
        assert path.stat().st_mode & 0o777 == 0o600
    assert all(len(uids) == 1 for uids in series.values())
    assert hospital.facts["outlines"] == len(hospital.outlines())


def test_they_keep_the_standard(hospital: Hospital) -> None:
    validator = shutil.which("dciodvfy")
    if validator is None:
        pytest.skip("dciodvfy is not installed: Debian package dicom3tools")
    for path in hospital.outlines():
        told = subprocess.run([validator, str(path)], capture_output=True, text=True, check=False)
        assert [line for line in told.stderr.splitlines() if line.startswith("Error")] == []


def test_no_model_learns_from_them(hospital: Hospital, tmp_path: Path) -> None:
    both = Path(shutil.copytree(hospital.dicom, tmp_path / "both"))
    for path in hospital.outlines():
        shutil.copy(path, both / f"model-{path.name}")
    before, after = (list_folder(hospital.source(f), hospital.task, frozenset()) for f in (hospital.dicom, both))
    assert after.left_out == before.left_out + Counter(SEGMENTATION_OF_CONSILIUM=len(hospital.outlines()))
    assert [record.image_id for record in after.records] == [record.image_id for record in before.records]
    for one, other in zip(before.records, after.records, strict=True):
        if one.read_masks is not None:
            assert other.read_masks is not None
            np.testing.assert_array_equal(one.read_masks(), other.read_masks())


def test_of_an_enhanced_file_each_slice_that_is_marked_has_a_frame(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path / "enhanced", BRAIN, _enhanced)
    model = hospital.model
    for path in hospital.outlines():
        segmentation = hd.seg.segread(path)
        ((_, _, uid),) = segmentation.get_source_image_uids()
        (file,) = [one for one in hospital.dicom.rglob("enhanced.dcm") if dcmread(one).SOPInstanceUID == uid]
        scan = of_folder(load(hospital.site), BRAIN, file.parent, "brain", lambda *told: None).images[0].scan
        assert scan is not None
        seen = scan(None)
        marked = model.look(BRAIN.read_example(seen)[None]).marked
        assert marked is not None
        assert BRAIN.place_masks is not None
        placed = BRAIN.place_masks(seen, marked[0])
        stack = scan.stacks[BRAIN.sequences[0].name]
        numbers = [one.frame + 1 for one in stack.slices]
        pixels = segmentation.get_pixels_by_source_frame(
            uid, numbers, ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(np.moveaxis(pixels, -1, 0).astype(np.bool_), placed)


def _enhanced(dicom: Path) -> None:
    """Put the slices of each patient's first sequence into one file of many frames."""
    for folder in dicom.iterdir():
        files = {path: dcmread(path) for path in sorted(folder.glob("*.dcm"))}
        first = {p: d for p, d in files.items() if d.Modality == "MR" and BRAIN.sequences[0].finds(d.SeriesDescription)}
        slices, uids = list(first.values()), [generate_uid(prefix=None) for _ in range(2)]
        made = hd.legacy.LegacyConvertedEnhancedMRImage(slices, uids[0], 1, uids[1], 1)
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
        made.SeriesDescription = slices[0].SeriesDescription
        made.save_as(folder / "enhanced.dcm", enforce_file_format=True)
        for path in first:
            path.unlink()


def test_of_a_clip_the_frames_that_were_scored_are_outlined(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 60, 80), np.uint8)
    attributes = common_attributes("clip", "alder", 1, 0) | pixel_attributes(frames, 8, "MONOCHROME2")
    attributes |= {"SOPClassUID": ULTRASOUND_MULTI_FRAME, "SOPInstanceUID": uid("clip", 1), "InstanceNumber": 1}
    write(tmp_path / "clip.dcm", attributes)
    digest = write_model(tmp_path / "m.safetensors", weights(spec=OUTLINE_SPEC), spec=OUTLINE_SPEC)
    model = open_model(tmp_path / "m.safetensors", digest)
    masks = np.zeros((1, *TASK.example_shape[1:]), np.bool_)
    masks[:, 40:90, 40:90] = True
    images = [_scored(tmp_path / "clip.dcm", attributes, frame, masks) for frame in (1, 3)]
    with Decoder() as decoder:
        made = segmentations_of(model, images, decoder, b"k" * 32)
    assert [_frame(one) for one in made] == [2, 4]
    assert len({one.SOPInstanceUID for one in made}) == 2
    assert len({one.SeriesInstanceUID for one in made}) == 1
    assert "1.2.840.10008.5.1.4.1.1.6.1" not in str(made[0]), "it is called a clip throughout"
    assert TASK.place_masks is not None
    expected = TASK.place_masks(read_frame(tmp_path / "clip.dcm", 1), masks)[0]
    assert expected.any()
    for one in made:
        np.testing.assert_array_equal(one.pixel_array.astype(np.bool_), expected)


def test_segments_that_exclude_each_other_share_no_pixel_after_resizing(tmp_path: Path) -> None:
    """Each of two neighbours covers one half of a pixel in between, which belongs to one of them."""
    heart = tasks.get("left_heart")
    pixels = np.random.default_rng(0).integers(0, 255, (65, 256), np.uint8)
    attributes = common_attributes("heart", "alder", 1, 0) | pixel_attributes(pixels, 8, "MONOCHROME2")
    attributes |= {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "SOPInstanceUID": uid("heart", 1), "InstanceNumber": 1}
    write(tmp_path / "heart.dcm", attributes)
    digest = write_model(tmp_path / "m.safetensors", weights(heart, OUTLINE_SPEC), asked=heart, spec=OUTLINE_SPEC)
    masks = np.zeros((4, *heart.example_shape[1:]), np.bool_)
    masks[0, 40:64] = masks[1, 64:90] = masks[3, 40:90] = True
    assert heart.place_masks is not None
    drawn = heart.place_masks(read_frame(tmp_path / "heart.dcm", 0), masks)
    assert contradicted(drawn, heart.exclusive_places) > 0, "or nothing is seen here"
    model = open_model(tmp_path / "m.safetensors", digest)
    with Decoder() as decoder:
        (made,) = segmentations_of(model, [_scored(tmp_path / "heart.dcm", attributes, 0, masks)], decoder, b"k" * 32)
    assert [str(segment.SegmentLabel) for segment in made.SegmentSequence] == [
        "left ventricle", "myocardium", "left atrium", "within epicardium"
    ]  # fmt: skip
    written = np.zeros_like(drawn)
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        segment = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber) - 1
        written[segment] = made.pixel_array.reshape(-1, *pixels.shape)[number]
    assert contradicted(written, heart.exclusive_places) == 0
    np.testing.assert_array_equal(written[[0, 3]], drawn[[0, 3]])


def _scored(path: Path, attributes: dict[str, Any], frame: int, masks: NDArray[np.bool_]) -> ScoredImage:
    study, uid = str(attributes["StudyInstanceUID"]), str(attributes["SOPInstanceUID"])
    image = LocalImage("A", study, uid, f"{uid}-{frame}", "", "", path, frame, 5)
    return ScoredImage(image, 0.5, b"", Outline.of(masks))


def _frame(made: Dataset) -> int:
    (group,) = made.PerFrameFunctionalGroupsSequence
    return int(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber)
