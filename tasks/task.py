"""What a task is, and how one is found by name.

A task contains everything that server and hospitals must agree on about a clinical question: how an image or a scan
becomes an input tensor, and what the model predicts. A task is a folder of this package with an object named ``TASK``
in its ``__init__.py``; nothing else has to be registered. How its phantom patients are drawn is in ``tasks/phantoms/``,
which no hospital needs and only the extra ``phantoms`` installs.

Every task has one question, the primary endpoint: by it, or by its event where it is no yes-or-no question, models are
selected and hospitals compared. It may have secondary endpoints: secondary findings, which a hospital may know only in
part, and structures to outline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tasks.answers import YES_OR_NO, Answer, Classes, Grade
from tasks.codes import Code
from tasks.exclusion import Group, problems_of
from tasks.input_spec import InputSpec

if TYPE_CHECKING:
    import torch

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are exclusive."""


QUESTION = "question"
"""What the task's own question is called among its secondary findings."""
_LONGEST_DESCRIPTION = 64  # LO (PS3.5 table 6.2-1); whoever writes more shall not occupy a regular expression for long


@dataclass(frozen=True)
class Picture:
    """One frame, as a hospital's source gives it to a task.

    Attributes:
        pixels: float32 of shape (rows, columns), grey values over the full declared range: 0 is the lowest value the
            stored bits can express and 1 the highest; bright means high (MONOCHROME1 already inverted).
        regions: where image data is inside the frame, from SequenceOfUltrasoundRegions (PS3.3 C.8.5.5); empty if the
            source does not say.
        spacing_mm: size of a pixel along rows and columns in millimetres, or ``None`` when it is not known.
        masks: bool of shape (structures, rows, columns), in the order of ``Task.structures``: what a reader outlined.
            All false where the reader found nothing; ``None`` if it was not read.
        beside: what is read together with it, each like ``pixels`` and of their shape: later frames of a clip, or the
            other colours of a picture.
    """

    pixels: NDArray[np.float32]
    regions: tuple[Box, ...] = ()
    spacing_mm: tuple[float, float] | None = None
    masks: NDArray[np.bool_] | None = None
    beside: tuple[NDArray[np.float32], ...] = ()


@dataclass(frozen=True)
class Volume:
    """Measured values in space.

    Attributes:
        values: of shape (slices, rows, columns); float32, the output of the Modality LUT, or bool.
        affine: float64 (4, 4), takes (slice, row, column, 1) to the voxel's centre in the patient in millimetres: x to
            the left, y to the back, z to the head.
        unit: of the values, "HU" for instance; "" if unknown.
        imaged: bool of the same shape, false where the scanner filled up what it had not imaged; ``None`` where it has
            imaged everything.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]
    unit: str = ""
    imaged: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Scan:
    """The volumes of one examination.

    Attributes:
        volumes: by ``Sequence.name``; a sequence that was not acquired is absent. Grids may differ.
        masks: by ``Structure.name``, each a volume of bool on a grid of its own; all false where the reader found
            nothing. ``None`` if it was not read.
    """

    volumes: Mapping[str, Volume]
    masks: Mapping[str, Volume] | None = None


@dataclass(frozen=True)
class Finding:
    """A secondary question about the same image.

    Attributes:
        name: lower-case letters, digits and ``_``; the column of a labels file, which may leave it empty.
        code: its code in a DICOM report; of a question with another answer than yes or no, its event's.
        answer: of which kind its answer is.
    """

    name: str
    code: Code
    answer: Answer = YES_OR_NO


ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
ABNORMALITY = Code("SCT", "49755003", "Morphologically Abnormal Structure")
"""Categories of structures (PS3.16 CID 7150)."""


@dataclass(frozen=True)
class Structure:
    """A structure to outline.

    Attributes:
        name: lower-case letters, digits and ``_``.
        code: SegmentedPropertyTypeCodeSequence of a DICOM segmentation that outlines it.
        category: SegmentedPropertyCategoryCodeSequence of one that Consilium writes; it is not read from others.
    """

    name: str
    code: Code
    category: Code = ANATOMY

    @property
    def label(self) -> str:
        """Its name for a person, and SegmentLabel (PS3.3 C.8.20.4) of a segmentation."""
        return self.name.replace("_", " ")


@dataclass(frozen=True)
class Series:
    """Attributes of a series.

    Attributes:
        description: SeriesDescription.
        image_type: ImageType, or an enhanced image's FrameType, in capitals.
        contrast_agent: ContrastBolusAgent; "" if none is written down, which does not mean that none was given.
        echo_time_ms, repetition_time_ms, inversion_time_ms: EchoTime, RepetitionTime, InversionTime; ``None`` where
            they are not written down.
    """

    description: str = ""
    image_type: tuple[str, ...] = ()
    contrast_agent: str = ""
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None


def series_of(texts: Mapping[str, str]) -> Series:
    """From the texts of a header by keyword, values with backslashes between; what cannot be read is absent."""
    return Series(
        description=texts.get("SeriesDescription", "").strip()[:_LONGEST_DESCRIPTION],
        image_type=tuple(part.strip().upper() for part in texts.get("ImageType", "").split("\\")),
        contrast_agent=texts.get("ContrastBolusAgent", "").strip(),
        echo_time_ms=_number(texts.get("EchoTime", "")),
        repetition_time_ms=_number(texts.get("RepetitionTime", "")),
        inversion_time_ms=_number(texts.get("InversionTime", "")),
    )


def _number(text: str) -> float | None:
    """The first value of a text."""
    try:
        value = float(text.partition("\\")[0])
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def undecided(series: Series) -> bool | None:
    """A series' attributes tell nothing."""
    return None


