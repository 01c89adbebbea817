"""Labels from reports, segmentations and masks: files made by highdicom, joined with the images that they speak of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from client.errors import LabelsMatchNothing, SiteMisconfigured
from client.sources.files.folder import list_folder
from client.sources.labels.annotations import read_annotations
from client.sources.settings import Annotations, FolderSource
from tasks.breast_ultrasound import TASK
from tests.client.sources import small_hospital

MALIGNANT, BENIGN = Code("86049000", "SCT", "Malignant neoplasm"), Code("3898006", "SCT", "Benign neoplasm")
ASSESSMENT = Code("363787002", "SCT", "Observable entity")
BOTH = {"positive": ["SCT:86049000"], "negative": ["SCT:3898006"]}
ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotations)


@pytest.fixture
def images(tmp_path: Path) -> list[Dataset]:
    """Eight images of four patients, the first of each uncompressed, with all that highdicom copies from them."""
    found = [dcmread(path) for path in small_hospital.fill(tmp_path)]
    for image in found:
        for keyword in ("PatientSex", "AccessionNumber", "StudyID", "StudyTime", "Laterality", "FrameOfReferenceUID"):
            if keyword not in image:
                setattr(image, keyword, "1.2.3" if keyword.endswith("UID") else "")
    return found


def _annotations(folder: Path, **settings: Any) -> Any:
    return ADAPTER.validate_python({"path": folder} | settings)


def _device() -> dict[str, Any]:
    return {"series_instance_uid": hd.UID(), "series_number": 9, "sop_instance_uid": hd.UID(), "instance_number": 1}


def _segmentation(path: Path, image: Dataset, masks: Sequence[tuple[Code, NDArray[Any]]], **more: Any) -> None:
    described = [
        hd.seg.SegmentDescription(number, f"s{number}", codes.SCT.MorphologicallyAbnormalStructure, code, "MANUAL")
        for number, (code, _) in enumerate(masks, start=1)
    ]
    pixels = np.stack([mask for _, mask in masks], axis=-1)[None]
    maker = {"manufacturer": "x", "manufacturer_model_name": "x", "software_versions": "1", "device_serial_number": "1"}
    kind = more.pop("segmentation_type", "BINARY")
    hd.seg.Segmentation([image], pixels, kind, described, **_device(), **maker, **more).save_as(path)


def _marked(image: Dataset, marked: bool = True) -> NDArray[np.uint8]:
    mask = np.zeros((image.Rows, image.Columns), np.uint8)
    mask[5:9, 4:8] = marked
    return mask


def _report(path: Path, images: Sequence[Dataset], groups: Sequence[Any]) -> None:
    person = hd.sr.ObserverContext(codes.DCM.Person, hd.sr.PersonObserverIdentifyingAttributes("Reader^A"))
    content = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer_person_context=person),
        codes.LN.CTUnspecifiedBodyRegion,
        groups,
        title=codes.DCM.ImagingMeasurementReport,
    )
    hd.sr.Comprehensive3DSR(images, content[0], **_device(), manufacturer="x").save_as(path)


def _group(image: Dataset, **told: Any) -> Any:
    source = hd.sr.SourceImageForMeasurementGroup(image.SOPClassUID, image.SOPInstanceUID)
    tracking = hd.sr.TrackingIdentifier(hd.UID(), "lesion")
    return hd.sr.MeasurementsAndQualitativeEvaluations(tracking, source_images=[source], **told)


def _judged(image: Dataset, value: Code) -> Any:
    return _group(image, qualitative_evaluations=[hd.sr.QualitativeEvaluation(ASSESSMENT, value)])


def test_a_segment_with_a_marked_pixel_labels_its_image(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    _segmentation(folder / "a.dcm", images[0], [(MALIGNANT, _marked(images[0]))])
    _segmentation(folder / "b.dcm", images[2], [(BENIGN, _marked(images[2]))])
    empty = [(MALIGNANT, _marked(images[4], False)), (BENIGN, _marked(images[4]))]
    _segmentation(folder / "c.dcm", images[4], empty, omit_empty_frames=False)
    labels = read_annotations(_annotations(folder, kind="seg", **BOTH))
    assert labels.key == "SOPInstanceUID"
    assert labels.values == {images[0].SOPInstanceUID: 1, images[2].SOPInstanceUID: 0, images[4].SOPInstanceUID: 0}


def test_an_empty_segmentation_is_negative_where_the_hospital_says_so(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    _segmentation(folder / "a.dcm", images[0], [(MALIGNANT, _marked(images[0]))])
    _segmentation(folder / "b.dcm", images[2], [(MALIGNANT, _marked(images[2], False))], omit_empty_frames=False)
    labels = read_annotations(_annotations(folder, kind="seg", **BOTH))
    assert labels.values == {images[0].SOPInstanceUID: 1}
    assert labels.left_out["SEGMENTED_WITHOUT_FINDING"] == 1
    told = read_annotations(_annotations(folder, kind="seg", positive=BOTH["positive"], empty_is_negative=True))
    assert told.values == {images[0].SOPInstanceUID: 1, images[2].SOPInstanceUID: 0}


def test_a_fractional_segmentation_marks_what_is_likely(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    for name, image, probability in (("a", images[0], 0.9), ("b", images[2], 0.2)):
        mask = _marked(image).astype(np.float32) * np.float32(probability)
        _segmentation(folder / f"{name}.dcm", image, [(MALIGNANT, mask)], segmentation_type="FRACTIONAL")
    told = read_annotations(_annotations(folder, kind="seg", positive=BOTH["positive"], empty_is_negative=True))
    assert told.values == {images[0].SOPInstanceUID: 1, images[2].SOPInstanceUID: 0}


def test_what_readers_contradict_has_no_label_and_what_is_broken_costs_itself(
    tmp_path: Path, images: list[Dataset]
) -> None:
    folder = tmp_path / "seg"
    folder.mkdir()
    _segmentation(folder / "a.dcm", images[0], [(MALIGNANT, _marked(images[0]))])
    _segmentation(folder / "b.dcm", images[0], [(BENIGN, _marked(images[0]))])
    _segmentation(folder / "c.dcm", images[2], [(BENIGN, _marked(images[2]))])
    _segmentation(folder / "d.dcm", images[2], [(BENIGN, _marked(images[2]))])
    _segmentation(folder / "e.dcm", images[4], [(BENIGN, _marked(images[4]))])
    broken = dcmread(folder / "e.dcm")
    del broken.SegmentSequence
    broken.save_as(folder / "e.dcm")
    (folder / "notes.txt").write_text("not DICOM")
    labels = read_annotations(_annotations(folder, kind="seg", **BOTH))
    assert labels.values == {images[2].SOPInstanceUID: 0}
    assert +labels.left_out == Counter(CONTRADICTING_LABEL_ROWS=1, DUPLICATE_LABEL_ROW=1, SEGMENTATION_UNREADABLE=1)


def test_a_report_labels_the_images_of_its_groups(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "sr"
    folder.mkdir()
    _report(folder / "a.dcm", images[:3], [_judged(images[0], MALIGNANT), _judged(images[2], BENIGN)])
    _report(folder / "b.dcm", [images[4]], [_judged(images[4], Code("1", "99X", "cannot say"))])
    labels = read_annotations(_annotations(folder, kind="sr", concept="SCT:363787002", **BOTH))
    assert labels.values == {images[0].SOPInstanceUID: 1, images[2].SOPInstanceUID: 0}
    assert labels.left_out["GROUP_WITHOUT_LABEL"] == 1


def test_a_finding_and_a_region_label_as_well(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "sr"
    folder.mkdir()
    image = images[2]
    source = hd.sr.SourceImageForRegion(image.SOPClassUID, image.SOPInstanceUID)
    circle = np.array([[5.0, 5.0], [8.0, 5.0]])
    region = hd.sr.ImageRegion("CIRCLE", circle, source_image=source)
    tracking = hd.sr.TrackingIdentifier(hd.UID(), "lesion")
    roi = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(tracking, region, finding_type=BENIGN)
    _report(folder / "a.dcm", [images[0], image], [_group(images[0], finding_type=MALIGNANT), roi])
    labels = read_annotations(_annotations(folder, kind="sr", concept="finding", **BOTH))
    assert labels.values == {images[0].SOPInstanceUID: 1, image.SOPInstanceUID: 0}


def test_a_measurement_labels_by_its_value(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "sr"
    folder.mkdir()
    groups = [
        _group(image, measurements=[hd.sr.Measurement(codes.SCT.Diameter, value, codes.UCUM.Millimeter)])
        for image, value in ((images[0], 21.0), (images[2], 20.0), (images[4], 19.9))
    ]
    _report(folder / "a.dcm", images[:5], groups)
    diameter = f"SCT:{codes.SCT.Diameter.value}"
    labels = read_annotations(_annotations(folder, kind="sr", concept=diameter, at_least=20))
    assert [labels.values[images[number].SOPInstanceUID] for number in (0, 2, 4)] == [1, 1, 0]


def test_a_report_that_cannot_be_read_is_counted(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "sr"
    folder.mkdir()
    _report(folder / "a.dcm", [images[0]], [_judged(images[0], MALIGNANT)])
    _report(folder / "b.dcm", [images[2]], [_judged(images[2], BENIGN)])
    broken = dcmread(folder / "b.dcm")
    del broken.ContentSequence[-1].ContentSequence[0].ConceptNameCodeSequence
    broken.save_as(folder / "b.dcm")
    labels = read_annotations(_annotations(folder, kind="sr", concept="SCT:363787002", **BOTH))
    assert labels.values == {images[0].SOPInstanceUID: 1}
    assert labels.left_out["REPORT_UNREADABLE"] == 1


def test_masks_are_named_by_their_image(tmp_path: Path, images: list[Dataset]) -> None:
    folder = tmp_path / "masks"
    folder.mkdir()
    names = [str(image.SOPInstanceUID) for image in images]
    Image.fromarray(_marked(images[0]) * 255).save(folder / f"{names[0]}.png")
    Image.fromarray(_marked(images[1], False)).save(folder / f"{names[1]}.png")
    nib.save(nib.Nifti1Image(_marked(images[2])[..., None], np.eye(4)), folder / f"{names[2]}.nii.gz")
    speck = np.zeros((24, 16), np.uint8)
    speck[0, 0] = 255
    Image.fromarray(speck).save(folder / f"{names[3]}.png")
    (folder / f"{names[4]}.png").write_bytes(b"\x89PNG broken")
    (folder / f"{names[5]}.nii").write_bytes(b"broken")
    (folder / "README.txt").write_text("masks")
    labels = read_annotations(_annotations(folder, kind="masks", min_pixels=2))
    assert labels.values == {names[0]: 1, names[1]: 0, names[2]: 1}
    assert +labels.left_out == Counter(MASK_TOO_SMALL=1, MASK_UNREADABLE=2, NOT_A_MASK=1)


def test_a_folder_source_is_labelled_by_annotations_beside_its_images(tmp_path: Path, images: list[Dataset]) -> None:
    """Segmentations may lie among the images; they are no images themselves."""
    folder = tmp_path / "dicom"
    _segmentation(folder / "zz1.dcm", images[0], [(MALIGNANT, _marked(images[0]))])
    _segmentation(folder / "zz2.dcm", images[2], [(BENIGN, _marked(images[2]))])
    annotations = {"kind": "seg", "path": folder} | BOTH
    source = FolderSource(kind="folder", task=TASK.name, issuer="a", path=folder, annotations=annotations)  # type: ignore[arg-type]
    listing = list_folder(source, TASK, frozenset())
    assert {(record.image_id, record.label) for record in listing.records} == {
        (images[0].SOPInstanceUID, 1),
        (images[2].SOPInstanceUID, 0),
    }
    assert listing.left_out == {"IMAGE_WITHOUT_LABEL": 6}
    for path in folder.glob("?-1.dcm"):
        path.unlink()
    with pytest.raises(LabelsMatchNothing, match="SOPInstanceUID"):
        list_folder(source, TASK, frozenset())


def test_annotations_that_say_nothing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SiteMisconfigured, match="is not a folder"):
        read_annotations(_annotations(tmp_path / "absent", kind="masks"))
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(SiteMisconfigured, match=r"none of 1 files .*NOT_A_MASK 1"):
        read_annotations(_annotations(tmp_path, kind="masks"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "seg", "positive": ["SCT:1"]}, "otherwise no image is negative"),
        ({"kind": "seg", "positive": ["SCT:1"], "negative": ["SCT:1"]}, "at once: SCT:1"),
        ({"kind": "seg", "positive": ["malignant"], "empty_is_negative": True}, "pattern"),
        ({"kind": "sr", "concept": "finding"}, "both `positive` and `negative`"),
        ({"kind": "sr", "concept": "SCT:1", "at_least": 2, **BOTH}, "or `at_least`"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        _annotations(tmp_path, **settings)


def test_a_source_is_labelled_in_exactly_one_way(tmp_path: Path) -> None:
    common: dict[str, Any] = {"kind": "folder", "task": TASK.name, "issuer": "a", "path": tmp_path}
    for more in ({}, {"labels": tmp_path, "annotations": {"kind": "masks", "path": tmp_path}}):
        with pytest.raises(ValidationError, match="set either `labels` or `annotations`"):
            FolderSource(**common, **more)
