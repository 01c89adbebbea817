"""A model's outlines as DICOM segmentations (PS3.3 A.51), on the images' own pixel grid, in a separate series.

A segment is a structure of the task, made by an algorithm identified by the study and the model's digest. There is one
segmentation per 2D image; for a scan, one on its first sequence, without slices on which nothing is marked.
``client/sources/own.py`` recognises them, so that no model learns from a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentationTypeValues, SegmentDescription
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UltrasoundImageStorage

from client.cohort.picture import COLOURS
from client.pixels.pixel_format import number_of_frames
from client.prediction.derived import LONGEST, coded, complete, equipment, source_header
from client.prediction.local_image import LocalImage
from client.prediction.model import CheckedModel
from client.prediction.names import ObjectNames
from client.prediction.predict import ScoredImage
from client.reading.decoding import Decoder
from client.reading.stack import Stack
from client.sources.own import MANUFACTURER
from client.sources.pacs.own import NOT_FOR_CLINICAL_USE, SERIES_NUMBERS
from tasks.exclusion import first_of_each


def segmentations_of(model: CheckedModel, images: Sequence[ScoredImage], decoder: Decoder, key: bytes) -> list[Dataset]:
    """The segmentations of one examination's images, all in one series; none if the model outlines nothing.

    Args:
        images: of one patient and one examination.
        key: the hospital's secret, under which the segmentations are named; see ``names.py``.

    Raises:
        UnreadableDicom, Unreadable, NoExample: an image cannot be read a second time.
        Exception: of pydicom's or highdicom's, when the images' headers hold values that no segmentation may have.
    """
    names, segmentations = ObjectNames(key, model.sha256), []
    for scored in images:
        if scored.outline is not None and model.task.place_masks is not None:
            if scored.image.scan is None:
                picture = decoder.read(scored.image.path, scored.image.frame)
                masks = _apart(model, model.task.place_masks(picture, scored.outline.masks()))
                segmentations.append(_of_picture(model, scored.image, masks, names))
            else:
                scan = scored.image.scan(decoder.read_values)
                masks = _apart(model, model.task.place_masks(scan, scored.outline.masks()))
                stack = scored.image.scan.stacks[model.task.sequences[0].name]
                segmentations += _of_stack(model, stack, np.moveaxis(masks, 1, 0), names)
    for number, one in enumerate(segmentations, start=1):
        one.InstanceNumber = number
    return segmentations


def _apart(model: CheckedModel, masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return first_of_each(masks, model.task.exclusive_places)


def _of_picture(model: CheckedModel, image: LocalImage, masks: NDArray[np.bool_], names: ObjectNames) -> Dataset:
    """From masks (structures, rows, columns)."""
    header = source_header(image.path)
    own = [(image.path, str(header.SOPInstanceUID), image.frame)]
    if "NumberOfFrames" not in header:
        return _segmentation(model, [header], masks[None], names.instance("outline", own), names)
    # highdicom knows several frames in space only, so a clip's frame is a still to it, and is called what it is here.
    kind, header.SOPClassUID = header.SOPClassUID, UltrasoundImageStorage
    made = _segmentation(model, [header], masks[None], names.instance("outline", own), names)
    for item in _references(made, str(header.SOPInstanceUID)):
        item.ReferencedSOPClassUID = kind
    for group in made.PerFrameFunctionalGroupsSequence if number_of_frames(header) > 1 else ():
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = image.frame + 1
    return made


def _references(within: Dataset, uid: str) -> Iterator[Dataset]:
    """All items that refer to an instance."""
    if str(within.get("ReferencedSOPInstanceUID", "")) == uid:
        yield within
    for element in within:
        for item in element.value if element.VR == "SQ" else ():
            yield from _references(item, uid)


def _of_stack(model: CheckedModel, stack: Stack, masks: NDArray[np.bool_], names: ObjectNames) -> list[Dataset]:
    """From masks (slices, structures, rows, columns): one for all single-slice files, one for each multi-slice file."""
    by_path: dict[Path, list[int]] = {}
    for number, one in enumerate(stack.slices):
        by_path.setdefault(one.path, []).append(number)
    headers = {path: source_header(path) for path in by_path}
    single = [path for path, header in headers.items() if number_of_frames(header) == 1]
    everything = [(one.path, str(headers[one.path].SOPInstanceUID), one.frame) for one in stack.slices]
    segmentations = []
    if single:
        chosen, uid = [by_path[path][0] for path in single], names.instance("outline", everything)
        segmentations.append(_segmentation(model, [headers[path] for path in single], masks[chosen], uid, names))
    for path in (path for path in headers if path not in single):
        whole = np.zeros((number_of_frames(headers[path]), *masks.shape[1:]), dtype=np.bool_)
        whole[[stack.slices[number].frame for number in by_path[path]]] = masks[by_path[path]]
        uid = names.instance("outline", everything, str(headers[path].SOPInstanceUID))
        segmentations.append(_segmentation(model, [headers[path]], whole, uid, names))
    return segmentations


def _segmentation(
    model: CheckedModel, headers: list[Dataset], masks: NDArray[np.bool_], uid: str, names: ObjectNames
) -> Dataset:
    """From masks (frames, structures, rows, columns), one header per frame, or one file for all."""
    made = hd.seg.Segmentation(
        headers,
        np.moveaxis(masks, 1, -1).astype(np.uint8),
        SegmentationTypeValues.BINARY,
        _segments(model, uid, names),
        series_instance_uid=names.series("SEG", str(headers[0].StudyInstanceUID)),
        series_number=SERIES_NUMBERS["SEG"],
        sop_instance_uid=uid,
        instance_number=1,
        content_label="RESEARCH",
        content_description=f"{NOT_FOR_CLINICAL_USE}: {model.head.study}"[:LONGEST],
        omit_empty_frames=len(masks) > 1,
        **equipment(model),
    )
    complete(made, headers[0])
    if "FrameOfReferenceUID" not in made:
        made.PatientOrientation = ""  # type 2C where nothing says how it lies (PS3.3 C.7.6.1)
    return made


def _segments(model: CheckedModel, uid: str, names: ObjectNames) -> list[SegmentDescription]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"{MANUFACTURER} {model.task.name}"[:LONGEST],
        family=codes.cid7162.ArtificialIntelligence,
        version=model.head.study[:LONGEST],
        source=MANUFACTURER,
        parameters={"SHA-256": model.sha256},
    )
    return [
        SegmentDescription(
            segment_number=number,
            segment_label=structure.label,
            segmented_property_category=coded(structure.category),
            segmented_property_type=coded(structure.code),
            algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=names.part("segment", uid, number),
            tracking_id=structure.name,
            display_color=hd.color.CIELabColor.from_rgb(*_rgb(COLOURS[(number - 1) % len(COLOURS)])),
        )
        for number, structure in enumerate(model.task.structures, start=1)
    ]


def _rgb(colour: str) -> tuple[int, int, int]:
    """The colour of the list for the reading room, which viewers show as well."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
