"""What a hospital does within one round.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.schema.constraints import (
    CountOrNone,
    Decay,
    Decays,
    Images,
    Measure,
    Multiple,
    Optimizer,
    SettingsGroup,
    Share,
    ShareOrNone,
    Steps,
    Weight,
)


@dataclass
class TrainingSettings(SettingsGroup):
    """What a hospital does within one round."""

    steps: Steps = 10
    """Optimiser steps a round."""
    learning_rate: Measure = 8.0
    """Step size of SGD. Clipped patient gradients are short, so a linear head wants a large one."""
    momentum: Decay = 0.0
    """Momentum of SGD within one round; the next round starts without any."""
    weight_decay: ShareOrNone = 0.0
    """L2 penalty of SGD, applied to the noised gradient."""
    sample_rate: Share = 0.4
    """Probability with which each training patient joins a step (Poisson sampling)."""
    final_rate: Share = 1.0
    """Fraction of the learning rate that is left in the last round; in between it falls geometrically."""
    final_noise: Multiple = 1.0
    """Noise of a hospital's last turn as a multiple of that of its first; in between it changes geometrically, in five
    steps at most. The study's epsilon is the same: below 1 more of it is spent late, above 1 early."""
    images_per_patient: Images = 4
    """How many images of a sampled patient are drawn; the patient's loss is their mean."""
    optimizer: Optimizer = "sgd"
    """``adam``: each value moves by about the learning rate, whatever the size of its noised gradient (AdamW; its
    moments begin anew each round). It works on what is private already, so it costs nothing. For deep networks."""
    clip_always: bool = False
    """Clip patients' gradients also where there is no noise, as with privacy=none and in the arms, so that a learning
    rate means the same there."""
    warm_up: CountOrNone = 0
    """Rounds over which the learning rate rises in equal parts."""
    decay: Decays = "geometric"
    """How the learning rate falls to ``final_rate`` of it: ``geometric``, or ``cosine``."""
    class_weights: list[Weight] = field(default_factory=list)
    """Weight of each answer to the task's question in the loss, in the order of its classes or grades, above 0 and 1 at
    most; none: they all count the same. Public numbers, such as from a published prevalence: what hospitals have is
    not known to the server."""
