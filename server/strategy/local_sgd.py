"""What the server may know of a hospital's training without asking: it follows from the order and from public numbers.

A hospital takes K steps of SGD with learning rate eta and momentum mu, as ``client/training/train.py`` does:

    v_t = mu v_{t-1} + g_t,   x_t = x_{t-1} - eta v_t      so
    update = - eta sum_t r_t g_t,   r_t = 1 + mu + ... + mu^(K-t)

Each g_t is a sum of patient gradients, clipped to C and noised with standard deviation sigma C, divided by the expected
number of patients q N, where N is the hospital's public size.
"""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from conf.schema import Privacy, Training
from tasks.study import TrainingTerms

_ROUNDED = 1.5
"""A size declared to one significant digit may stand for almost this many times as many patients."""


def responses(steps: int, momentum: float) -> NDArray[np.float64]:
    """r_t of each step: how far, in units of the learning rate, one unit of gradient at that step moves the model."""
    return np.cumsum(momentum ** np.arange(steps))[::-1]


def local_move(training: Training, round: int, rounds: int) -> float:
    """How far one unit of constant gradient moves a hospital's model in a round."""
    rate = TrainingTerms(**asdict(training)).rate_in(round, rounds)
    return rate * float(responses(training.steps, training.momentum).sum())


def expected_patients(training: Training, public_size: int) -> float:
    """What a hospital divides the sum of its sampled patients' gradients by."""
    return max(1.0, training.sample_rate * public_size)


def noise_std(training: Training, privacy: Privacy, noise_multiplier: float, public_size: int) -> float:
    """Standard deviation of the privacy noise in each coordinate of an update.

    Later gradients are taken at points that earlier noise has moved; that they answer to it is neglected, and so is
    weight decay.
    """
    each = noise_multiplier * privacy.clip_norm / expected_patients(training, public_size)
    return float(training.learning_rate * each * np.linalg.norm(responses(training.steps, training.momentum)))


def honest_norm(
    training: Training,
    privacy: Privacy,
    noise_multiplier: float,
    public_size: int,
    dimension: int,
    failure: float = 1e-6,
) -> float:
    """A length that the update of a hospital that follows the order exceeds with probability ``failure`` at most.

    It needs no look at any update: clipped patients can push only so far (Bernstein's inequality for how many are
    sampled) and the length of Gaussian noise is concentrated (Boucheron et al., 2013, theorem 5.6). Usual updates are
    several times shorter.

    Args:
        dimension: number of trainable values.

    Raises:
        ValueError: with weight decay, whose pull depends on the model; without noise nothing is clipped.
    """
    if training.weight_decay:
        raise ValueError("the pull of weight decay depends on the model, so this bound needs training.weight_decay=0")
    if not noise_multiplier > 0:
        raise ValueError("without noise a hospital clips no patient, so its update has no bound")
    r, q, log = responses(training.steps, training.momentum), training.sample_rate, math.log(2 / failure)
    patients = _ROUNDED * public_size
    expected, variance = q * patients * r.sum(), q * (1 - q) * patients * np.square(r).sum()
    sampled = min(expected + math.sqrt(2 * variance * log) + r.max() * log / 3, patients * r.sum())
    signal = training.learning_rate * privacy.clip_norm * sampled / expected_patients(training, public_size)
    noise = noise_std(training, privacy, noise_multiplier, public_size) * (math.sqrt(dimension) + math.sqrt(2 * log))
    return float(signal + noise)
