"""How long an honest update can be, and how much noise a study needs, against the hospitals' own code."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from client.ledger.accounting import Mechanism, epsilon_of
from conf.schema.training import TrainingSettings
from server.strategy.honest_updates import Honest, _delta, needed_noise
from server.strategy.local_sgd import honest_lengths, responses
from tasks.protocol import encoding
from tasks.protocol.study import MethodTerms, StudyDocument, WireTerms
from tasks.protocol.wire import CONTROL, TrainOrder
from tests.client.reserving import plan_noise

WEIGHTS = {"a": np.full((4, 5), 2.0, np.float32), "b": np.zeros(3, np.float32)}


@pytest.fixture
def honest(document: StudyDocument) -> Honest:
    return Honest.of(TrainOrder(document, 2, dict(WEIGHTS)))


def of(document: StudyDocument, round: int = 2, **changes: object) -> Honest:
    return Honest.of(TrainOrder(replace(document, **changes), round, dict(WEIGHTS)))  # type: ignore[arg-type]


def test_only_what_travels_is_counted(document: StudyDocument) -> None:
    variates = {CONTROL + name: value + 1 for name, value in WEIGHTS.items()}
    found = Honest.of(TrainOrder(document, 2, WEIGHTS | variates))
    assert found.dimension == 23
    assert found.model == pytest.approx(2 * math.sqrt(20))
    assert found.control == pytest.approx(math.sqrt(9 * 20 + 3))


@pytest.mark.parametrize(("epsilon", "delta", "rate", "steps"), [
    (8.0, 1e-4, 0.4, 100), (8.0, 1e-4, 0.8, 6), (3.0, 1e-4, 0.4, 100), (1.0, 1e-5, 0.1, 300), (1.0, 1e-4, 1.0, 10),
    (20.0, 1e-4, 0.5, 30),
])  # fmt: skip
def test_the_noise_that_a_study_needs_is_about_what_hospitals_plan(
    document: StudyDocument, epsilon: float, delta: float, rate: float, steps: int
) -> None:
    planned = plan_noise([], rate, steps, epsilon, delta)
    terms = replace(document.privacy, epsilon=epsilon, delta=delta)
    training = replace(document.training, steps=steps, sample_rate=rate)
    needed = needed_noise(replace(document, privacy=terms, training=training, asked=1))
    assert 0.95 < needed / planned < 1.6


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0, 20.0])
def test_delta_of_one_gaussian_is_that_of_the_accountant(sigma: float) -> None:
    epsilon = epsilon_of([Mechanism(sigma, 1.0, 1)], 1e-5)
    assert _delta(1 / sigma, epsilon) == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize(("form", "more"), [("float32", 1.0), ("float16", 1.002), ("int8", 1.68)])
def test_an_update_of_fewer_bits_counts_with_what_rounding_may_add(
    document: StudyDocument, form: str, more: float
) -> None:
    """Before and now; not with less than its length, or honest hospitals that send fewer bits would count less."""
    plain, lean_one = of(document), of(document, wire=WireTerms(up=form))  # type: ignore[arg-type]
    needed = needed_noise(document)
    usual = plain.counted(40, needed, 2)
    assert usual < 0.9 * plain.longest(40, needed, 2), "or the longest would decide"
    assert lean_one.counted(40, needed, 2) == pytest.approx(more * usual)


def test_a_claim_of_more_noise_than_is_needed_buys_nothing(honest: Honest) -> None:
    needed = needed_noise(honest.document)
    assert honest.counted(40, 1.3 * needed, 2) == honest.counted(40, 1e4, 2) < 1.3 * honest.counted(40, needed, 2)
    assert honest.weighed_noise(0.3) == pytest.approx(needed / 2)
    assert honest.longest(40, 1e4, 2) > 100 * honest.counted(40, 1e4, 2)
    assert honest.counted(40, needed, 2) <= honest.longest(40, needed, 2)


@pytest.mark.parametrize("final", [0.5, 2.0])
def test_under_a_schedule_a_round_may_have_less_noise_or_more_than_is_needed_on_the_whole(
    document: StudyDocument, final: float
) -> None:
    scheduled, needed = of(document, training=replace(document.training, final_noise=final)), needed_noise(document)
    assert scheduled.weighed_noise(0.3) == pytest.approx(needed / 4)
    most = scheduled.counted(40, 1e4, 2)
    assert scheduled.counted(40, 2.4 * needed, 2) < most == scheduled.counted(40, 2.6 * needed, 2)


def test_what_rounding_left_in_a_control_variate_is_measured_at_the_rate_that_it_had(document: StudyDocument) -> None:
    """Rates fall, and an earlier update's rounding is divided by the rate of now."""
    scaffold, falling = MethodTerms(control_variates=True), replace(document.training, final_rate=0.1)
    exact, lean_one = (
        of(document, method=scaffold, training=falling, wire=WireTerms(up=form)) for form in ("float32", "int8")
    )  # type: ignore[arg-type]
    assert lean_one._variate(40, 1.0, 2) == pytest.approx((1 + 2 * 0.34 * 10) * exact._variate(40, 1.0, 2))


