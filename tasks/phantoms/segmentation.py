"""DICOM segmentations (PS3.3 A.51) of phantom images: what was outlined on them, one bit a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits

from tasks.codes import Code
from tasks.phantoms.dicom_writer import common_attributes, item, uid
from tasks.task import Structure

SEGMENTATION_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
_OF_THE_PATIENT = tuple(common_attributes("", "x", 0, 0).keys() - {"SeriesInstanceUID", "SeriesNumber"})
_DERIVATION = Code("DCM", "113076", "Segmentation")
_PURPOSE = Code("DCM", "121322", "Source image for image processing operation")


@dataclass(frozen=True)
class OutlinedImage:
    """An image, or one frame of it, and what was outlined on it.

    Attributes:
        image: attributes of its file, as they are given to ``dicom_writer.write``.
        masks: bool (structures, rows, columns).
        frame: which frame of a file with several, from 0.
    """

    image: Mapping[str, Any]
    masks: NDArray[np.bool_]
    frame: int | None = None


def segmentation_of(
    outlined: Sequence[OutlinedImage],
    structures: Sequence[Structure],
    omit_empty: bool = False,
) -> dict[str, Any]:
    """The attributes of a binary segmentation, to be written by ``dicom_writer.write``.

    Its frames refer to the images that they were derived from (C.7.6.16.2.6), and lie in space where the images do
    (C.7.6.16.2.1 to 3). UIDs follow from those of the images and from the structures' names.

    Args:
        outlined: of one series: one image, frames of one image, or slices with ImagePositionPatient, in order.
        structures: what was sought, each a segment, in the order of the masks.
        omit_empty: leave out frames without a marked pixel, but the first, as many programs do. The images without a
            frame are among those referred to (C.12.2) all the same.

    Returns:
        Patient, study and equipment of the first image, and all that A.51 adds.

    Raises:
        ValueError: a mask does not have its image's shape, or there are none.
    """
    _check(outlined, structures)
    frames = [(segment, place) for segment in range(len(structures)) for place in range(len(outlined))]
    if omit_empty:
        frames = [(s, p) for s, p in frames if outlined[p].masks[s].any()] or frames[:1]
    first = outlined[0].image
    names = [structure.name for structure in structures]
    images = dict.fromkeys((str(one.image["SOPClassUID"]), str(one.image["SOPInstanceUID"])) for one in outlined)
    identity = [uid_of for _, uid_of in images] + [one.frame for one in outlined]
    organisation = uid("segmentation dimensions", first["SeriesInstanceUID"], *names)
    in_space = "ImagePositionPatient" in first
    pixels = np.stack([outlined[place].masks[segment] for segment, place in frames])
    return (
        _origin(first, in_space)
        | _pixels(pixels)
        | {
            "SOPInstanceUID": uid("segmentation", *identity, *names),
            "SeriesInstanceUID": uid("segmentation series", first["SeriesInstanceUID"], *names),
            "SegmentSequence": [_segment(number, one) for number, one in enumerate(structures, start=1)],
            "DimensionOrganizationSequence": [item({"DimensionOrganizationUID": organisation})],
            "DimensionIndexSequence": _dimensions(organisation, in_space),
            "SharedFunctionalGroupsSequence": [_shared(first, in_space)],
            "PerFrameFunctionalGroupsSequence": [_frame(outlined[place], s, place, in_space) for s, place in frames],
            "ReferencedSeriesSequence": [_referenced(str(first["SeriesInstanceUID"]), list(images))],
        }
    )


def _origin(first: Mapping[str, Any], in_space: bool) -> dict[str, Any]:
    """Whose segmentation it is, of what, and by what it was made."""
    told = {keyword: first[keyword] for keyword in _OF_THE_PATIENT if keyword in first}
    told |= {keyword: first[keyword] for keyword in ("PatientSex", "PatientAge") if keyword in first}
    if in_space:
        told |= {"FrameOfReferenceUID": first["FrameOfReferenceUID"], "PositionReferenceIndicator": ""}
    return told | {
        "SOPClassUID": SEGMENTATION_STORAGE,
        "Modality": "SEG",
        "SeriesNumber": 100,
        "InstanceNumber": int(first.get("InstanceNumber", 1)),
        "DeviceSerialNumber": "1",
        "SoftwareVersions": "1",
        "ImageType": ["DERIVED", "PRIMARY"],
        "ContentDate": first["StudyDate"],
        "ContentTime": first["StudyTime"],
        "ContentLabel": "SEGMENTATION",
        "ContentDescription": "True outlines of a phantom",
        "ContentCreatorName": "",
        "SegmentationType": "BINARY",
    }


def _pixels(frames: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "NumberOfFrames": len(frames),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": frames.shape[1],
        "Columns": frames.shape[2],
        "BitsAllocated": 1,
        "BitsStored": 1,
        "HighBit": 0,
        "PixelRepresentation": 0,
        "LossyImageCompression": "00",
        "PixelData": pack_bits(frames.astype(np.uint8).ravel()),  # frames follow each other without a gap (PS3.5 8.1.1)
    }


def _check(outlined: Sequence[OutlinedImage], structures: Sequence[Structure]) -> None:
    if not outlined or not structures:
        raise ValueError("a segmentation needs an image and a structure")
    for one in outlined:
        wanted = (len(structures), int(one.image["Rows"]), int(one.image["Columns"]))
        if one.masks.shape != wanted:
            raise ValueError(f"masks of shape {one.masks.shape} for an image and structures of shape {wanted}")


def _coded(code: Code) -> Dataset:
    return item({"CodeValue": code.value, "CodingSchemeDesignator": code.scheme, "CodeMeaning": code.meaning})


def _segment(number: int, structure: Structure) -> Dataset:
    return item(
        {
            "SegmentNumber": number,
            "SegmentLabel": structure.label,
            "SegmentAlgorithmType": "MANUAL",
            "SegmentedPropertyCategoryCodeSequence": [_coded(structure.category)],
            "SegmentedPropertyTypeCodeSequence": [_coded(structure.code)],
        }
    )


def _dimensions(organisation: str, in_space: bool) -> list[Dataset]:
    """Frames are ordered by segment, then by place (C.7.6.17)."""
    place = (0x00200032, 0x00209113) if in_space else (0x00209057, 0x00209111)  # ImagePosition, InStackPositionNumber
    return [
        item(
            {
                "DimensionOrganizationUID": organisation,
                "DimensionIndexPointer": attribute,
                "FunctionalGroupPointer": group,
            }
        )
        for attribute, group in ((0x0062000B, 0x0062000A), place)
    ]


def _shared(first: Mapping[str, Any], in_space: bool) -> Dataset:
    if not in_space:
        return Dataset()
    measures = {key: first[key] for key in ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices") if key in first}
    orientation = {"ImageOrientationPatient": first["ImageOrientationPatient"]}
    return item({"PixelMeasuresSequence": [item(measures)], "PlaneOrientationSequence": [item(orientation)]})


def _frame(one: OutlinedImage, segment: int, place: int, in_space: bool) -> Dataset:
    """The functional groups of a frame."""
    source = {
        "ReferencedSOPClassUID": one.image["SOPClassUID"],
        "ReferencedSOPInstanceUID": one.image["SOPInstanceUID"],
        "PurposeOfReferenceCodeSequence": [_coded(_PURPOSE)],
        "SpatialLocationsPreserved": "YES",
    }
    if one.frame is not None:
        source["ReferencedFrameNumber"] = one.frame + 1
    derivation = {"DerivationCodeSequence": [_coded(_DERIVATION)], "SourceImageSequence": [item(source)]}
    content: dict[str, Any] = {"DimensionIndexValues": [segment + 1, place + 1]}
    if not in_space:
        content |= {"StackID": "1", "InStackPositionNumber": place + 1}
    groups = {
        "FrameContentSequence": [item(content)],
        "DerivationImageSequence": [item(derivation)],
        "SegmentIdentificationSequence": [item({"ReferencedSegmentNumber": segment + 1})],
    }
    if in_space:
        groups["PlanePositionSequence"] = [item({"ImagePositionPatient": one.image["ImagePositionPatient"]})]
    return item(groups)


def _referenced(series: str, images: list[tuple[str, str]]) -> Dataset:
    """The Common Instance Reference module (C.12.2)."""
    instances = [item({"ReferencedSOPClassUID": kind, "ReferencedSOPInstanceUID": name}) for kind, name in images]
    return item({"SeriesInstanceUID": series, "ReferencedInstanceSequence": instances})