@dataclass(frozen=True)
class Sequence:
    """One kind of series that an examination may have.

    Attributes:
        name: such as ``T1ce``.
        described: a regular expression to search for in SeriesDescription, ignoring case; "" matches every series.
            A series belongs to the first sequence of the task that matches.
        acquired: whether a series is of this kind by how it was acquired; ``None`` where its attributes do not tell,
            and then its description decides.
    """

    name: str
    described: str = ""
    acquired: Callable[[Series], bool | None] = undecided

    def finds(self, description: str) -> bool:
        """Whether a series with that SeriesDescription matches, if nothing else is known of it."""
        return re.search(self.described, description, re.IGNORECASE) is not None

    def matches(self, series: Series) -> bool:
        """Whether a series matches: by its attributes first, then by its description."""
        told = self.acquired(series)
        return self.finds(series.description) if told is None else told


@dataclass(frozen=True)
class PhantomHospital:
    """What makes one phantom hospital differ from another.

    Attributes:
        name: the hospital's name; also the IssuerOfPatientID in its files.
        patients: how many patients to draw.
        prevalence: the expected fraction of patients with the positive class, 0 to 1.
        gain: overall brightness of the scanner, 1 is neutral.
        frequency_mhz: centre frequency of the transducer; higher means finer speckle and less depth.
        images_per_patient: the smallest and the largest number of images of one patient.
        positives: the exact number of positive patients, in place of ``prevalence``; for rare findings.
    """

    name: str
    patients: int
    prevalence: float = 0.35
    gain: float = 1.0
    frequency_mhz: float = 10.0
    images_per_patient: tuple[int, int] = (1, 4)
    positives: int | None = None


Augmentation = Callable[["torch.Tensor", "torch.Tensor", "torch.Generator"], tuple["torch.Tensor", "torch.Tensor"]]


