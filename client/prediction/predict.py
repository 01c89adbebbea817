"""A model on the hospital's own images: probabilities, patient by patient. Nothing is released, so nothing is charged.

Images are decoded in processes that may be killed, like those of an ingest, and never more than a few are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from client.cohort.cache import load_example
from client.cohort.picture import png
from client.cohort.preparation import Decoding, blacked_out
from client.pixels.refusal import UnreadableDicom
from client.prediction.model import Model
from client.prediction.worklist import LeftOut, LocalImage, Told, Worklist, with_pixels
from client.reading.contract import judge_pixels
from client.reading.evidence import examine
from tasks import contract as contracts
from tasks.task import Picture, Task

_AT_ONCE = 32


@dataclass(frozen=True)
class ScoredImage:
    """An image with its probability of the positive class, and a PNG of it as the model sees it."""

    image: LocalImage
    probability: float
    seen: bytes


@dataclass(frozen=True)
class ScoredPatient:
    """All images of one patient.

    Attributes:
        probability: the mean over the images, as a study's figures have it.
    """

    patient: str
    images: tuple[ScoredImage, ...]

    @property
    def probability(self) -> float:
        return mean(self.images)

    @property
    def trained(self) -> bool:
        """Whether the model may have been trained on this patient, if the hospital took part in its study."""
        return any(scored.image.trained for scored in self.images)

    @property
    def warned(self) -> tuple[str, ...]:
        """Rules of the contract that warn of an image, each once."""
        return tuple(dict.fromkeys(rule for scored in self.images for rule in scored.image.warned))

    def studies(self) -> dict[str, list[ScoredImage]]:
        """The images by StudyInstanceUID."""
        found: dict[str, list[ScoredImage]] = {}
        for scored in self.images:
            found.setdefault(scored.image.study, []).append(scored)
        return found


@dataclass(frozen=True)
class Predictions:
    """Patients, the highest probability first, and images that were not scored."""

    patients: list[ScoredPatient]
    left_out: list[LeftOut]

    @property
    def images(self) -> int:
        """How many were scored."""
        return sum(len(patient.images) for patient in self.patients)


def mean(images: Sequence[ScoredImage]) -> float:
    """The mean probability of some images."""
    return sum(scored.probability for scored in images) / len(images)


def called(model: Model, probability: float) -> bool | None:
    """Whether the study's operating threshold calls it positive; ``None`` where there is no threshold."""
    return None if model.head.threshold is None else probability >= model.head.threshold


def predict(model: Model, work: Worklist, told: Told) -> Predictions:
    """Score all images of a list.

    Raises:
        CacheDamaged: a prepared example is gone; only from a catalog.
    """
    left_out = list(work.left_out)
    by_patient: dict[str, list[ScoredImage]] = {}
    total = len(work.images)
    with Decoding() as decoding:
        ready = _examples(model.task, work.images, decoding, left_out)
        done = 0
        while some := list(islice(ready, _AT_ONCE)):
            probabilities = model.probabilities(np.stack([example for _, example in some]))
            for (image, example), probability in zip(some, probabilities, strict=True):
                by_patient.setdefault(image.patient, []).append(ScoredImage(image, float(probability), png(example)))
            done += len(some)
            told("scoring", done, total)
    told("scoring", total, total)
    patients = [ScoredPatient(name, tuple(images)) for name, images in by_patient.items()]
    return Predictions(sorted(patients, key=lambda patient: (-patient.probability, patient.patient)), left_out)


def _examples(
    task: Task, images: Sequence[LocalImage], decoding: Decoding, left_out: list[LeftOut]
) -> Iterator[tuple[LocalImage, NDArray[np.float32]]]:
    for image in images:
        if image.example is not None:
            yield image, load_example(image.example)
    fresh = [image for image in images if image.example is None]
    if not fresh:
        return
    pictures = decoding.decoder(len(fresh)).read_all((image.path, image.frame) for image in fresh)
    for image, picture in zip(fresh, pictures, strict=True):
        if isinstance(picture, UnreadableDicom):
            left_out.append(LeftOut(image.patient, image.path, str(picture.reason)))
        elif (kept := _kept(task, image, picture, left_out)) is not None:
            yield kept, task.read_example(blacked_out(picture))


def _kept(task: Task, image: LocalImage, picture: Picture, left_out: list[LeftOut]) -> LocalImage | None:
    """The image with what its pixels tell of it; ``None`` where they break the contract."""
    found = examine(picture.pixels, image.bits_stored)
    judged = judge_pixels(contracts.of_task(task.name), found, image.bits_stored)
    if not judged.conforms:
        left_out.append(LeftOut(image.patient, image.path, judged.rejected[0]))
        return None
    return with_pixels(task, image, judged)
