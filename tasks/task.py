"""What a task is, and how one is found by name.

A task says everything that server and hospitals must agree on about a clinical question: how a picture becomes an
input tensor, which classes there are, and how phantom patients are drawn for it. A task is a folder of this package
with an object named ``TASK`` in its ``__init__.py``; nothing else has to be registered anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8.8), such as ``Code("SCT", "76752008", "Breast structure")``."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Picture:
    """One frame, as a hospital's source hands it to a task.

    Attributes:
        pixels: float32 of shape (rows, columns), grey values over the full declared range: 0 is the lowest value the
            stored bits can express and 1 the highest; bright means high (MONOCHROME1 already inverted).
        regions: where image data lies inside the frame, from SequenceOfUltrasoundRegions (PS3.3 C.8.5.5); empty when
            the source does not tell.
        spacing_mm: size of a pixel along rows and columns in millimetres, or ``None`` when it is not known.
    """

    pixels: NDArray[np.float32]
    regions: tuple[Box, ...] = ()
    spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True)
class PhantomHospital:
    """What makes one phantom hospital differ from another.

    Attributes:
        name: the hospital's name; also the IssuerOfPatientID in its files.
        patients: how many patients to draw.
        prevalence: the expected fraction of patients with the positive class, 0 to 1.
        gain: overall brightness of the scanner, 1 is neutral.
        frequency_mhz: centre frequency of the transducer; higher means finer speckle and less depth.
        images_per_patient: the least and the most images that one patient has.
        positives: exactly so many patients have the positive class, whatever ``prevalence`` says; for rare findings.
    """

    name: str
    patients: int
    prevalence: float = 0.35
    gain: float = 1.0
    frequency_mhz: float = 10.0
    images_per_patient: tuple[int, int] = (1, 4)
    positives: int | None = None


@dataclass(frozen=True)
class Task:
    """A clinical question with a yes or no answer per image.

    Attributes:
        name: the folder's name.
        question: the question in one sentence, as a clinician would ask it.
        classes: the name of the negative and of the positive class, in this order.
        finding: what the positive class is called in a DICOM report.
        procedure: the examination that the images are of, likewise.
        example_shape: shape of an input tensor, (channels, rows, columns).
        example_version: changes whenever ``read_example`` computes something else; cached examples carry it.
        read_example: the declared transform from a picture to a float32 array of ``example_shape`` in [0, 1].
        draw_phantom: writes a phantom hospital's studies as DICOM files into a folder, with ``labels.csv`` in it.
        frames_per_clip: at most so many frames of one file are taken, each as an image of its own with the file's
            label; of a file with more, those of ``frames``.
    """

    name: str
    question: str
    classes: tuple[str, str]
    finding: Code
    procedure: Code
    example_shape: tuple[int, int, int]
    example_version: int
    read_example: Callable[[Picture], NDArray[np.float32]]
    draw_phantom: Callable[[Path, PhantomHospital, int], None]
    frames_per_clip: int = 1

    def frames(self, number: int) -> tuple[int, ...]:
        """Which frames of a file with so many are taken: the middles of equal parts. One is the middle of the clip,
        which is most likely to show what the clip was made for."""
        taken = min(number, self.frames_per_clip)
        return tuple((2 * part + 1) * number // (2 * taken) for part in range(taken))

    def loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean binary cross-entropy over the images of one patient.

        Args:
            logits: float tensor of shape (images,), the model's output before the sigmoid.
            labels: float tensor of shape (images,), 1 for the positive class.

        Returns:
            A scalar tensor.
        """
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(logits, labels)


class UnknownTask(LookupError):
    """No folder of ``tasks/`` has that name."""


_NO_TASKS = ("metrics", "models", "phantoms", "template")


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return list(_folders(tuple(import_module("tasks").__path__)))


@lru_cache
def _folders(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(m.name for m in iter_modules(path) if m.ispkg and m.name not in _NO_TASKS))


def get(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownTask: there is none; the message lists those that exist. The name is looked up among the folders of
            this package before anything is imported, so a name from the network cannot import other code.
        TypeError: the folder does not define the task that it is named after.
    """
    if name not in names():
        raise UnknownTask(f"there is no task {name!r}; tasks are: {', '.join(names())}")
    task = getattr(import_module(f"tasks.{name}"), "TASK", None)
    if not isinstance(task, Task) or task.name != name:
        raise TypeError(f"tasks/{name}/__init__.py must define TASK = Task(name={name!r}, ...)")
    return task
