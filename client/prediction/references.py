"""What a report refers to: the files that were read, and the segments that were drawn (PS3.16 TID 1600, 1410, 1411)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import highdicom as hd
from highdicom.sr import CodedConcept, RelationshipTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes

from client.pixels.pixel_format import number_of_frames

_SOURCE = CodedConcept("260753009", "SCT", "Source")
_LIBRARY_GROUP = CodedConcept("126200", "DCM", "Image Library Group")
_CONTAINS = RelationshipTypeValues.CONTAINS


def image_library(headers: Sequence[Dataset]) -> hd.sr.ContainerContentItem:
    """Every file once, without descriptions, which are optional and which many files could not give (TID 1600)."""
    group = hd.sr.ContainerContentItem(_LIBRARY_GROUP, relationship_type=_CONTAINS)
    kinds = {str(one.SOPInstanceUID): str(one.SOPClassUID) for one in headers}
    items = [hd.sr.ImageContentItem(_SOURCE, kind, uid, relationship_type=_CONTAINS) for uid, kind in kinds.items()]
    group.ContentSequence = hd.sr.ContentSequence(items)
    library = hd.sr.ContainerContentItem(codes.DCM.ImageLibrary, relationship_type=_CONTAINS)
    library.ContentSequence = hd.sr.ContentSequence([group])
    return library


def outlined_groups(
    algorithm: hd.sr.AlgorithmIdentification, segmentations: Sequence[Dataset]
) -> Iterator[
    hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
]:
    """One group for each segment that marks something."""
    for made in segmentations:
        for segment in made.SegmentSequence:
            frames = _frames_of(made, int(segment.SegmentNumber))
            sources = _sources_of(made, frames)
            if not sources:
                continue
            kind, uid, number = str(made.SOPClassUID), str(made.SOPInstanceUID), int(segment.SegmentNumber)
            tracked = hd.sr.TrackingIdentifier(str(segment.TrackingUID), str(segment.SegmentLabel))
            finding = CodedConcept.from_dataset(segment.SegmentedPropertyTypeCodeSequence[0])
            if len(frames) == 1:
                reference = hd.sr.ReferencedSegmentationFrame(kind, uid, frames[0], number, sources[0])
                del reference[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # not with a frame (PS3.3 C.18.4)
                yield hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                    tracked, referenced_segment=reference, finding_type=finding, algorithm_id=algorithm
                )
            else:
                yield hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                    tracked,
                    referenced_segment=hd.sr.ReferencedSegment(kind, uid, number, source_images=sources),
                    finding_type=finding,
                    algorithm_id=algorithm,
                )


def _frames_of(made: Dataset, number: int) -> list[int]:
    """Numbers, from 1, of the frames of a segment that mark something."""
    masks = made.pixel_array.reshape(number_of_frames(made), int(made.Rows), int(made.Columns))
    return [
        frame
        for frame, group in enumerate(made.PerFrameFunctionalGroupsSequence, start=1)
        if _of_frame(made, group, "SegmentIdentificationSequence")[0].ReferencedSegmentNumber == number
        and masks[frame - 1].any()
    ]


def _of_frame(made: Dataset, group: Dataset, keyword: str) -> Sequence[Dataset]:
    """Items of a functional group, which is shared where it is the same for all frames (PS3.3 C.7.6.16)."""
    return group.get(keyword) or made.SharedFunctionalGroupsSequence[0].get(keyword) or ()


def _sources_of(made: Dataset, frames: Sequence[int]) -> list[hd.sr.SourceImageForSegmentation]:
    """The images that some frames were drawn on, each once; of a file with several frames, with their numbers."""
    kinds: dict[str, str] = {}
    numbers: dict[str, list[int]] = {}
    for frame in frames:
        group = made.PerFrameFunctionalGroupsSequence[frame - 1]
        for derivation in _of_frame(made, group, "DerivationImageSequence"):
            for source in derivation.SourceImageSequence:
                uid, told = str(source.ReferencedSOPInstanceUID), source.get("ReferencedFrameNumber")
                kinds[uid] = str(source.ReferencedSOPClassUID)
                numbers.setdefault(uid, []).extend(map(int, [told] if isinstance(told, int) else told or ()))
    return [
        hd.sr.SourceImageForSegmentation(kind, uid, list(dict.fromkeys(numbers[uid])) or None)
        for uid, kind in kinds.items()
    ]
