"""An audit that does not believe the accountant: what do canaries in one run of training betray?

Steinke, Nasr and Jagielski, "Privacy auditing with one (1) training run" (NeurIPS 2023). Many canary patients are put
into one cohort, each or not by a fair coin. From the released update alone the auditor guesses which were in: those
with the highest scores were, those with the lowest were not, about the others it says nothing. Under (epsilon, delta)
the number of right guesses is hardly more than that of a biased coin (theorem 5.2), so too many right guesses refute
the claim, with a confidence that the theorem states.

That bound is for any mechanism, and so it is blunt: it refutes noise that was cut to a tenth. Where everybody takes
part, what is claimed is Gaussian differential privacy (Dong, Roth and Su, JRSS B 2022): whatever threshold decides, the
true positives are at most Phi(Phi^-1(false positives) + mu). Each canary is a trial of its own, as coordinates have
independent noise, so both rates have exact intervals (Clopper and Pearson, 1934), and noise cut to a half is refuted.

The audit runs through ``train_locally``. With noise it must not refute the accountant, and with less noise than was
claimed, or none, it must: an audit that cannot fail shows nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import beta, binom, norm
from torch import nn

from client.cohort.dataset import Cohort
from client.ledger.accounting import Mechanism, epsilon_of
from client.training.noise import entropy
from client.training.train import train_locally
from tasks import task as tasks
from tasks.protocol.study import TrainingTerms
from tests.client.reserving import plan_noise

CANARIES, GUESSES, DELTA = 1000, 300, 1e-8  # the theorem pays 2 * CANARIES * DELTA, which must stay below DOUBT
DOUBT = 1e-4
"""How often the audit may refute a true claim. Its noise is not seeded, so this is how often this file fails."""


def chance(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Most probability of so many right guesses if the training is (epsilon, delta)-private.

    The theorem: P[right >= v] <= P[B >= v] + 2 m delta max over i of P[v > B >= v - i] / i, where B counts the heads of
    ``guesses`` coins that show heads with probability e^epsilon / (1 + e^epsilon), and m is the number of canaries.
    """
    coin = binom(guesses, 1 / (1 + math.exp(-epsilon)))
    each = np.arange(1, right + 1)
    near = np.cumsum(coin.pmf(right - each)) / each
    return min(1.0, float(coin.sf(right - 1) + 2 * canaries * delta * near.max(initial=0.0)))


def refuted_epsilon(canaries: int, guesses: int, right: int, delta: float, doubt: float = DOUBT) -> float:
    """The largest epsilon that so many right guesses refute; 0 when they refute none."""
    low, high = 0.0, 50.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        if chance(canaries, guesses, right, middle, delta) < doubt:
            low = middle
        else:
            high = middle
    return low


def right_guesses(scores: NDArray[np.float64], present: NDArray[np.bool_]) -> int:
    """Half of the guesses say "in", for the highest scores, half say "out", for the lowest."""
    order = np.argsort(scores)
    half = GUESSES // 2
    return int((~present[order[:half]]).sum() + present[order[-half:]].sum())


def audited(mechanism: Mechanism, images: int = 2) -> float:
    """Train once and see which epsilon the update refutes."""
    scores, present = canaries(mechanism, images)
    return refuted_epsilon(CANARIES, GUESSES, right_guesses(scores, present), DELTA)


def refuted_mu(mechanism: Mechanism, runs: int = 5) -> float:
    """The largest mu of Gaussian differential privacy that the canaries of some runs refute; the threshold was fixed
    before anything was seen: half of what a canary that is there adds."""
    scores, present = (np.concatenate(each) for each in zip(*(canaries(mechanism) for _ in range(runs)), strict=True))
    found = scores > mechanism.count / 2
    least_true = _limit(found[present], DOUBT / 2, lower=True)
    most_false = _limit(found[~present], DOUBT / 2, lower=False)
    return float(norm.ppf(least_true) - norm.ppf(most_false))


def _limit(found: NDArray[np.bool_], doubt: float, lower: bool) -> float:
    """Clopper and Pearson's limit of a probability, from independent trials."""
    hits, misses = int(found.sum()), int((~found).sum())
    return float(beta.ppf(doubt, hits, misses + 1) if lower else beta.ppf(1 - doubt, hits + 1, misses))


