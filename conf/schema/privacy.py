"""What patients are promised.

Tested in ``tests/server/strategy/test_local_sgd.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator

from conf.schema.constraints import Count, Epsilon, Measure, NotNegative, Part, SettingsGroup, one_of


def _infinite_is_none(value: object) -> object:
    """``inf`` is what a sweep writes for "without"."""
    return None if value == math.inf else value


@dataclass
class Privacy(SettingsGroup):
    """What the researcher asks for; each hospital's own caps win where they are stricter."""

    epsilon: Annotated[Epsilon | None, BeforeValidator(_infinite_is_none)] = 8.0
    """Privacy loss of a training patient over the whole study; ``null`` asks for none, which a site must allow."""
    delta: Part = 1e-4
    """Probability with which the promise of ``epsilon`` may fail; keep it below one over the number of patients."""
    clip_norm: Measure = 0.25
    """Bound on the L2 norm of one patient's gradient."""
    noise: Annotated[str, one_of("own", "shared")] = "own"
    """``own``: each hospital adds the whole noise. ``shared``: a round is one step, only the sum of all hospitals'
    gradients is ever seen, and each adds a part of the noise: that of one study of all patients."""
    colluding: Count = 1
    """With shared noise: so many hospitals may conspire with the coordinator without weakening ``epsilon``."""
    least_hospitals: Count = 3
    """With shared noise: a sum of fewer hospitals is never made."""
    spare: NotNegative = 0.2
    """With shared noise: so many more sums than are needed are planned and paid for, as a fraction, because one that a
    hospital leaves unfinished is charged and made again."""