def test_a_later_round_has_its_own_rate(document: StudyDocument) -> None:
    falling = replace(document.training, final_rate=0.1)
    late, early = of(document, training=falling), of(document, 1, training=falling)
    assert late.longest(40, 1.0, 2) == pytest.approx(0.1 * early.longest(40, 1.0, 1))
    assert late.longest(40, 1.0, 1) == pytest.approx(early.longest(40, 1.0, 1)), "an update of the round before"


def test_there_is_no_bound_without_privacy_nor_for_what_cannot_be_known(document: StudyDocument) -> None:
    assert of(document, privacy=replace(document.privacy, epsilon=None)).longest(40, 1.0, 2) == math.inf
    decays = replace(document.training, weight_decay=0.1)
    assert of(document, training=decays).longest(40, 1.0, 2) < math.inf
    thrown = of(document, method=MethodTerms(proximal=1e6), training=replace(document.training, steps=400))
    assert thrown.longest(40, 1.0, 2) == math.inf
    assert of(document, training=decays).longest(40, 1.0, 1) == math.inf, "the older model's length is not known"
    assert of(document, training=decays, method=MethodTerms(control_variates=True)).longest(40, 1.0, 2) == math.inf


def test_the_head_s_steps_are_not_those_of_what_is_sent(document: StudyDocument) -> None:
    plain, rep = of(document), of(document, method=MethodTerms(stays="head", head_steps=2))
    assert rep.longest(40, 1.0, 2) < plain.longest(40, 1.0, 2)


@pytest.mark.parametrize("form", ["float16", "int8"])
def test_what_rounding_does_stays_within_its_share(document: StudyDocument, form: str) -> None:
    """Error feedback over many rounds of updates of one length, some of them all in one value of a block."""
    rng, lost = np.random.default_rng(3), np.zeros(3000, np.float32)
    slack = of(document, wire=WireTerms(up=form)).longest(40, 1.0, 2) / of(document).longest(40, 1.0, 2)  # type: ignore[arg-type]
    for number in range(30):
        update = (
            rng.normal(size=3000) if number % 2 else np.eye(1, 3000, number).ravel() + 0.003 * rng.normal(size=3000)
        )
        update = (update / np.linalg.norm(update)).astype(np.float32)
        meant = {"w": update + lost}
        coded = encoding.shrink(meant, form, encoding.stochastic(rng))  # type: ignore[arg-type]
        lost = encoding.lost(meant, coded, form)["w"]  # type: ignore[arg-type]
        assert np.linalg.norm(encoding.restore(coded, form, meant)["w"]) < slack  # type: ignore[arg-type]


