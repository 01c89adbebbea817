"""Predictions as DICOM structured reports: Enhanced SR, TID 1500 (PS3.16), one per DICOM study, in a separate series.

    Imaging Measurement Report
    ├── observer: a device, this release of Consilium
    ├── Image Library: every file that was read
    ├── Comment: not for clinical use
    └── Imaging Measurements
        ├── Measurement Group, one per image: its image, the finding in question, the algorithm with the model's digest,
        │   Certainty of Finding (DCM 111012) in percent; of a question that asks for more than yes or no the class or
        │   grade by its code, or the measured value in its UCUM unit, instead of a certainty if it is the task's own
        ├── Measurement Group, one per outlined structure: the segment, the image that it was drawn on, the algorithm
        └── Measurement Group of the examination: all its images, the mean, on which side of the operating threshold

As the IHE profile "AI Results" (RAD AIR) asks, the report is the root of everything that was computed: each group has a
tracking identifier and the algorithm, each value is inferred from its images, and segmentations are referred to. OHIF
opens a report only if there is an Image Library, and something that each value was inferred from.

A scan is one image and the only one of its examination: there is only the examination's group, with every slice that
was read. The segmentation used to read a scan is not a source of the group; it is in the evidence (PS3.3 C.17.2).

A certainty of 3 percent means that the finding is probably absent; readers must look at the number.
``client/sources/labels/reports.py`` ignores these reports, so that no model learns from a model.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID

from client.pixels.pixel_format import number_of_frames
from client.prediction.derived import LONGEST, coded, complete, equipment, source_header
from client.prediction.judged import in_words, sentences
from client.prediction.local_image import LocalImage
from client.prediction.model import CheckedModel
from client.prediction.names import ObjectNames
from client.prediction.predict import ScoredImage, called, mean, told_together
from client.prediction.references import image_library, outlined_groups
from client.prediction.told import Told, measures, value_at
from client.sources.own import MANUFACTURER
from client.sources.pacs.own import NOT_FOR_CLINICAL_USE, SERIES_NUMBERS
from tasks.answers import Measure

RESEARCH = "RESEARCH"
"""ContentQualification (0018,9004) of every report (PS3.3 C.12.1.1, C.8.13.2.1.1)."""
_SCHEME = "99CONSILIUM"
_NAMESPACE = uuid.UUID("a3f1c2d0-5b7e-4c59-9f0e-3d6a2b8c1e47")  # drawn once; makes the device's UID of the model


def report_of(
    model: CheckedModel, images: Sequence[ScoredImage], key: bytes, segmentations: Sequence[Dataset] = ()
) -> Dataset:
    """The report of one DICOM study.

    Args:
        images: of one patient and one examination.
        key: the hospital's secret, under which the report is named; see ``names.py``.
        segmentations: what the model has drawn on them.

    Raises:
        Exception: of pydicom's or highdicom's, when the images' headers hold values that no report may have.
    """
    headers = _headers(images)
    own, names = headers[images[0].image.path], ObjectNames(key, model.sha256)
    each = [] if model.task.sequences else [_group(model, [scored], headers, names) for scored in images]
    content = hd.sr.MeasurementReport(
        hd.sr.ObservationContext(observer_device_context=_device(model)),
        coded(model.task.procedure),
        [*each, *outlined_groups(_algorithm(model), segmentations), _group(model, images, headers, names, whole=True)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    relation = hd.sr.RelationshipTypeValues.CONTAINS
    content[0].ContentSequence.insert(-1, image_library(list(headers.values())))
    content[0].ContentSequence.insert(-1, hd.sr.TextContentItem(codes.DCM.Comment, comment(model), relation))
    report = hd.sr.EnhancedSR(
        list({str(header.SOPInstanceUID): header for header in (*headers.values(), *segmentations)}.values()),
        content[0],
        series_instance_uid=names.series("SR", images[0].image.study),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=names.instance("report", _read(images, headers)),
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[_scheme()],
        content_qualification=RESEARCH,
        specific_character_set=None,  # set below: highdicom takes no "" for the default one before code extensions
        **equipment(model),
    )
    complete(report, own)
    return report


def comment(model: CheckedModel) -> str:
    """The comment for the reader, in every report."""
    threshold = model.threshold
    threshold_sentence = "The study has no threshold." if threshold is None else (
        f"The study's operating threshold is {_threshold(model, threshold)}."
    )  # fmt: skip
    scored = "All slices in the group are scored as one image." if model.task.sequences else (
        "Of a clip, some frames are scored, each as an image; the last group has the mean over the examination."
    )  # fmt: skip
    scale = "Certainties are scores that were not calibrated." if model.head.calibration is None else (
        "Certainties are scores that the study's validation patients have calibrated."
    )  # fmt: skip
    if measures(model.task):
        scale = "How far values may be off is in the study's report."
    worth = " ".join(sentences(model.head, measured=measures(model.task)))
    origin = f"Study {model.head.study}, model SHA-256 {model.sha256}."
    return (
        f"{NOT_FOR_CLINICAL_USE}. Output of a research model that no authority has cleared; it must not be used for "
        f"the care of any patient. Question: {model.task.question} {scored} {scale} {threshold_sentence} {worth} "
        f"{origin}"
    )


def _threshold(model: CheckedModel, threshold: float) -> str:
    if measures(model.task):
        return value_at(model.task, threshold)
    return f"{100 * threshold:.1f} percent"


def _headers(images: Sequence[ScoredImage]) -> dict[Path, Dataset]:
    """Headers of all files read for the images; first that of the first image, from which the report is made."""
    paths = dict.fromkeys(path for scored in images for path in _files(scored.image))
    return {path: source_header(path) for path in paths}


def _files(image: LocalImage) -> Iterator[Path]:
    yield image.path
    if image.scan is not None:
        yield from (one.path for stack in image.scan.stacks.values() for one in stack.slices)
        outlined = {} if image.scan.outlines is None else image.scan.outlines.outlined
        yield from (mark.path for _, marks in outlined.values() for mark in marks)


def _device(model: CheckedModel) -> hd.sr.ObserverContext:
    return hd.sr.ObserverContext(
        codes.DCM.Device,
        hd.sr.DeviceObserverIdentifyingAttributes(
            uid=UID(f"2.25.{uuid.uuid5(_NAMESPACE, model.sha256).int}"),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=MANUFACTURER,
            serial_number=model.sha256[:LONGEST],
        ),
    )


def _group(
    model: CheckedModel,
    images: Sequence[ScoredImage],
    headers: Mapping[Path, Dataset],
    names: ObjectNames,
    whole: bool = False,
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    score, told = mean(images), told_together(images)
    positive = called(model, score) if whole else None
    name = "study" if whole else _name(images[0], headers[images[0].image.path])
    certain = [] if measures(model.task) else [
        (codes.DCM.CertaintyOfFinding, round(100 * model.probability(score), 2), codes.UCUM.Percent, _is_a_mean(model))
    ]  # fmt: skip
    values = certain if told is None else [*certain, *_values(told, not model.task.sequences)]
    sides = [] if positive is None else [_side(positive)]
    evaluations = sides if told is None else [*_evaluations(model, told), *sides]
    read = dict.fromkeys(path for scored in images for path, _ in _frames(scored.image))
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        hd.sr.TrackingIdentifier(names.instance("finding", _read(images, headers), name), name),
        finding_type=coded(model.task.finding),
        algorithm_id=_algorithm(model),
        measurements=[
            hd.sr.Measurement(
                quantity,
                value,
                unit,
                derivation=codes.SCT.Mean if whole and averaged else None,
                referenced_images=[
                    hd.sr.SourceImageForMeasurement(str(headers[path].SOPClassUID), str(headers[path].SOPInstanceUID))
                    for path in read
                ],
            )
            for quantity, value, unit, averaged in values
        ]
        or None,
        qualitative_evaluations=evaluations or None,
        source_images=_sources(images, headers),
    )


def _values(told: Told, averaged: bool) -> Iterator[tuple[CodedConcept, float, CodedConcept, bool]]:
    """Quantity, value, unit, and whether an examination's is the mean of its images'."""
    for name, answer in told.answers.items():
        if isinstance(answer, Measure):
            yield coded(answer.code), told.value(name), coded(answer.unit), averaged


def _evaluations(model: CheckedModel, told: Told) -> Iterator[hd.sr.QualitativeEvaluation]:
    """The class or grade that is told, by its code. The concept is the secondary finding's; that of a task's own
    question is private, since a group's Finding (DCM 121071) is the event."""
    own = CodedConcept("ANSWER", _SCHEME, "Answer to the task's question")
    named = {finding.name: coded(finding.code) for finding in model.task.secondary_findings}
    for name, answer in told.answers.items():
        if not isinstance(answer, Measure):
            yield hd.sr.QualitativeEvaluation(named.get(name, own), coded(told.code(name)))


