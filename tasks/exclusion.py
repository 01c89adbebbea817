"""Structures that exclude each other: at any place there is one of them at most.

They share a softmax with the background, whose logit is 0, so that a network has as many outputs as without exclusion.
What is marked of them is the most probable, if it is more probable than the background; of other structures whatever is
more probable than not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Group = tuple[int, ...]
"""Places of structures that exclude each other among all of a task."""


def marked(logits: Tensor, groups: Sequence[Group]) -> Tensor:
    """What is marked, bool (images, structures, ...), from logits of that shape; nothing where a logit is no number."""
    found = logits > 0
    for group in groups:
        places = list(group)
        own = logits[:, places].nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        most = own == own.amax(dim=1, keepdim=True)
        found[:, places] &= most & (most.cumsum(dim=1) == 1)
    return found


def shares(masks: Tensor, group: Group) -> Tensor:
    """How much of each place belongs to each structure of a group, float (images, structures of the group, ...).

    Args:
        masks: 0 or 1, float (images, structures, ...). Where a mask was moved or resized two may cover one half of a
            pixel each, and both be marked.
    """
    own = masks[:, list(group)]
    divided: Tensor = own / own.sum(dim=1, keepdim=True).clamp(min=1)
    return divided


def with_background(logits: Tensor, group: Group) -> Tensor:
    """The logits of a group, those of the background before them: (images, 1 + structures of the group, ...)."""
    import torch  # a task's declaration is read where no network is

    own = logits[:, list(group)]
    return torch.cat([torch.zeros_like(own[:, :1]), own], dim=1)


def contradicted(masks: NDArray[np.bool_], groups: Sequence[Group]) -> int:
    """At how many places of masks (structures, ...) two structures of one group are marked."""
    return sum(int((masks[list(group)].sum(axis=0) > 1).sum()) for group in groups)


def first_of_each(masks: NDArray[np.bool_], groups: Sequence[Group]) -> NDArray[np.bool_]:
    """Masks (structures, ...) that exclude each other after they were resized, where each of two may cover one half of
    a pixel: it belongs to the first of them in the task's order."""
    apart = masks.copy()
    for group in groups:
        places = list(group)
        apart[places] &= masks[places].cumsum(axis=0) == 1
    return apart


def sentences(exclusive: Sequence[Sequence[str]]) -> list[str]:
    """What a reader of outlines must know of groups of structures, by name: a sentence each."""
    named = [[name.replace("_", " ") for name in group] for group in exclusive]
    return [
        f"{', '.join(names[:-1])} and {names[-1]} exclude each other: the model marks a place as one of them at most."
        for names in named
    ]


def problems_of(exclusive: Sequence[Sequence[str]], structures: Sequence[str]) -> list[str]:
    """Why groups of names cannot exclude each other; empty if they can."""
    problems = []
    named = [name for group in exclusive for name in group]
    if unknown := [name for name in named if name not in structures]:
        problems.append(f"exclusive: {', '.join(unknown)} is no structure of the task")
    if len(set(named)) < len(named):
        problems.append("exclusive: a structure belongs to one group, once")
    if any(len(group) < 2 for group in exclusive):
        problems.append("exclusive: a group needs two structures or more")
    return problems
