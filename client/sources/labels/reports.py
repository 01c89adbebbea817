"""Labels from structured reports: measurement groups of TID 1500 (PS3.16), read through highdicom.

A group refers to images: its source images, or those on which its regions were drawn. Its label comes from one of its
qualitative evaluations, from its finding, or from whether a measurement reaches a limit.

Tested in ``tests/client/sources/labels/test_annotations.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import highdicom as hd
from pydicom import Dataset

from client.pixels.header import open_file
from client.pixels.refusal import UnreadableDicom
from client.reading.segments import SEGMENTATION
from client.sources.own import is_own
from client.sources.settings import ReportLabels

_REPORTS = {f"1.2.840.10008.5.1.4.1.1.88.{number}" for number in (22, 33, 34)}
"""Enhanced, Comprehensive and Comprehensive 3D SR Storage."""
FINDING = "finding"
"""In place of a concept: what a group says its finding is."""

R = TypeVar("R")


def labels_of_reports(source: ReportLabels, files: list[Path], left_out: Counter[str]) -> Iterator[tuple[str, int]]:
    """SOPInstanceUID and label of each image that a measurement group refers to.

    Counted: as ``groups_of``, and ``GROUP_WITHOUT_LABEL``, ``GROUP_WITHOUT_IMAGE``.
    """
    for _, label, images in groups_of(files, left_out, partial(_label, source=source)):
        left_out["GROUP_WITHOUT_LABEL"] += label is None
        left_out["GROUP_WITHOUT_IMAGE"] += label is not None and not images
        yield from ((image, label) for image in images if label is not None)


def groups_of(
    files: list[Path], left_out: Counter[str], read: Callable[[Any], R]
) -> Iterator[tuple[Path, R, list[str]]]:
    """Of each measurement group its file, what ``read`` makes of it, and SOPInstanceUIDs of the images it refers to.

    Counted: ``REPORT_OF_CONSILIUM``, ``REPORT_UNREADABLE``, ``REPORT_OF_OTHER_TEMPLATE``.
    """
    for path in files:
        header = _report(path)
        if header is None:
            continue
        if is_own(header):
            left_out["REPORT_OF_CONSILIUM"] += 1
            continue
        try:
            content = hd.sr.srread(path).content
            groups = list(_groups(content)) if isinstance(content, hd.sr.MeasurementReport) else None
            found = None if groups is None else [(read(group), sorted(_images(group[0]))) for group in groups]
        except Exception:  # highdicom checks the template as it reads, and says what is wrong in many ways
            left_out["REPORT_UNREADABLE"] += 1
            continue
        if found is None:
            left_out["REPORT_OF_OTHER_TEMPLATE"] += 1
            continue
        yield from ((path, said, images) for said, images in found)


def _report(path: Path) -> Dataset | None:
    try:
        file, header, _ = open_file(path)
    except UnreadableDicom:
        return None  # the folder may hold anything
    file.close()
    return header if str(header.get("SOPClassUID", "")) in _REPORTS else None


def _groups(report: Any) -> Iterator[Any]:
    return chain(
        report.get_image_measurement_groups(),
        report.get_planar_roi_measurement_groups(),
        report.get_volumetric_roi_measurement_groups(),
    )


def _label(group: Any, source: ReportLabels) -> int | None:
    """1, 0, or ``None`` if the group gives neither, or both."""
    labels = set(_values(group, source))
    return labels.pop() if len(labels) == 1 else None


def _values(group: Any, source: ReportLabels) -> Iterator[int]:
    if source.at_least is not None:
        for measurement in group.get_measurements():
            if code_of(measurement.name) == source.concept:
                yield int(float(measurement.value) >= source.at_least)
        return
    for concept in evaluations_of(group, source.concept):
        if code_of(concept) in (*source.positive, *source.negative):
            yield int(code_of(concept) in source.positive)


def evaluations_of(group: Any, concept: str) -> Iterator[Any]:
    """The coded values of a group's qualitative evaluations of that concept, or its finding type for ``FINDING``."""
    if concept == FINDING:
        yield from () if group.finding_type is None else (group.finding_type,)
        return
    yield from (one.value for one in group.get_qualitative_evaluations() if code_of(one.name) == concept)


def code_of(concept: Any) -> str:
    """Scheme and value of a coded concept, such as ``SCT:86049000``."""
    return f"{concept.scheme_designator}:{concept.value}"


def _images(item: Dataset) -> set[str]:
    """All images that a content item or one below it refers to; segmentations are no images of the patient."""
    images = {
        str(reference.ReferencedSOPInstanceUID)
        for reference in (item.get("ReferencedSOPSequence") or ())
        if item.get("ValueType") == "IMAGE" and reference.get("ReferencedSOPClassUID") != SEGMENTATION
    }
    for below in item.get("ContentSequence") or ():
        images |= _images(below)
    return images