def _is_a_mean(model: CheckedModel) -> bool:
    """Whether an examination's certainty is the mean of its images', and not a function of it."""
    return not model.task.sequences and model.head.calibration is None


def _read(images: Sequence[ScoredImage], headers: Mapping[Path, Dataset]) -> Iterator[tuple[Path, str, int]]:
    """File, SOPInstanceUID and frame of everything that was read for the images."""
    for scored in images:
        yield from ((path, str(headers[path].SOPInstanceUID), frame) for path, frame in _frames(scored.image))
        yield from ((path, str(headers[path].SOPInstanceUID), 0) for path in _files(scored.image))


def _name(scored: ScoredImage, header: Dataset) -> str:
    frame = f", frame {scored.image.frame + 1}" if scored.image.frames > 1 else ""
    return f"image {header.get('InstanceNumber') or ''}".strip() + frame


def _algorithm(model: CheckedModel) -> hd.sr.AlgorithmIdentification:
    """The algorithm; its version is the federated study and the file's digest, which identify the model."""
    parameters = [f"network {model.head.model.get('name')}", f"SHA-256 {model.sha256}", NOT_FOR_CLINICAL_USE]
    if model.threshold is not None:
        parameters.append(f"operating threshold {_threshold(model, model.threshold)}")
    for name, rate in {"sensitivity": model.head.sensitivity, "specificity": model.head.specificity}.items():
        parameters += [f"{name} at the threshold {in_words(rate)}"] if rate is not None else []
    if (calibration := model.head.calibration) is not None:
        parameters.append(f"calibration {calibration.intercept:.4f} + {calibration.slope:.4f} logit of the mean score")
    name, version = f"{MANUFACTURER} {model.task.name}", f"{model.head.study} {model.sha256}"
    return hd.sr.AlgorithmIdentification(name, version, parameters)


