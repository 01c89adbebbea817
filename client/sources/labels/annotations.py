"""Labels from what others have written: structured reports, segmentations, mask images, FHIR resources, OMOP tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from client.errors import SiteMisconfigured
from client.sources.labels.fhir import labels_of_fhir
from client.sources.labels.mask_images import labels_of_masks
from client.sources.labels.omop import labels_of_omop
from client.sources.labels.report_answers import answers_of_reports
from client.sources.labels.reports import labels_of_reports
from client.sources.labels.segmentations import labels_of_segmentations
from client.sources.labels.table import KEYS, Labels, joined, read_labels
from client.sources.settings import (
    Annotations,
    DicomwebSource,
    DimseSource,
    FhirLabels,
    FolderSource,
    OmopLabels,
    ReportAnswers,
)
from tasks.task import Task

ImageLabels = Iterator[tuple[str, int]]
"""The value of the key (SOPInstanceUID of an image, unless the settings say another) and its label, once for each
annotation."""

_READERS: dict[str, Callable[[Any, list[Path], Counter[str]], ImageLabels]] = {
    "sr": labels_of_reports,
    "seg": labels_of_segmentations,
    "masks": labels_of_masks,
    "fhir": labels_of_fhir,
    "omop": lambda source, files, left_out: labels_of_omop(source, left_out),
}


def labels_of(source: FolderSource | DicomwebSource | DimseSource, task: Task) -> Labels:
    """The labels of a source of DICOM images, from its labels file or its annotations.

    Raises:
        SiteMisconfigured: see ``read_labels`` and ``read_annotations``.
    """
    if source.annotations is not None:
        return _annotated(source.annotations, task)
    assert source.labels is not None  # the settings see to it
    return read_labels(source.labels, task.classes, task.secondary_findings, task.answer)


def _annotated(annotations: Annotations, task: Task) -> Labels:
    if (task.answer.kind == "binary") == isinstance(annotations, ReportAnswers):
        instead = (
            "use kind 'sr' with the codes that mean yes and no"
            if task.answer.kind == "binary"
            else "use kind 'sr_answers', or write what they say into a labels file and name it under `labels`"
        )
        asked = "yes or no" if task.answer.kind == "binary" else task.answer.permitted
        raise SiteMisconfigured(f"annotations of kind {annotations.kind!r}: {task.name} asks for {asked}; {instead}")
    if isinstance(annotations, ReportAnswers):
        return read_answers(annotations, task)
    return read_annotations(annotations)


def read_answers(annotations: ReportAnswers, task: Task) -> Labels:
    """The same of answers to other questions than yes or no; see ``answers_of_reports``.

    Raises:
        SiteMisconfigured: as for ``read_annotations``, or the settings name what the task does not have.
    """
    files, left_out = _files(annotations), Counter[str]()
    labels = answers_of_reports(annotations, files, task, left_out)
    _require_labels(annotations, labels.values, left_out, len(files))
    return replace(labels, left_out=+left_out)


def read_annotations(annotations: Annotations) -> Labels:
    """Labels from the files under ``annotations.path``, by SOPInstanceUID or the key that the settings name.

    A file that cannot be used is counted and costs itself only. Annotations that say the same of an image count once;
    an image of which they say both has no label. Both are counted, as for a labels file.

    Raises:
        SiteMisconfigured: the folder is not there, or no file in it says anything of any image.
    """
    files, left_out = _files(annotations), Counter[str]()
    values, repeated = joined(_READERS[annotations.kind](annotations, files, left_out))
    left_out.update(repeated)
    _require_labels(annotations, values, left_out, len(files))
    key = annotations.key if isinstance(annotations, FhirLabels | OmopLabels) else KEYS[0]
    return Labels(annotations.path, key, values, left_out)


def _files(annotations: Annotations) -> list[Path]:
    if not annotations.path.is_dir():
        raise SiteMisconfigured(
            f"{annotations.path} is not a folder; annotations of kind {annotations.kind} must be there"
        )
    return sorted(path for path in annotations.path.rglob("*") if path.is_file())


def _require_labels(annotations: Annotations, values: Mapping[str, float], left_out: Counter[str], files: int) -> None:
    if not values:
        story = ", ".join(f"{reason} {number}" for reason, number in sorted((+left_out).items())) or "no file"
        raise SiteMisconfigured(
            f"none of {files} files under {annotations.path} labels an image ({story}); check that kind "
            f"{annotations.kind!r} and its codes match the files"
        )
