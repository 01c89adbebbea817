"""What is measured, and against what.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from conf.schema.constraints import (
    Bins,
    Count,
    CountOrNone,
    Epsilon,
    NotNegative,
    Part,
    Positive,
    SettingsGroup,
    Share,
    one_of,
)

EXACT_BINS = 1024
"""Bins of a histogram without noise, fine enough to keep patients apart. The comparison arms use as many."""
FINE_BINS = 128
"""From so many equally wide bins on, a score need not be looked for first."""
EXACT_PAIRED_BINS, NOISED_PAIRED_BINS = 32, 4
"""Bins a model of a joint histogram of two models' scores, without noise and with it; ``tasks/metrics/paired.py`` says
why so few."""

Arm = Annotated[str, one_of("local", "pooled", "shuffled")]
Attribute = Annotated[str, one_of("sex", "age", "vendor")]


@dataclass
class Gate(SettingsGroup):
    """What every hospital's figures must reach before a model is called accepted in the registry. It is the lower limit
    of the 95 % interval that must reach it, and a hospital without a figure has not. ``null`` asks for nothing."""

    auc: Part | None = None
    """Area under the ROC curve."""
    sensitivity: Part | None = None
    """At the threshold with 90 % specificity on all validation patients together."""
    specificity: Part | None = None
    """At the same threshold. Since that is chosen for its specificity on all patients together, half of equal hospitals
    lie below it by chance. So the lower limit on all patients must reach this number, and no hospital's upper limit may
    lie below it."""
    macro_auc: Part | None = None
    """Of a task that asks for classes: the mean AUC of each against all others."""
    accuracy: Part | None = None
    """Of a task that asks for classes or a grade: the fraction that is told rightly."""
    kappa: Part | None = None
    """Of a task that asks for a grade: Cohen's kappa with quadratic weights."""
    mean_error: Positive | None = None
    """Of a task that asks for a grade or a measured value: the mean absolute error, in grades or in the task's unit. It
    is the upper limit that must not lie above it."""


@dataclass
class Evaluation(SettingsGroup):
    """What is measured, and against what."""

    every: Count | None = None
    """Evaluate the shared model every so many rounds, and always after the last. ``null``: every round, or with
    ``epsilon`` after the last alone, since each evaluation takes its share and nobody decides by the others."""
    epsilon: Epsilon | None = None
    """Privacy loss of a validation patient over the study; ``null`` asks for exact figures, which a real hospital
    refuses and a simulated one allows."""
    bins: Bins = EXACT_BINS
    """Bins of a score histogram; a noised one wants few (8 to 16), an exact one many."""
    edges: Annotated[str, one_of("released", "equal")] = "released"
    """Where few bins (fewer than 128) lie. ``released``: one first look at where all hospitals' scores lie, for a ninth
    of a histogram's privacy, then bins that hold about equally many patients; ``equal``: equally wide bins, which lose
    much where scores crowd."""
    uninformative: Annotated[str, one_of("refuse", "allow")] = "refuse"
    """A study at enrolled hospitals whose noise would probably hide the validation patients of every one, so that no
    hospital has an AUC: ``refuse`` it before it spends anything, or ``allow`` it."""
    subgroups: list[Attribute] = field(default_factory=list)
    """Attributes by which the last evaluation is told apart as well: ``sex``, ``age``, ``vendor``. Each is one more
    histogram, and so one more share of ``epsilon``."""
    pooled_only: bool = False
    """Only figures of all hospitals' patients together: histograms are secure sums with one noise for all, set by
    ``privacy.colluding``, ``least_hospitals`` and ``spare``. No hospital has figures of its own then."""
    arms: list[Arm] = field(default_factory=lambda: ["local", "pooled", "shuffled"])
    """What the federated model is compared with. ``local``: each hospital alone; ``pooled``: all patients in one
    place; ``shuffled``: the same with labels that were dealt out at random, which should learn nothing. All train
    without noise, and only in simulation."""
    paired: bool = True
    """With the arm ``local``: compare each hospital's own model with the federated one on the same patients, which
    tells a difference much more sharply than two figures apart. It is one more histogram, and with ``epsilon`` one more
    share of it; a hospital too small for that to pay is not asked."""
    matrix: CountOrNone = 0
    """With the arm ``local``: score every hospital's own model at every hospital. Set it to the number of
    hospitals: each is one more histogram at every hospital, and one more share of ``epsilon``; 0 asks for none."""
    repeats: Count = 1
    """Train the study, and the arm ``local``, so many times in all, from the same initial weights. The scatter is in
    the intervals and verdicts, which otherwise speak of the trained models alone. Only in simulation; 2 tell nothing
    yet, 6 and more are worth their time."""
    shufflings: Count = 5
    """How often the arm ``shuffled`` deals labels out and trains; its figures are the means, since one model alone
    strays far from 0.5 by chance."""
    patience: CountOrNone = 0
    """End the study after so many evaluations without a better mean AUC; 0 plays all rounds."""
    least_gain: NotNegative = 0.0
    """How much better than the best so far a mean AUC must be to count as better: at least what noise can feign."""
    deliver: Annotated[str, one_of("last", "best", "better")] = "last"
    """Which round's model is handed over: the ``last`` one's; the ``best`` one's, although the best of many noisy
    figures looks better than it is; or ``better``: the best one's only if the last is worse by more than chance
    explains, and otherwise the last one's."""
    gate: Gate = field(default_factory=Gate)
    """Chosen before the study begins: it is part of what makes this study this one."""
    arm_learning_rate: Positive | None = None
    """Learning rate of these arms, which have no noise to fear; ``null`` means the federated one."""
    arm_final_rate: Share | None = None
    """As ``training.final_rate``, for these arms; ``null`` means the federated one. At a high constant rate it is
    chance where the last step ends."""


def evaluated_every(evaluation: Evaluation, rounds: int) -> int:
    """Every how many rounds the model is evaluated."""
    if evaluation.every is not None:
        return evaluation.every
    return 1 if evaluation.epsilon is None else rounds


def looks_first(evaluation: Evaluation) -> bool:
    """Whether a first look finds where scores lie."""
    return evaluation.edges == "released" and evaluation.bins < FINE_BINS


def paired_bins(evaluation: Evaluation) -> int:
    """Bins a model of the joint histogram that leaves each hospital; 0 for none."""
    if not evaluation.paired or evaluation.pooled_only or "local" not in evaluation.arms:
        return 0
    return EXACT_PAIRED_BINS if evaluation.epsilon is None else NOISED_PAIRED_BINS