def _side(positive: bool) -> hd.sr.QualitativeEvaluation:
    value = ("AT-OR-ABOVE", "At or above the threshold") if positive else ("BELOW", "Below the threshold")
    name = CodedConcept("OPERATING-POINT", _SCHEME, "Mean against the study's operating threshold")
    return hd.sr.QualitativeEvaluation(name, CodedConcept(value[0], _SCHEME, value[1]))


def _sources(
    images: Sequence[ScoredImage], headers: Mapping[Path, Dataset]
) -> list[hd.sr.SourceImageForMeasurementGroup]:
    """Each file once, with the numbers (from 1) of the scored frames if it has several."""
    frames: dict[Path, list[int]] = {}
    for path, frame in (read for scored in images for read in _frames(scored.image)):
        numbers = frames.setdefault(path, [])
        if number_of_frames(headers[path]) > 1:
            numbers.append(frame + 1)
    return [
        hd.sr.SourceImageForMeasurementGroup(
            str(headers[path].SOPClassUID), str(headers[path].SOPInstanceUID), referenced_frame_numbers=numbers or None
        )
        for path, numbers in frames.items()
    ]


def _frames(image: LocalImage) -> Iterator[tuple[Path, int]]:
    if image.scan is None:
        yield image.path, image.frame
    else:
        yield from ((one.path, one.frame) for stack in image.scan.stacks.values() for one in stack.slices)


def _scheme() -> CodingSchemeIdentificationItem:
    return CodingSchemeIdentificationItem(
        designator=_SCHEME, name="Consilium private codes", responsible_organization="Consilium"
    )
