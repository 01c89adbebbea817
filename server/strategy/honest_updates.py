"""How long an update can be that follows the study document: from public numbers and from no other update.

``local_sgd.honest_lengths`` has the bound for plain private steps. Here it is adapted to what a hospital really does:

    FedProx        a pull towards the model that the order brought: part of the linear system, exactly
    weight decay   a pull of the same kind, and a constant: the model itself, whose length is known
    SCAFFOLD       c - c_i is a constant in a round. c is known, and c_i is the mean gradient of an earlier round that
                   the hospital played (``scaffold.py``), so no longer than an honest one; with weight decay it is
                   not, and then there is no bound
    FedRep         what is sent is trained in the steps that are left beside the head's
    FedPer, FedBN  what is sent is a part of what was clipped: no longer than the whole
    Ditto          the personal model takes steps of its own and is not sent
    MR-MTL         what is sent is how far the hospital's model is from the mean: what its pull has left of the way
                   that it was away before, and a round's steps
    fewer bits     earlier rounding errors are added, and the present one; for int8 at most a third each in the worst
                   case, since a block of 1,024 values is rounded to 1/127 of its largest

The hospital reports its noise, and could misuse that: one that claims a hundred times as much may send an update a
hundred times as long. So an update counts with the length that is usual under the noise that the study's own privacy
needs, plus a margin; longer ones are shortened to it. That is no accusation: a hospital with a stricter cap needs more
noise. The needed noise is computed by the central limit theorem of Gaussian differential privacy (Bu et al., Harvard
Data Science Review 2020, section 3.3), which asks for rather more than the hospitals' exact composition does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from server.strategy.local_sgd import Lengths, honest_lengths, noise_std, responses
from server.strategy.strategy import norm
from tasks.protocol.study import LEAST_NOISE, MOST_NOISE, StudyDocument, TrainingTerms
from tasks.protocol.wire import CONTROL, TrainOrder

_FAILURE = 1e-9
_ROUNDING = {"float32": 0.0, "float16": 1e-3, "int8": 0.34}
"""The largest rounding error, as a fraction of an update's length."""
_ARITHMETIC = 1.001
_MARGIN, _LEAST = 1.25, 0.5
_MOST_EPSILON = 100.0