def canaries(mechanism: Mechanism, images: int = 2) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Train once on the canaries that the coin chose. Returns for each how far the update went its way, in units of one
    clipped gradient, and whether it was there.

    Canary i lights feature i alone, so its gradient moves weight i alone; it is far longer than the clip.
    """
    present = np.random.default_rng().random(CANARIES) < 0.5
    chosen = torch.from_numpy(np.flatnonzero(present))
    inputs = (1000.0 * torch.eye(CANARIES)[chosen]).repeat_interleave(images, dim=0)
    rows = list(torch.arange(len(inputs)).view(-1, images))
    cohort = Cohort(inputs, torch.ones(len(inputs), 1), rows)
    head = nn.Linear(CANARIES, 1, bias=False)
    nn.init.zeros_(head.weight)
    # A rate so small that no canary is ever learnt, or its gradient would shrink below the clip.
    terms = TrainingTerms(mechanism.count, 1e-4, 0.0, 0.0, mechanism.sample_rate, images)
    update = train_locally(
        head,
        tasks.get("breast_ultrasound"),
        cohort,
        terms,
        mechanism=mechanism,
        clip_norm=0.7,
        public_size=CANARIES // 2,
        generator=entropy(),
    )
    unit = terms.learning_rate * 0.7 / (mechanism.sample_rate * (CANARIES // 2))
    return update["weight"][0].astype(np.float64) / unit, present


def planned(epsilon: float, rate: float, steps: int) -> Mechanism:
    return Mechanism(plan_noise([], rate, steps, epsilon, DELTA), rate, steps)


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 1), (1.0, 10), (0.3, 20)])
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_canaries_do_not_refute_the_accountant(epsilon: float, rate: float, steps: int) -> None:
    mechanism = planned(epsilon, rate, steps)
    assert audited(mechanism) <= epsilon_of([mechanism], DELTA)


@pytest.mark.parametrize(("rate", "steps"), [(1.0, 10), (0.3, 20)])
def test_canaries_refute_training_without_noise(rate: float, steps: int) -> None:
    claimed = epsilon_of([planned(1.0, rate, steps)], DELTA)
    assert audited(Mechanism(0.0, rate, steps)) > 2 * claimed


def test_canaries_refute_an_account_of_more_noise_than_there_was() -> None:
    """Such as an engine that forgets the clip in its noise, or reports one round of many."""
    honest = planned(1.0, 1.0, 10)
    claimed = epsilon_of([honest], DELTA)
    assert audited(Mechanism(honest.noise_multiplier / 10, 1.0, 10)) > claimed


def test_the_audit_sees_more_where_there_is_more() -> None:
    """With noise for epsilon 8 it refutes a good part of the 8 that is spent: it is not blind."""
    assert 1.0 < audited(planned(8.0, 1.0, 1)) <= 8.0


@pytest.mark.parametrize(("epsilon", "steps"), [(1.0, 1), (4.0, 1), (8.0, 3)])
def test_gaussian_privacy_is_what_was_claimed_and_little_less(epsilon: float, steps: int) -> None:
    """What is claimed is not refuted, and most of it is found: the accounting is neither wrong nor loose."""
    mechanism = planned(epsilon, 1.0, steps)
    claimed = math.sqrt(steps) / mechanism.noise_multiplier
    assert claimed - 0.3 < refuted_mu(mechanism) <= claimed


@pytest.mark.parametrize(("epsilon", "steps"), [(4.0, 1), (8.0, 1), (8.0, 3)])
def test_noise_cut_to_a_half_is_refuted(epsilon: float, steps: int) -> None:
    """Such as noise that is divided among rounds, or a clip that is passed twofold."""
    honest = planned(epsilon, 1.0, steps)
    claimed = math.sqrt(steps) / honest.noise_multiplier
    assert refuted_mu(replace(honest, noise_multiplier=honest.noise_multiplier / 2)) > claimed


def test_the_theorem_by_hand() -> None:
    """Without delta it is the binomial tail; all right of 10 coins at epsilon ln 3 happen with 0.75^10."""
    assert chance(10, 10, 10, math.log(3), 0.0) == pytest.approx(0.75**10)
    assert chance(10, 10, 0, 1.0, 0.0) == 1.0
    # One guess, right: 2 m delta times P[1 > B >= 0] = P[B = 0] is added.
    assert chance(5, 1, 1, math.log(3), 0.01) == pytest.approx(0.75 + 2 * 5 * 0.01 * 0.25)


def test_an_honest_coin_is_not_refuted() -> None:
    """Randomized response at epsilon 1, the worst case of pure privacy: the bound holds and is nearly reached."""
    rng, epsilon = np.random.default_rng(0), 1.0
    seen, back = np.unique(rng.binomial(GUESSES, 1 / (1 + math.exp(-epsilon)), size=300), return_inverse=True)
    bounds = np.array([refuted_epsilon(GUESSES, GUESSES, int(v), 0.0, doubt=0.05) for v in seen])[back]
    assert (bounds > epsilon).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    assert np.median(bounds) > 0.6
