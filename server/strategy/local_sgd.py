"""What the server can know about a hospital's training without asking: it follows from the order and public numbers.

A hospital takes K steps of SGD with learning rate eta and momentum mu, as ``client/training/train.py`` does. A pull of
strength p towards the model x_0 that it began with (FedProx, and weight decay but for a constant) is part of the step:

    v_t = mu v_{t-1} + g_t + p (x_{t-1} - x_0),   x_t = x_{t-1} - eta v_t      so
    update = - eta sum_t r_t g_t,   r_t = 1 + mu + ... + mu^(K-t) where p = 0

The system is linear, so each r_t is its response to one unit of gradient at step t, whatever p is. Each g_t is a sum of
patient gradients, clipped to C and noised with standard deviation sigma C, divided by the expected number of patients
q N, where N is the hospital's public size; and a constant, where there is one.

With Adam a step is eta m_t / sqrt(v_t), both weighted means of the gradients so far: m_t = sum_i a_ti g_i and
v_t = sum_i b_ti g_i^2. By Cauchy and Schwarz no value of a step is longer than eta sqrt(sum_i a_ti^2 / b_ti), whatever
the gradients are. Where noise is all there is, sqrt(v_t) is about its size, and the update is linear in the noise.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from conf.schema.training import TrainingSettings
from tasks.protocol.study import ADAM_BETAS, TrainingTerms

_ROUNDED = 1.5
"""A size declared to one significant digit may stand for almost this many times as many patients."""

AnyTraining = TrainingSettings | TrainingTerms


def responses(steps: int, momentum: float, pull: float = 0.0) -> NDArray[np.float64]:
    """r_t of each step: how far, in units of the learning rate, one unit of gradient at that step moves the model.

    Args:
        pull: the learning rate times p.
    """
    if not pull:
        return np.cumsum(momentum ** np.arange(steps))[::-1]
    moved, velocity, position = np.empty(steps), 0.0, 0.0
    for step in range(steps):
        velocity = momentum * velocity + (step == 0) - pull * position
        position += velocity
        moved[step] = position
    return moved[::-1]


def adam_reach(steps: int) -> NDArray[np.float64]:
    """How far Adam can move one value at each step, in units of the learning rate: of shape (steps,).

    a_ti = beta_1^(t-i) / A_t and b_ti = beta_2^(t-i) / B_t, so the sum is a geometric one, of beta_1^2 / beta_2.
    """
    first, second = ADAM_BETAS
    a, b, both = (_sums_of_powers(ratio, steps) for ratio in (first, second, first**2 / second))
    return np.sqrt(both * b) / a


def adam_responses(steps: int) -> NDArray[np.float64]:
    """How far each step's gradient moves the model where sqrt(v_t) is one at every step, in units of the learning rate:
    of shape (steps,)."""
    first = ADAM_BETAS[0]
    moved, later = np.empty(steps), 0.0
    for step, weight in reversed(list(enumerate(1 / _sums_of_powers(first, steps)))):
        moved[step] = later = weight + first * later
    return moved


def _sums_of_powers(ratio: float, steps: int) -> NDArray[np.float64]:
    """1 + ratio + ... + ratio^(t-1) for each t from 1: of shape (steps,)."""
    return np.cumsum(ratio ** np.arange(steps))


def local_move(training: AnyTraining, round: int, rounds: int) -> float:
    """How far one unit of constant gradient moves a hospital's model in a round."""
    rate = TrainingTerms(**asdict(training)).rate_in(round, rounds)
    return rate * float(responses(training.steps, training.momentum).sum())


def expected_patients(training: AnyTraining, public_size: int) -> float:
    """What a hospital divides the sum of its sampled patients' gradients by."""
    return max(1.0, training.sample_rate * public_size)


def noise_std(
    training: AnyTraining, clip_norm: float, noise_multiplier: float, public_size: int, strength: float = 0.0
) -> float:
    """Standard deviation of the privacy noise in each coordinate of an update, at the rate that ``training`` has.

    Later gradients are taken at points that earlier noise has moved; their response to it is neglected. With Adam it is
    that of an update which is nothing but noise, of any size.

    Args:
        strength: p beside weight decay, which ``training`` has.
    """
    if training.optimizer == "adam":
        return float(training.learning_rate * np.linalg.norm(adam_responses(training.steps)))
    r = _responses(training, strength)
    each = noise_multiplier * clip_norm / expected_patients(training, public_size)
    return float(training.learning_rate * each * np.linalg.norm(r))


@dataclass(frozen=True)
class Lengths:
    """Bounds on the two parts of an honest update: what patients and pulls contribute, and its noise."""

    signal: float
    noise: float

    @property
    def longest(self) -> float:
        """No honest update is longer, however its later gradients respond to earlier noise."""
        return self.signal + self.noise

    @property
    def usual(self) -> float:
        """None is longer whose signal does not follow its noise: in many dimensions the two are orthogonal."""
        return math.hypot(self.signal, self.noise)


def honest_lengths(
    training: AnyTraining,
    clip_norm: float,
    noise_multiplier: float,
    public_size: int,
    dimension: int,
    failure: float = 1e-6,
    *,
    strength: float = 0.0,
    constant: float = 0.0,
) -> Lengths:
    """Lengths that the parts of a hospital's update that follows the order exceed with probability ``failure`` at most.

    It needs no look at any update: clipped patients can push only so far (Bernstein's inequality for how many are
    sampled) and the length of Gaussian noise is concentrated (Boucheron et al., 2013, theorem 5.6). Usual updates are
    several times shorter.

    Args:
        training: with the round's learning rate and as many steps as train what is sent.
        dimension: number of values that are sent.
        strength: p beside weight decay, which ``training`` has.
        constant: most length of what is added to every gradient, weight decay of the model itself among it.

    Raises:
        ValueError: without noise nothing is clipped.
    """
    if not noise_multiplier > 0:
        raise ValueError("without noise a hospital clips no patient, so its update has no bound")
    if training.optimizer == "adam":
        reach = training.learning_rate * float(adam_reach(training.steps).sum()) * math.sqrt(dimension)
        decay = training.learning_rate * training.weight_decay * training.steps * reach
        return Lengths(reach + decay + training.learning_rate * training.steps * constant, 0.0)
    r, q, log = _responses(training, strength), training.sample_rate, math.log(2 / failure)
    a, patients = np.abs(r), _ROUNDED * public_size
    expected, variance = q * patients * a.sum(), q * (1 - q) * patients * np.square(a).sum()
    sampled = min(expected + math.sqrt(2 * variance * log) + a.max() * log / 3, patients * a.sum())
    signal = training.learning_rate * clip_norm * sampled / expected_patients(training, public_size)
    std = noise_std(training, clip_norm, noise_multiplier, public_size, strength)
    pulled = training.learning_rate * abs(float(r.sum())) * constant
    return Lengths(float(signal + pulled), std * (math.sqrt(dimension) + math.sqrt(2 * log)))


def _responses(training: AnyTraining, strength: float) -> NDArray[np.float64]:
    pull = training.learning_rate * (strength + training.weight_decay)
    return responses(training.steps, training.momentum, pull)