def test_a_bound_without_the_responses_of_momentum_would_drop_honest_hospitals() -> None:
    """The wrong version."""
    terms = TrainingSettings(steps=10, learning_rate=1.0, momentum=0.9, sample_rate=1.0)
    everybody_one_way = 0.5 * responses(10, 0.9).sum()  # as many patients as declared, each clipped to 0.5
    assert everybody_one_way > honest_lengths(replace(terms, momentum=0.0), 0.5, 0.3, 1000, 23).longest
    assert everybody_one_way < honest_lengths(terms, 0.5, 0.3, 1000, 23).longest


# --- MR-MTL -----------------------------------------------------------------------------------------------------------


def _own_models(
    document: StudyDocument, pull: float, steps: int, rate: float, final: float = 1.0, momentum: float = 0.0
) -> StudyDocument:
    training = replace(document.training, steps=steps, learning_rate=rate, momentum=momentum, sample_rate=1.0)
    training = replace(training, weight_decay=0.0, final_rate=final)
    method = MethodTerms(towards_mean=pull)
    return replace(
        document, training=training, method=method, rounds=200, asked=200, sizes={"a": 40, "b": 60, "c": 200}
    )


@pytest.mark.parametrize(
    ("pull", "steps", "rate", "final", "momentum"),
    [
        *((0.01, 10, 8.0, 1.0, 0.0), (0.01, 1, 1.0, 1.0, 0.0), (0.05, 4, 8.0, 0.1, 0.0), (0.001, 5, 8.0, 1.0, 0.0)),
        *((0.1, 10, 4.0, 0.5, 0.0), (0.01, 10, 1.0, 1.0, 0.9), (0.05, 5, 2.0, 0.3, 0.5)),
    ],
)
def test_no_hospital_s_own_model_is_further_away_than_the_bound_and_the_bound_stays_useful(
    document: StudyDocument, pull: float, steps: int, rate: float, final: float, momentum: float
) -> None:
    """The worst that follows the rules: one hospital's patients all pull one way, all others' the other way, in every
    step of two hundred rounds, with every gradient as long as the clip."""
    study = _own_models(document, pull, steps, rate, final, momentum)
    weights = {"only": np.zeros(400, np.float32)}
    sizes = np.array(list(study.sizes.values()), dtype=float)
    share, clip, noise = sizes / sizes.sum(), study.privacy.clip_norm, 6.0
    draw, slopes = np.random.default_rng(0), np.zeros((3, 400))
    slopes[:, 0] = [clip, -clip, -clip]
    own, mean = np.zeros((3, 400)), np.zeros(400)
    lengths = []
    for number in range(1, 201):
        eta, velocity = study.training.rate_in(number, 200), np.zeros((3, 400))
        for _ in range(steps):
            noised = slopes + noise * clip / sizes[:, None] * draw.standard_normal((3, 400))
            velocity = momentum * velocity + noised + pull * (own - mean)
            own = own - eta * velocity
        sent = own - mean
        honest = Honest.of(TrainOrder(study, number, weights))
        for size, one in zip(study.sizes.values(), sent, strict=True):
            length = float(np.linalg.norm(one))
            assert length <= honest.counted(size, noise, number) <= honest.longest(size, noise, number)
        lengths.append(honest.longest(40, noise, number))
        mean = mean + share @ sent
    fedavg = Honest.of(TrainOrder(replace(study, method=MethodTerms()), 200, weights)).longest(40, noise, 200)
    assert max(lengths) <= 2000 * max(fedavg, lengths[0])  # 1e15 times where each round doubles it


def test_of_a_hundred_thousand_rounds_the_last_bound_is_found_at_once(document: StudyDocument) -> None:
    study = replace(_own_models(document, 0.01, 10, 8.0), rounds=100_000, asked=100_000)
    honest = Honest.of(TrainOrder(study, 100_000, dict(WEIGHTS)))
    assert math.isfinite(honest.longest(40, 6.0, 100_000))
