"""Segmentations of phantoms: highdicom and our own reader find in them what was drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from client.reading.decoding import Decoder
from client.reading.dicom import read_header
from client.reading.segments import is_segmentation, read_segmentation_header
from client.sources.labels.segmentations import findings_of
from tasks.codes import Code
from tasks.phantoms.dicom_writer import common_attributes, pixel_attributes, uid, write
from tasks.phantoms.segmentation import OutlinedImage, segmentation_of
from tasks.task import ABNORMALITY, Structure

LESION = Structure("lesion", Code("SCT", "52988006", "Lesion"), ABNORMALITY)
HEART = Structure("heart", Code("SCT", "80891009", "Heart"))
ULTRASOUND, CLIP, CT = "6.1", "3.1", "2"


def _image(kind: str, number: int = 1, frames: int = 0, **more: Any) -> dict[str, Any]:
    shape = (frames, 9, 7) if frames else (9, 7)
    return common_attributes("dots", "alder", 1, 0) | pixel_attributes(np.ones(shape, np.uint8), 8, "MONOCHROME2") | {
        "SOPClassUID": f"1.2.840.10008.5.1.4.1.1.{kind}",
        "SOPInstanceUID": uid("dots", number),
        "InstanceNumber": number,
    } | more  # fmt: skip


def _masks(structures: int, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((structures, 9, 7)) < 0.3


def _slices(number: int) -> list[dict[str, Any]]:
    axial: dict[str, Any] = {
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.7, 0.8],
        "SliceThickness": 2,
    }
    return [
        _image(CT, n, ImagePositionPatient=[-3, -4, 2.0 * n], FrameOfReferenceUID=uid("space"), **axial)
        for n in range(1, number + 1)
    ]


def _written(path: Path, attributes: dict[str, Any]) -> hd.seg.Segmentation:
    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE
    try:
        write(path, attributes)
        return hd.seg.segread(path)
    finally:
        pydicom.config.settings.reading_validation_mode = before


def test_one_image_gives_its_masks_back(tmp_path: Path) -> None:
    image, masks = _image(ULTRASOUND), _masks(2)
    read = _written(tmp_path / "seg.dcm", segmentation_of([OutlinedImage(image, masks)], [LESION, HEART]))
    pixels = read.get_pixels_by_source_instance([image["SOPInstanceUID"]])
    np.testing.assert_array_equal(pixels[0].transpose(2, 0, 1), masks)
    described = [read.get_segment_description(number) for number in read.segment_numbers]
    assert [d.segment_label for d in described] == ["lesion", "heart"]
    assert [(d.segmented_property_type.scheme_designator, d.segmented_property_type.value) for d in described] == [
        ("SCT", "52988006"),
        ("SCT", "80891009"),
    ]
    assert read.PatientID == image["PatientID"]
    assert read.StudyInstanceUID == image["StudyInstanceUID"]
    assert read.SeriesInstanceUID != image["SeriesInstanceUID"]


def test_frames_of_a_clip_are_told_apart(tmp_path: Path) -> None:
    image = _image(CLIP, frames=5)
    first, second = _masks(1, seed=1), _masks(1, seed=2)
    outlined = [OutlinedImage(image, first, frame=1), OutlinedImage(image, second, frame=4)]
    read = _written(tmp_path / "seg.dcm", segmentation_of(outlined, [LESION]))
    pixels = read.get_pixels_by_source_frame(image["SOPInstanceUID"], [5, 2])
    np.testing.assert_array_equal(pixels[..., 0], np.concatenate([second, first]))


@pytest.mark.parametrize("omit_empty", [False, True])
def test_slices_lie_where_their_images_do(tmp_path: Path, omit_empty: bool) -> None:
    slices = _slices(4)
    masks = np.stack([_masks(2, seed=n) for n in range(4)])
    masks[0] = masks[2, 1] = False
    outlined = [OutlinedImage(image, some) for image, some in zip(slices, masks, strict=True)]
    attributes = segmentation_of(outlined, [LESION, HEART], omit_empty=omit_empty)
    assert attributes["NumberOfFrames"] == (5 if omit_empty else 8)
    read = _written(tmp_path / "seg.dcm", attributes)
    names = [image["SOPInstanceUID"] for image in slices]
    pixels = read.get_pixels_by_source_instance(names, assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(pixels.transpose(0, 3, 1, 2), masks)
    geometry = read.get_volume_geometry(allow_missing_positions=True)
    assert geometry is not None
    assert geometry.spacing == (2.0, 0.7, 0.8)


def test_our_reader_knows_what_was_found_where(tmp_path: Path) -> None:
    slices, masks = _slices(3), np.zeros((3, 2, 9, 7), np.bool_)
    masks[0, 0, 2, 2] = masks[1, :, 8, 6] = True
    outlined = [OutlinedImage(image, some) for image, some in zip(slices, masks, strict=True)]
    for name, omit_empty in (("all", False), ("some", True)):
        write(tmp_path / name, segmentation_of(outlined, [LESION, HEART], omit_empty=omit_empty))
        header = read_header(tmp_path / name)
        assert is_segmentation(header)
        with Decoder() as decoder:
            found = findings_of(tmp_path / name, read_segmentation_header(header), decoder)
        told = [{"SCT:52988006"}, {"SCT:52988006", "SCT:80891009"}, set()]
        assert found == {image["SOPInstanceUID"]: codes for image, codes in zip(slices, told, strict=True)}


def test_the_same_images_have_the_same_segmentation(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, segmentation_of([OutlinedImage(_image(ULTRASOUND), _masks(1))], [LESION]))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    other = segmentation_of([OutlinedImage(_image(ULTRASOUND, 2), _masks(1))], [LESION])
    assert other["SOPInstanceUID"] != pydicom.dcmread(tmp_path / "one").SOPInstanceUID


def test_nothing_outlined_is_still_one_frame(tmp_path: Path) -> None:
    empty = OutlinedImage(_image(ULTRASOUND), np.zeros((1, 9, 7), np.bool_))
    read = _written(tmp_path / "seg.dcm", segmentation_of([empty], [LESION], omit_empty=True))
    assert read.number_of_frames == 1
    assert not read.pixel_array.any()


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        segmentation_of([OutlinedImage(_image(ULTRASOUND), _masks(1)[:, :-1])], [LESION])
    with pytest.raises(ValueError, match="needs an image"):
        segmentation_of([], [LESION])
