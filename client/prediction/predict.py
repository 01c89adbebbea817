"""Score the hospital's own images with a model, patient by patient. Nothing is released, so nothing is charged.

Images are decoded in processes that may be killed, like those of an ingest, and never more than a few are in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from client.cohort.cache import load_example
from client.cohort.picture import png
from client.cohort.preparation import Decoding, blacked_out, side_by_side
from client.pixels.refusal import UnreadableDicom
from client.prediction.local_image import LeftOut, LocalImage, ScoringProgress, Worklist
from client.prediction.model import CheckedModel
from client.prediction.outline import Outline
from client.prediction.told import Told, together
from client.reading.contract import Judgement, judge_pixels, merged
from client.reading.decoding import Decoder
from client.reading.evidence import examine
from client.sources.record import Unreadable
from tasks import contract as contracts
from tasks.imaging.volumes import NoExample
from tasks.task import Task

_AT_ONCE, _SCANS_AT_ONCE = 32, 4
"""A scan needs as much memory as dozens of 2D images."""


@dataclass(frozen=True)
class ScoredImage:
    """An image and its score.

    Attributes:
        score: what the model says of the positive class, from 0 to 1, before calibration.
        seen: PNG of it as the model sees it, with the outlines that the model draws.
        outline: what the model marks; ``None`` where it outlines nothing.
        told: of questions that ask for more than yes or no; ``None`` where there are none.
    """

    image: LocalImage
    score: float
    seen: bytes
    outline: Outline | None = None
    told: Told | None = None


@dataclass(frozen=True)
class ScoredPatient:
    """All images of one patient.

    Attributes:
        score: of the images together, as a study's figures have it.
        told: likewise; ``None`` where all questions are yes-or-no questions.
    """

    patient: str
    images: tuple[ScoredImage, ...]

    @property
    def score(self) -> float:
        return mean(self.images)

    @property
    def told(self) -> Told | None:
        return told_together(self.images)

    @property
    def trained(self) -> bool:
        """Whether the model may have been trained on this patient, if the hospital took part in its study."""
        return any(scored.image.trained for scored in self.images)

    @property
    def warned(self) -> tuple[str, ...]:
        """Contract rules that warn about an image, each once."""
        return tuple(dict.fromkeys(rule for scored in self.images for rule in scored.image.warned))

    def examinations(self) -> dict[str, list[ScoredImage]]:
        """The images by StudyInstanceUID."""
        found: dict[str, list[ScoredImage]] = {}
        for scored in self.images:
            found.setdefault(scored.image.study, []).append(scored)
        return found


@dataclass(frozen=True)
class Predictions:
    """Patients, the highest score first, and images that were not scored."""

    patients: list[ScoredPatient]
    left_out: list[LeftOut]

    @property
    def images(self) -> int:
        """Number of scored images."""
        return sum(len(patient.images) for patient in self.patients)


def mean(images: Sequence[ScoredImage]) -> float:
    """The score of some images together: that of the mean of what is told of each, which is the mean score, unless a
    value is measured."""
    told = told_together(images)
    if told is not None and told.score is not None:
        return told.score
    return sum(scored.score for scored in images) / len(images)


def told_together(images: Sequence[ScoredImage]) -> Told | None:
    """What is told of some images together."""
    each = [scored.told for scored in images if scored.told is not None]
    return together(each) if each else None


def called(model: CheckedModel, score: float) -> bool | None:
    """Whether a score is at or above the study's operating threshold; ``None`` if there is no threshold."""
    return None if model.head.threshold is None else score >= model.head.threshold


def predict(model: CheckedModel, work: Worklist, progress: ScoringProgress) -> Predictions:
    """Score all images of a list.

    Raises:
        CacheDamaged: a prepared example is gone; only from a catalog.
    """
    left_out = list(work.left_out)
    by_patient: dict[str, list[ScoredImage]] = {}
    total, at_once = len(work.images), _SCANS_AT_ONCE if model.task.sequences else _AT_ONCE
    with Decoding() as decoding, closing(_examples(model.task, work.images, decoding, left_out)) as ready:
        done = 0
        while batch := list(islice(ready, at_once)):
            for scored in _looked_at(model, batch):
                by_patient.setdefault(scored.image.patient, []).append(scored)
            done += len(batch)
            progress("scoring", done, total)
    progress("scoring", total, total)
    patients = [ScoredPatient(name, tuple(images)) for name, images in by_patient.items()]
    return Predictions(sorted(patients, key=lambda patient: (-patient.score, patient.patient)), left_out)


def _looked_at(model: CheckedModel, batch: Sequence[tuple[LocalImage, NDArray[np.float32]]]) -> Iterator[ScoredImage]:
    looked = model.look(np.stack([example for _, example in batch]))
    for n, (image, example) in enumerate(batch):
        masks = None if looked.marked is None else looked.marked[n]
        outline = None if masks is None else Outline.of(masks)
        told = None if looked.told is None else looked.told[n]
        yield ScoredImage(image, float(looked.scores[n]), png(example, masks), outline, told)


def _examples(
    task: Task, images: Sequence[LocalImage], decoding: Decoding, left_out: list[LeftOut]
) -> Generator[tuple[LocalImage, NDArray[np.float32]]]:
    for image in images:
        if image.example is not None:
            yield image, load_example(image.example)
    fresh = [image for image in images if image.example is None]
    if not fresh:
        return
    decoder = decoding.decoder(len(fresh))
    with closing(side_by_side(lambda image: _read(task, image, decoder), fresh, decoding)) as outcomes:
        for image, outcome in outcomes:
            if isinstance(outcome, str):
                left_out.append(LeftOut(image.patient, image.path, outcome))
            else:
                yield outcome


def _read(task: Task, image: LocalImage, decoder: Decoder) -> tuple[LocalImage, NDArray[np.float32]] | str:
    """The image with evidence from its pixels, and its example; or the reason why it cannot be read or its pixels
    violate the contract."""
    contract = contracts.of_task(task.name)
    try:
        picture = decoder.read(image.path, image.frame, image.beside)
        judged = judge_pixels(contract, examine(picture.pixels, image.bits_stored), image.bits_stored)
        if not judged.conforms:
            return judged.rejected[0]
        seen = blacked_out(picture) if image.scan is None else image.scan(decoder.read_values)
        example = task.read_example(seen)
    except (UnreadableDicom, Unreadable, NoExample) as refusal:
        return str(refusal.reason)
    both = merged(contract, Judgement(warned=image.warned), judged)
    return replace(image, warned=both.warned), example
