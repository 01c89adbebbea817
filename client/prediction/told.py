"""What a model tells of questions that ask for more than yes or no: a class, a grade or a measured value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.answers import Answer, Binary, Classes, Grade, Measure
from tasks.codes import Code
from tasks.machine.language import number, say
from tasks.task import QUESTION, Task

_DIGITS = 4
"""Of a measured value; further ones would be the network's and not the image's."""


@dataclass(frozen=True)
class Told:
    """What is told of one image, or of several together, by question.

    Attributes:
        answers: of which kind each answer is; only questions that ask for more than yes or no.
        numbers: by question, float64 of shape (``Answer.told_numbers``,).
    """

    answers: Mapping[str, Answer]
    numbers: Mapping[str, NDArray[np.float64]]

    @property
    def score(self) -> float | None:
        """Of the event of the task's own question; ``None`` where that is a yes-or-no question."""
        answer = self.answers.get(QUESTION)
        return None if answer is None else float(answer.event_score(self.numbers[QUESTION]))

    def value(self, question: str) -> float:
        """A measured value, in its unit."""
        return float(f"{float(self.answers[question].answer(self.numbers[question])):.{_DIGITS}g}")

    def code(self, question: str) -> Code:
        """Of the class or grade that is told."""
        answer = self.answers[question]
        if not isinstance(answer, Classes | Grade):
            raise TypeError(f"{question} asks for no class and no grade")
        return answer.codes[self._number(question)]

    def words(self, question: str) -> str:
        """For a person: ``benign, 62 %``, ``mild (2)`` or ``54.3 mm``."""
        answer = self.answers[question]
        if isinstance(answer, Measure):
            return f"{number(self.value(question))} {answer.unit.value}"
        if not isinstance(answer, Classes | Grade):
            raise TypeError(f"{question} is a yes-or-no question")
        told = self._number(question)
        name = say(answer.names[told].replace("_", " "))
        if isinstance(answer, Grade):
            return f"{name} ({answer.first + told})"
        return f"{name}, {number(100 * float(self.numbers[question][told]), '.0f')} %"

    def cell(self, question: str) -> str | float:
        """For a table: the name of a class or grade, or the number that was measured."""
        answer = self.answers[question]
        if isinstance(answer, Classes | Grade):
            return answer.names[self._number(question)]
        return self.value(question)

    def probabilities(self, question: str) -> list[float]:
        """Of each class or grade; none of a measured value."""
        answer = self.answers[question]
        return [float(p) for p in self.numbers[question]] if isinstance(answer, Classes | Grade) else []

    def _number(self, question: str) -> int:
        return int(self.answers[question].answer(self.numbers[question]))


def told_of(task: Task, outputs: Tensor) -> list[Told] | None:
    """What a network's outputs tell of each image; ``None`` where all questions are yes-or-no questions.

    Args:
        outputs: float32 of shape (images, outputs).
    """
    asked = questions(task)
    if not asked:
        return None
    told = zip(task.questions, task.form.told(outputs), strict=True)
    numbers = {name: each.detach().numpy().astype(np.float64) for name, each in told if name in asked}
    return [Told(asked, {name: each[n] for name, each in numbers.items()}) for n in range(len(outputs))]


def questions(task: Task) -> dict[str, Answer]:
    """The questions of a task that ask for more than yes or no, by name."""
    return {name: answer for name, answer in task.questions.items() if not isinstance(answer, Binary)}


def together(each: Sequence[Told]) -> Told:
    """Of several images, as a study's figures have it: the mean of what is told of each."""
    first = each[0]
    return Told(first.answers, {name: np.mean([told.numbers[name] for told in each], axis=0) for name in first.answers})


def named(question: str) -> str:
    """A question's name for a person."""
    return "answer" if question == QUESTION else question.replace("_", " ")


def columns(task: Task) -> Iterator[str]:
    """Headings of a table, for each question: of the image, of the patient, and each class's probability for the
    patient."""
    for name, answer in questions(task).items():
        unit = f" [{answer.unit.value}]" if isinstance(answer, Measure) else ""
        yield from (f"{named(name)} of the image{unit}", f"{named(name)} of the patient{unit}")
        if isinstance(answer, Classes | Grade):
            yield from (f"{named(name)}, probability of {each}" for each in answer.names)


def cells(image: Told, patient: Told) -> Iterator[str | float]:
    """What stands under ``columns``."""
    for name in image.answers:
        yield from (image.cell(name), patient.cell(name))
        yield from (f"{p:.6f}" for p in patient.probabilities(name))


def measures(task: Task) -> bool:
    """Whether the task's own question asks for a value: then its score is no probability."""
    return isinstance(task.answer, Measure)


def value_at(task: Task, score: float) -> str:
    """The measured value that has a score, for a person.

    Raises:
        TypeError: the task's own question asks for no value.
    """
    answer = task.answer
    if not isinstance(answer, Measure):
        raise TypeError(f"{task.name} asks for no value")
    values = np.array([answer.low, answer.threshold, answer.high])
    scores = answer.event_score(values[:, None])
    rising = np.argsort(scores)
    value = float(np.interp(score, scores[rising], values[rising]))
    return f"{number(value, f'.{_DIGITS}g')} {answer.unit.value}"