@dataclass(frozen=True)
class Honest:
    """What is public about the updates that answer an order.

    Attributes:
        model, control: lengths of the model and of SCAFFOLD's c.
        dimension: number of values that are sent.
    """

    document: StudyDocument
    round: int
    model: float
    control: float
    dimension: int

    @classmethod
    def of(cls, order: TrainOrder) -> Honest:
        """What follows from an order."""
        sent = {name: value for name, value in order.arrays.items() if not name.startswith(CONTROL)}
        control = {name: value for name, value in order.arrays.items() if name.startswith(CONTROL)}
        values = sum(value.size for value in sent.values())
        return cls(order.study, order.round, norm(sent), norm(control), values)

    def noise_std(self, size: int, noise: float, round: int) -> float:
        """Standard deviation of the noise in each value of an update of a round."""
        return noise_std(self._terms(round), self.document.privacy.clip_norm, noise, size, self._pull())

    def noise_length(self, size: int, noise: float, round: int) -> float:
        """The length of an update that is nothing but its noise."""
        return self.noise_std(size, noise, round) * math.sqrt(self.dimension)

    def longest(self, size: int, noise: float, round: int) -> float:
        """A length that no honest update of a round exceeds; infinite where there is no such length.

        Args:
            size: the hospital's public size.
            noise: its noise multiplier.
        """
        unknown_model = bool(self.document.training.weight_decay) and round != self.round  # late: another model
        if self.document.privacy.epsilon is None or unknown_model:
            return math.inf
        rounding = _ROUNDING[self.document.wire.up]
        with np.errstate(all="ignore"):  # a pull that makes training diverge overflows
            bound = self._lengths(size, noise, round).longest
            before = self._lengths(size, self._noise_before(noise), 1).longest if rounding else 0.0
            bound += rounding * (bound + before) if rounding else 0.0
        return _ARITHMETIC * bound if math.isfinite(bound) else math.inf

    def counted(self, size: int, noise: float, round: int) -> float:
        """The largest length with which an update counts; never more than ``longest``."""
        longest = self.longest(size, noise, round)
        if not math.isfinite(longest):
            return longest
        usual_noise = min(noise, needed_noise(self.document) * _MARGIN * self._spread())
        rounding = 1 + 2 * _ROUNDING[self.document.wire.up]
        return min(longest, _ARITHMETIC * rounding * self._lengths(size, usual_noise, round).usual)

    def weighed_noise(self, noise: float) -> float:
        """The noise that an update is weighed by: a hospital that claims to need hardly any gains nothing."""
        return max(noise, needed_noise(self.document) * _LEAST / self._spread())

    def _terms(self, round: int) -> TrainingTerms:
        training, method = self.document.training, self.document.method
        rate = training.rate_in(round, self.document.rounds)
        return replace(training, learning_rate=rate, steps=training.steps - method.head_steps)

    def _lengths(self, size: int, noise: float, round: int) -> Lengths:
        terms, clip = self._terms(round), self.document.privacy.clip_norm
        constant = terms.weight_decay * self.model
        if self.document.method.control_variates:
            constant += self.control + self._variate(size, noise, round)
        if self.document.method.towards_mean is not None:
            return self._away_from_mean(size, noise, constant, round)
        return honest_lengths(
            terms, clip, noise, size, self.dimension, failure=_FAILURE, strength=self._pull(), constant=constant
        )

    def _pull(self) -> float:
        """How strongly each step is drawn towards the model that the order brought."""
        method = self.document.method
        return method.proximal or method.towards_mean or 0.0

    def _away_from_mean(self, size: int, noise: float, constant: float, round: int) -> Lengths:
        """Of MR-MTL. u is how far a hospital's model is from the new mean, s how far it is from the mean that the round
        began with, which is sent, q what its steps add, left what the pull leaves of a distance after them:

            s' = left u + q', and as the u of all have mean 0, u' = s' - mean(s') = left u + q' - mean(q')

        so |u| <= (S + M) / (1 - left) where no q of this hospital is longer than S and none of any other longer than M,
        which is the smallest one's; and S + M for each round before. S / (1 - left) is largest where the rate is. All
        hospitals answer every round: one that was away while the mean moved far may be dropped when it is back, once.
        """
        pull, clip = self._pull(), self.document.privacy.clip_norm
        others = max(noise, needed_noise(self.document) * _MARGIN)

        def steps(terms: TrainingTerms, noise: float, size: int) -> Lengths:
            return honest_lengths(
                terms, clip, noise, size, self.dimension, failure=_FAILURE, strength=pull, constant=constant
            )

        def left(terms: TrainingTerms) -> float:
            back = terms.learning_rate * (pull + terms.weight_decay)
            step = np.array([[1 - back, -terms.momentum], [back, terms.momentum]])  # of distance and velocity
            return float(abs(np.linalg.matrix_power(step, terms.steps)[0, 0]))

        now, highest = self._terms(round), replace(self._terms(1), learning_rate=self.document.training.learning_rate)
        each = steps(highest, self._noise_before(noise), size).longest
        smallest = min([size, *self.document.sizes.values()])
        rounded = 1 + _ROUNDING[self.document.wire.up]
        each += rounded * steps(highest, self._noise_before(others), smallest).longest
        away = min((round - 1) * each, each / (1 - left(highest)) if left(highest) < 1 else math.inf)
        lengths = steps(now, noise, size)
        return Lengths(lengths.signal + left(now) * away, lengths.noise)

    def _variate(self, size: int, noise: float, round: int) -> float:
        """The longest c_i: a mean gradient, under the noise of an earlier round, and what rounding left in it."""
        terms = self._terms(round)
        if terms.weight_decay:
            return math.inf
        noise = self._noise_before(noise)
        clip = self.document.privacy.clip_norm
        plain = honest_lengths(terms, clip, noise, size, self.dimension, failure=_FAILURE).longest
        moved = terms.learning_rate * float(responses(terms.steps, terms.momentum).sum())
        # Rates fall, so the rounding error of an earlier update may be larger than that of this one.
        fallen = self.document.training.learning_rate / terms.learning_rate
        return plain / moved * (1 + 2 * _ROUNDING[self.document.wire.up] * fallen)

    def _noise_before(self, noise: float) -> float:
        """The largest noise that an earlier round can have had; newly planned noise is never less."""
        return noise * max(1.0, 1 / self.document.training.final_noise)

    def _spread(self) -> float:
        final = self.document.training.final_noise
        return max(final, 1 / final)


def needed_noise(document: StudyDocument) -> float:
    """The approximate noise multiplier with which a hospital meets the study's own privacy."""
    terms, steps = document.privacy, document.asked * document.steps_a_round()
    if terms.epsilon is None:
        return 0.0
    return _needed(min(terms.epsilon, _MOST_EPSILON), terms.delta, document.training.sample_rate, steps)


@lru_cache(maxsize=64)
def _needed(epsilon: float, delta: float, rate: float, steps: int) -> float:
    low, high = math.log(LEAST_NOISE), math.log(MOST_NOISE)
    for _ in range(60):
        middle = (low + high) / 2
        mu = rate * math.sqrt(steps * math.expm1(math.exp(-2 * middle)))
        low, high = (middle, high) if _delta(mu, epsilon) > delta else (low, middle)
    return math.exp(high)


def _delta(mu: float, epsilon: float) -> float:
    """Delta at epsilon of a Gaussian mechanism of sensitivity mu and noise 1 (Dong et al., JRSS B 2022, cor. 1)."""
    return _normal(mu / 2 - epsilon / mu) - math.exp(epsilon) * _normal(-mu / 2 - epsilon / mu)


def _normal(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))
