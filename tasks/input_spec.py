"""The shape of a network's input and output, from its task.

Tested in ``tests/tasks/models/test_registry.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.answers import YES_OR_NO, Answer
from tasks.exclusion import Group, marked

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class InputSpec:
    """What goes into a task's network, and what may come out.

    Attributes:
        shape: of one input, (channels, rows, columns) or (channels, slices, rows, columns).
        answers: of which kind the answer to each question is, the task's own first.
        structures: number of structures to be outlined.
        exclusive: groups of them, by place, that exclude each other.
    """

    shape: tuple[int, ...]
    answers: tuple[Answer, ...] = (YES_OR_NO,)
    structures: int = 0
    exclusive: tuple[Group, ...] = ()

    @property
    def outputs(self) -> int:
        """How many outputs answer the questions; those of structures come behind them."""
        return sum(answer.outputs for answer in self.answers)

    def told(self, outputs: Tensor) -> list[Tensor]:
        """What is told of each question, shapes (images, ``Answer.told_numbers``), from a network's outputs, shape
        (images, ``outputs`` or more)."""
        return told_of(self.answers, outputs)

    def marked(self, outputs: Tensor) -> Tensor:
        """What is marked, bool (images, structures, *shape[1:]), from the outputs of a network that outlines."""
        return marked(
            outputs[:, self.outputs :].reshape(len(outputs), self.structures, *self.shape[1:]), self.exclusive
        )

    def scores(self, outputs: Tensor) -> NDArray[np.float64]:
        """The score of the event of the task's own question for each image, shape (images,), likewise."""
        told = self.answers[0].told(outputs[:, : self.answers[0].outputs])
        return self.answers[0].event_score(told.detach().numpy().astype(np.float64))


def told_of(answers: tuple[Answer, ...], outputs: Tensor) -> list[Tensor]:
    """What is told of each of some questions from outputs that begin with theirs, see ``InputSpec.told``."""
    ends = accumulate(answer.outputs for answer in answers)
    return [answer.told(outputs[:, end - answer.outputs : end]) for answer, end in zip(answers, ends, strict=True)]
