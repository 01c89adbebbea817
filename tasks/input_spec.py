"""The shape of a network's input and output, from its task.

Tested in ``tests/tasks/models/test_registry.py``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """What goes into a task's network, and what may come out.

    Attributes:
        shape: of one input, (channels, rows, columns) or (channels, slices, rows, columns).
        findings: number of yes-or-no questions, the task's own first.
        structures: number of structures to be outlined.
    """

    shape: tuple[int, ...]
    findings: int = 1
    structures: int = 0
