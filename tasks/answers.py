"""The kinds of answer that a question may have: yes or no, one of several classes, a grade, or a measured value.

Every question names an event, the yes-or-no reading of its answer by which a clinician acts. Its score, a number in
[0, 1] that rises with it, is what all figures of yes-or-no questions are about, so that models are selected, compared
and judged in the same way whatever the kind.

A truth is one number: 0 or 1, the number of a class or grade in the order of their names, or a value in the declared
unit; NaN where nobody knows. What a network tells of an image is a probability, one of each class or grade, or a value.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.codes import Code

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["binary", "classes", "grade", "measure"]
KINDS: tuple[Kind, ...] = ("binary", "classes", "grade", "measure")
STEEPNESS = 16.0
"""Outputs of a measured value from the middle of its range to an end. The loss in half-ranges, times this, has slopes
up to 1, as clipping expects them, and curves by 1/16 in the output: with a learning rate of 16 or less a linear model
on features of norm 1 with a bias does not overshoot. Clipped gradients bear more: ``conf/training/answers.yaml``."""
FEWEST, MOST = 3, 20
"""Classes or grades of a question; two are a yes-or-no question."""
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.DOTALL)
_DIGITS = 9
"""Significant digits of a converted value: the same length in two units is the same number."""
_NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


class NoSuchAnswer(ValueError):
    """A text is none of the answers to a question; the message says which there are."""


@dataclass(frozen=True)
class Binary:
    """Yes or no. The event is yes."""

    kind: ClassVar[Kind] = "binary"
    outputs: ClassVar[int] = 1
    told_numbers: ClassVar[int] = 1
    cells: ClassVar[int] = 2

    def told(self, outputs: Tensor) -> Tensor:
        """The probability of yes, shape (..., 1), from logits of that shape; 0.5 where a logit is no number."""
        return outputs.sigmoid().nan_to_num(nan=0.5)

    def answer(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 or 1, shape (...), from what is told, shape (..., 1)."""
        return (np.asarray(told)[..., 0] >= 0.5).astype(np.float64)

    def event_score(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability itself, shape (...)."""
        return np.asarray(told)[..., 0]

    def event_of(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """The truth itself: 0, 1 or NaN."""
        return np.asarray(truth, np.float64)

    def of_patient(self, truths: NDArray[Any]) -> float:
        """Yes if any image's answer is yes; NaN where no image's is known."""
        return _of_patient(truths, "highest")

    def read(self, text: str) -> float:
        """The truth that a cell of a table says: 0 or 1.

        Raises:
            NoSuchAnswer: it says something else.
        """
        if (found := _NUMBER.fullmatch(text.strip())) and not found[2] and float(found[1]) in (0, 1):
            return float(found[1])  # programs that know missing values write 1.0
        raise NoSuchAnswer(self.permitted)

    @property
    def permitted(self) -> str:
        """What a cell of a table may say."""
        return "0 or 1"

    def said(self, truth: float) -> str:
        """A truth in words."""
        return "yes" if truth else "no"


@dataclass(frozen=True)
class Classes:
    """One of several classes that exclude each other.

    Attributes:
        names: 3 to 20, in lower-case letters, digits and ``_``. A patient with images of several counts as the last of
            them in this order, so that of which it matters most to know comes last.
        event: those that are the event.
        codes: of each class in a DICOM report.
    """

    names: tuple[str, ...]
    event: tuple[str, ...]
    codes: tuple[Code, ...]
    kind: ClassVar[Kind] = "classes"

    def __post_init__(self) -> None:
        """Refuse what is no question."""
        problems = [*_wrong_names(self.names, self.codes)]
        if not self.event or not set(self.event) < set(self.names):
            problems.append(f"event: must be some of {', '.join(self.names)}, and not all")
        _refuse(problems)

    @property
    def outputs(self) -> int:
        """Logits of one image: one a class."""
        return len(self.names)

    @property
    def told_numbers(self) -> int:
        """Numbers told of one image: the probability of each class."""
        return len(self.names)

    @property
    def cells(self) -> int:
        """Different answers that a table tells apart."""
        return len(self.names)

    def told(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes, shape (..., classes), from logits of that shape; equal ones where a logit is no
        number."""
        return outputs.softmax(dim=-1).nan_to_num(nan=1 / len(self.names))

    def answer(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number of the most probable class, shape (...); the first of several."""
        most: NDArray[np.float64] = np.argmax(told, axis=-1).astype(np.float64)
        return most

    def event_score(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of the event, shape (...)."""
        total: NDArray[np.float64] = np.asarray(told)[..., self._event_numbers()].sum(axis=-1)
        return np.clip(total, 0.0, 1.0)

    def event_of(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """1 where the class is of the event, 0 where it is not, NaN where it is not known."""
        return _where_known(truth, np.isin(truth, self._event_numbers()))

    def of_patient(self, truths: NDArray[Any]) -> float:
        """The last class in the order of names that an image has; NaN where no image's is known."""
        return _of_patient(truths, "highest")

    def read(self, text: str) -> float:
        """The number of the class that a cell of a table names.

        Raises:
            NoSuchAnswer: it names none. Numbers are refused: some count classes from 0 and some from 1.
        """
        return _number_of(text, self.names, self.permitted)

    @property
    def permitted(self) -> str:
        """What a cell of a table may say."""
        return f"one of {', '.join(self.names)}"

    def said(self, truth: float) -> str:
        """The name of a class."""
        return self.names[int(truth)]

    def _event_numbers(self) -> list[int]:
        return [self.names.index(name) for name in self.event]


@dataclass(frozen=True)
class Grade:
    """One of several grades in order.

    Learned as one yes-or-no question for each threshold, whether the grade is above it, each with weights of its own
    (E. Frank and M. Hall, ECML 2001; Z. Niu et al., CVPR 2016). Their probabilities may contradict each other, so each
    is taken to be no larger than those of the thresholds below it. CORAL (W. Cao, V. Mirjalili, S. Raschka, Pattern
    Recognition Letters 140:325, 2020) rules contradictions out by one vector of weights for all thresholds; that would
    not be a linear model with one output a threshold, which every network here ends with.

    Attributes:
        names: 3 to 20 from lowest to highest, in lower-case letters, digits and ``_``.
        event: the event is this grade or a higher one.
        codes: of each grade in a DICOM report.
        first: the number that clinicians write for the first grade.
        several: which counts of a patient's images with different grades.
    """

    names: tuple[str, ...]
    event: str
    codes: tuple[Code, ...]
    first: int = 0
    several: Literal["highest", "lowest"] = "highest"
    kind: ClassVar[Kind] = "grade"

    def __post_init__(self) -> None:
        """Refuse what is no question."""
        problems = [*_wrong_names(self.names, self.codes)]
        if self.event not in self.names[1:]:
            problems.append(f"event: must be one of {', '.join(self.names[1:])}, of which a grade is below")
        _refuse(problems)

    @property
    def outputs(self) -> int:
        """Logits of one image: one a threshold between two grades."""
        return len(self.names) - 1

    @property
    def told_numbers(self) -> int:
        """Numbers told of one image: the probability of each grade."""
        return len(self.names)

    @property
    def cells(self) -> int:
        """Different answers that a table tells apart."""
        return len(self.names)

    def told(self, outputs: Tensor) -> Tensor:
        """Probabilities of the grades, shape (..., grades), from the thresholds' logits, shape (..., grades - 1); a
        threshold's is 0.5 where its logit is no number."""
        above = outputs.sigmoid().nan_to_num(nan=0.5).cummin(dim=-1).values
        none, every = above.new_zeros(*above.shape[:-1], 1), above.new_ones(*above.shape[:-1], 1)
        edges = _beside(every, above, none)
        return edges[..., :-1] - edges[..., 1:]

    def answer(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The number of the median grade, shape (...): the highest that is reached with probability 1/2 or more. It has
        the least expected error in grades."""
        below = np.cumsum(np.asarray(told, np.float64)[..., :-1], axis=-1)
        median: NDArray[np.float64] = (below <= 0.5).sum(axis=-1).astype(np.float64)
        return median

    def event_score(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of the event, shape (...)."""
        total: NDArray[np.float64] = np.asarray(told)[..., self.names.index(self.event) :].sum(axis=-1)
        return np.clip(total, 0.0, 1.0)

    def event_of(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """1 where the grade is of the event, 0 where it is below, NaN where it is not known."""
        return _where_known(truth, np.asarray(truth) >= self.names.index(self.event))

    def of_patient(self, truths: NDArray[Any]) -> float:
        """The highest or the lowest grade of an image, as declared; NaN where no image's is known."""
        return _of_patient(truths, self.several)

    def read(self, text: str) -> float:
        """The number of the grade, from 0, that a cell of a table names or numbers from ``first``.

        Raises:
            NoSuchAnswer: it names none.
        """
        if (found := _NUMBER.fullmatch(text.strip())) and not found[2]:
            number = float(found[1])
            if number.is_integer() and 0 <= number - self.first < len(self.names):
                return number - self.first
        return _number_of(text, self.names, self.permitted)

    @property
    def permitted(self) -> str:
        """What a cell of a table may say."""
        return f"{self.first} to {self.first + len(self.names) - 1} or one of {', '.join(self.names)}"

    def said(self, truth: float) -> str:
        """The name of a grade."""
        return self.names[int(truth)]


@dataclass(frozen=True)
class Measure:
    """A measured value.

    Attributes:
        code: of the quantity in a DICOM report.
        unit: its UCUM unit, such as ``Code("UCUM", "mm", "millimeter")``.
        low, high: the declared range. A truth beyond it is refused; nothing told is beyond it.
        event_above, event_below: one of them: the event is a value above it, or below it.
        units: other units in which a value may be written down, each with the factor by which it becomes ``unit``.
        several: which counts of a patient's images with different values.
    """

    code: Code
    unit: Code
    low: float
    high: float
    event_above: float | None = None
    event_below: float | None = None
    units: tuple[tuple[str, float], ...] = ()
    several: Literal["highest", "lowest", "mean"] = "mean"
    kind: ClassVar[Kind] = "measure"
    outputs: ClassVar[int] = 1
    told_numbers: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuse what is no question."""
        problems = []
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            problems.append(f"low={self.low:g}, high={self.high:g}: must be finite, and low the smaller one")
        if (self.event_above is None) == (self.event_below is None):
            problems.append("event_above, event_below: one of them must be given")
        elif not self.low < self.threshold < self.high:
            problems.append(f"the event's threshold {self.threshold:g} must lie between low and high")
        if self.unit.scheme != "UCUM":
            problems.append(f"unit: must be a code of UCUM, not of {self.unit.scheme}")
        if wrong := [name for name, factor in self.units if not (math.isfinite(factor) and factor > 0)]:
            problems.append(f"units: the factor of {', '.join(wrong)} must be finite and positive")
        _refuse(problems)

    @property
    def threshold(self) -> float:
        """Beyond it a value is the event."""
        return self.event_below if self.event_above is None else self.event_above  # type: ignore[return-value]

    @property
    def middle(self) -> float:
        """Of the declared range."""
        return (self.low + self.high) / 2

    @property
    def half(self) -> float:
        """Half the width of the declared range."""
        return (self.high - self.low) / 2

    @property
    def scale(self) -> float:
        """What an output of 1 adds to the middle of the range, see ``STEEPNESS``."""
        return self.half / STEEPNESS

    def told(self, outputs: Tensor) -> Tensor:
        """Values within the declared range, shape (..., 1); its middle where an output is no number."""
        return (outputs.nan_to_num(nan=0.0) * self.scale + self.middle).clamp(self.low, self.high)

    def answer(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The value, shape (...)."""
        return np.asarray(told)[..., 0]

    def event_score(self, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 at the end of the range that is farthest from the event, 0.5 at its threshold, 1 at the other end, and
        linear in between. It is no probability."""
        ends = (self.low, self.threshold, self.high)
        scores = (0.0, 0.5, 1.0) if self.event_below is None else (1.0, 0.5, 0.0)
        return np.interp(np.asarray(told, np.float64)[..., 0], ends, scores)

    def event_of(self, truth: NDArray[Any]) -> NDArray[np.float64]:
        """1 where the value is beyond the threshold, 0 where it is not, NaN where it is not known."""
        value = np.asarray(truth)
        return _where_known(truth, value > self.threshold if self.event_below is None else value < self.threshold)

    def of_patient(self, truths: NDArray[Any]) -> float:
        """The mean, highest or lowest value of a patient's images, as declared; NaN where no image's is known."""
        return _of_patient(truths, self.several)

    def read(self, text: str, unit: str = "") -> float:
        """The value in ``unit`` that a cell of a table says: a number, with its unit behind it or in a cell of its own,
        or without one.

        Raises:
            NoSuchAnswer: it is no number, its unit is none of those known, or it lies beyond the declared range.
        """
        found, own = _NUMBER.fullmatch(text.strip()), self.unit.value
        if found is None:
            raise NoSuchAnswer(self.permitted)
        known = {own: 1.0, **dict(self.units)}
        written = {each for each in (found[2].strip(), unit.strip()) if each}
        if len(written) > 1 or not written <= known.keys():
            raise NoSuchAnswer(self.permitted)
        value = float(f"{float(found[1]) * known[written.pop() if written else own]:.{_DIGITS}g}")
        if not self.low <= value <= self.high:
            raise NoSuchAnswer(f"{self.permitted}; it is {self.said(value)}")
        return value

    @property
    def permitted(self) -> str:
        """What a cell of a table may say."""
        units = [self.unit.value, *(name for name, _ in self.units)]
        more = f", or with its unit, one of {', '.join(units)}" if self.units else ""
        return f"a number in {units[0]}, {self.low:g} to {self.high:g}{more}"

    def said(self, truth: float) -> str:
        """A value with its unit."""
        return f"{truth:g} {self.unit.value}"


Answer = Binary | Classes | Grade | Measure
YES_OR_NO = Binary()


def _beside(every: Tensor, above: Tensor, none: Tensor) -> Tensor:
    import torch  # a task's declaration is read where no network is

    return torch.cat([every, above, none], dim=-1)


def _where_known(truth: NDArray[Any], positive: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(np.isnan(np.asarray(truth, np.float64)), math.nan, positive.astype(np.float64))


def _of_patient(truths: NDArray[Any], several: Literal["highest", "lowest", "mean"]) -> float:
    known = np.asarray(truths, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return math.nan
    return float(known.mean() if several == "mean" else known.max() if several == "highest" else known.min())


def _number_of(text: str, names: tuple[str, ...], permitted: str) -> float:
    written = text.strip().casefold().replace(" ", "_")
    if written not in names:
        raise NoSuchAnswer(permitted)
    return float(names.index(written))


def _wrong_names(names: tuple[str, ...], codes: tuple[Code, ...]) -> list[str]:
    problems = []
    if not FEWEST <= len(names) <= MOST:
        problems.append(f"names: {len(names)} of them; use {FEWEST} to {MOST}")
    if len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
        problems.append("names: each must be another one, of lower-case letters, digits and single underscores")
    if len(codes) != len(names):
        problems.append(f"codes: {len(codes)} for {len(names)} names; each needs one")
    return problems


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))