@dataclass(frozen=True)
class Task:
    """A clinical question about an image, and its secondary endpoints.

    Attributes:
        name: the folder's name.
        question: the question in one sentence, as a clinician would ask it.
        classes: the name of the negative and of the positive class, in this order; of a question with another answer
            than yes or no, what there is without its event, and with it.
        finding: the code of the positive class in a DICOM report.
        procedure: the code of the examination, likewise.
        example_shape: shape of an input tensor, (channels, rows, columns) or (channels, slices, rows, columns).
        example_version: changes whenever ``read_example`` or ``read_masks`` computes something else; it is part of
            cached examples.
        read_example: the declared transform from a ``Picture``, or a ``Scan`` where there are ``sequences``, to a
            float32 array of ``example_shape`` in [0, 1].
        frames_per_clip: the largest number of frames that are used of one file, each as an image of its own with the
            file's label; ``frames`` says which.
        moments: what frames show that are read together, such as the end of diastole and of systole: a file is a clip
            from the first to the last of them and gives one picture, see ``beside``. Empty where a frame is enough.
        secondary_findings: secondary findings; a hospital may not know them, for some images or for all.
        structures: to outline; a hospital may have outlines of some images or of none.
        read_masks: from the same picture or scan, which has masks, to bool of shape (structures, *example_shape[1:]),
            on the same grid as the example; present where there are structures.
        place_masks: the inverse, from a picture or scan and masks on the example's grid: for a picture bool of shape
            (structures, rows, columns), for a scan of shape (structures, slices, rows, columns) on the grid of the
            first sequence; present where there are structures.
        sequences: the task reads volumes of these; an examination without the first is rejected.
        example_spacing_mm: size of an example's pixel along each axis, where the transform makes it the same for all.
        augment: the random part of the transform, drawn anew whenever an image is drawn for training of a network that
            has no fixed part. From an example, bool masks of shape (structures, ...) and a generator to both.
        answer: of which kind the answer to the question is.
        exclusive: groups of structures, by name, of which there is one at most at any place (``tasks/exclusion.py``);
            all others may overlap.
    """

    name: str
    question: str
    classes: tuple[str, str]
    finding: Code
    procedure: Code
    example_shape: tuple[int, ...]
    example_version: int
    read_example: Callable[[Any], NDArray[np.float32]]
    frames_per_clip: int = 1
    moments: tuple[str, ...] = ()
    secondary_findings: tuple[Finding, ...] = ()
    structures: tuple[Structure, ...] = ()
    read_masks: Callable[[Any], NDArray[np.bool_]] | None = None
    place_masks: Callable[[Any, NDArray[np.bool_]], NDArray[np.bool_]] | None = None
    sequences: tuple[Sequence, ...] = ()
    example_spacing_mm: tuple[float, ...] | None = None
    augment: Augmentation | None = None
    answer: Answer = YES_OR_NO
    exclusive: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that a table would have twice, and structures that cannot exclude each other."""
        names = [finding.name for finding in self.secondary_findings]
        if len({*names, QUESTION}) <= len(names):
            raise ValueError(f"task {self.name}: secondary findings need different names, and none is {QUESTION!r}")
        if problems := problems_of(self.exclusive, [structure.name for structure in self.structures]):
            raise ValueError(f"task {self.name}: {'; '.join(problems)}")

    @property
    def answers(self) -> tuple[Answer, ...]:
        """Of which kind the answer to each question is, the task's own first."""
        return (self.answer, *(finding.answer for finding in self.secondary_findings))

    def said(self, truth: float) -> str:
        """A truth of the task's own question in words: a class, a grade, or a value with its unit."""
        return self.answer.said(truth) if self.answer.kind != "binary" else self.classes[int(truth)]

    @property
    def categories(self) -> tuple[str, ...]:
        """What patients are counted by: classes or grades; of a yes-or-no question and of a measured value what
        there is without the event, and with it."""
        return self.answer.names if isinstance(self.answer, Classes | Grade) else self.classes

    def categories_of(self, truths: Iterable[float]) -> list[str]:
        """By which of ``categories`` each counts of some known truths of the task's own question."""
        known = np.array([*truths], np.float64)
        numbers = known if isinstance(self.answer, Classes | Grade) else self.answer.event_of(known)
        return [self.categories[int(number)] for number in numbers]

    def unfit_weights(self, class_weights: list[float]) -> str:
        """Why these cannot be weights of the answers to the task's own question; "" if they can."""
        names = self.categories
        if not class_weights:
            return ""
        if self.answer.kind == "measure":
            return f"class_weights: {self.name} asks for a measured value, which has no classes; leave them out"
        if len(class_weights) != len(names):
            return (
                f"class_weights: {len(class_weights)} for {self.name}, which needs one for each of {', '.join(names)}"
            )
        return ""

    @property
    def questions(self) -> dict[str, Answer]:
        """The same by name; the task's own is called ``QUESTION``."""
        return dict(zip([QUESTION, *(f.name for f in self.secondary_findings)], self.answers, strict=True))

    @property
    def form(self) -> InputSpec:
        """The shape of a network's input and output for this task."""
        return InputSpec(self.example_shape, self.answers, len(self.structures), self.exclusive_places)

    @property
    def exclusive_places(self) -> tuple[Group, ...]:
        """``exclusive`` by the structures' places in ``structures``."""
        places = {structure.name: place for place, structure in enumerate(self.structures)}
        return tuple(tuple(places[name] for name in group) for group in self.exclusive)

    def asks(self, outlines: bool) -> tuple[list[str], list[str]]:
        """Names of the secondary findings, and of the structures if the network outlines."""
        return [f.name for f in self.secondary_findings], [s.name for s in self.structures if outlines]

    def frames(self, number: int) -> tuple[int, ...]:
        """Which of a file's frames are used: the middles of equal parts. A single one is the middle of the clip, which
        is most likely to show what the clip was recorded for. Of frames that are read together only the first."""
        if self.moments:
            return (0,)
        taken = min(number, self.frames_per_clip)
        return tuple((2 * part + 1) * number // (2 * taken) for part in range(taken))

    def beside(self, number: int) -> tuple[int, ...]:
        """Which of a file's frames are read together with its first: its last, and those evenly between where there are
        more than two moments. None where it has fewer frames than there are moments."""
        apart = len(self.moments) - 1
        return tuple(part * (number - 1) // apart for part in range(1, apart + 1)) if 0 < apart < number else ()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, class_weights: tuple[float, ...] = ()) -> torch.Tensor:
        """Mean loss over the images of one patient, see ``tasks/losses.py``.

        Args:
            outputs: float tensor of shape (images, outputs): logits of the questions, then of the structures' pixels,
                where the network outlines.
            targets: shape (images, questions), or with the pixels behind; NaN where unknown.
            class_weights: of each answer to the task's own question; none: they all count the same.

        Returns:
            A scalar tensor.
        """
        from tasks.losses import loss_of

        return loss_of(self.form, outputs, targets, class_weights)

    def draw_phantom(self, folder: Path, hospital: PhantomHospital, seed: int) -> None:
        """Write a phantom hospital's examinations as DICOM files into a folder, with ``labels.csv`` in it.

        Args:
            folder: ``draw`` of ``tasks/phantoms/NAME/phantom.py`` says what is written into it.
            hospital: its patients, and the look of its images.
            seed: the same hospital and seed give the same bytes.

        Raises:
            NoPhantoms: they are not installed, or there are none.
            OSError: the folder cannot be written or belongs to somebody else.
        """
        if self.name in _archives():
            raise NoPhantoms(f"{self.name} has no phantoms; set experiment=medmnist archive=FILE")
        try:
            phantom = import_module(f"tasks.phantoms.{self.name}.phantom")
        except ModuleNotFoundError as error:
            if not f"{error.name}.".startswith("tasks.phantoms."):
                raise
            raise NoPhantoms(
                f"phantoms of {self.name} are not installed: pip install 'consilium-fl[phantoms]' -c constraints.txt, "
                "or use a checkout of the source"
            ) from error
        phantom.draw(folder, hospital, seed)


class NoPhantoms(ValueError):
    """``tasks/phantoms/`` is not installed, which no hospital needs; the message says how to install it."""


class UnknownTask(LookupError):
    """No folder of ``tasks/`` has that name."""


_ARCHIVES = "medmnist"
"""The folder that has a task for each archive of MedMNIST."""
_NO_TASKS = ("imaging", "machine", _ARCHIVES, "metrics", "models", "phantoms", "protocol", "template")


def names() -> list[str]:
    """The names of all tasks, sorted."""
    return sorted({*clinical(), *_archives()})


def clinical() -> list[str]:
    """The names of those that hospitals can answer from their own images, sorted: each has a folder of its name."""
    return list(_folders(tuple(import_module("tasks").__path__)))


def folder_of(name: str) -> str:
    """The folder of ``tasks/`` that a task of this release is in."""
    return _ARCHIVES if name in _archives() else name


def _archives() -> Iterable[str]:
    found: Iterable[str] = import_module(f"tasks.{_ARCHIVES}.table").ARCHIVES
    return found


@lru_cache
def _folders(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(m.name for m in iter_modules(path) if m.ispkg and m.name not in _NO_TASKS))


def get(name: str) -> Task:
    """The task of that name.

    >>> task = get("breast_ultrasound")
    >>> task.question
    'Does this breast ultrasound image show a malignant lesion?'
    >>> picture = Picture(np.full((300, 400), 0.5, np.float32))
    >>> task.read_example(picture).shape == task.example_shape
    True

    Raises:
        UnknownTask: there is none; the message lists those that exist. The name is looked up among the folders of
            this package before anything is imported, so a name from the network cannot import other code.
        TypeError: the folder does not define the task that it is named after.
    """
    if name not in names():
        raise UnknownTask(f"there is no task {name!r}; tasks are: {', '.join(names())}")
    if name in _archives():
        found: Task = import_module(f"tasks.{_ARCHIVES}.questions").TASKS[name]
        return found
    task = getattr(import_module(f"tasks.{name}"), "TASK", None)
    if not isinstance(task, Task) or task.name != name:
        raise TypeError(f"tasks/{name}/__init__.py must define TASK = Task(name={name!r}, ...)")
    return task
