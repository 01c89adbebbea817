"""What a hospital does beyond plain steps, method by method, with the real private steps underneath."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from client.cohort.dataset import Cohort
from client.errors import BadOrder
from client.ledger.accounting import Mechanism
from client.training import methods
from client.training.methods import Trained, train_round
from client.training.noise import entropy
from client.training.train import Pull, train_locally
from conf.schema.strategy import FedAvg, FedProx, MeanRegularised, Scaffold, StrategySettings
from server.strategy.client_terms import method_of
from server.strategy.registry import build
from tasks import task as tasks
from tasks.models.registry import arrays_of
from tasks.protocol import encoding
from tasks.protocol.study import Encoding, MethodTerms, StudyDocument, TrainingTerms, WireTerms
from tasks.protocol.wire import CONTROL, Arrays, EvaluateOrder, TrainOrder

TASK = tasks.get("breast_ultrasound")
RATE = 0.5


def cohort(seed: int = 0, patients: int = 24, positives: float = 0.5) -> Cohort:
    """One image of three features a patient."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(patients) < positives * patients).astype(np.float32)
    inputs = rng.normal(size=(patients, 3)).astype(np.float32)
    inputs[:, 0] += 2 * labels
    return Cohort(torch.from_numpy(inputs), torch.from_numpy(labels)[:, None], list(torch.arange(patients).view(-1, 1)))


def study_of(document: StudyDocument, method: MethodTerms, up: Encoding = "float32", steps: int = 4) -> StudyDocument:
    training = TrainingTerms(steps, RATE, 0.0, 0.0, 1.0, 1)
    return replace(document, rounds=9, asked=9, training=training, method=method, wire=WireTerms(up=up))


@dataclass
class Run:
    """Takes real steps on the module and notes with what; no noise unless asked for."""

    module: nn.Module
    cohort: Cohort
    noise: float = 0.0
    taken: list[tuple[int, Pull | None, set[str]]] = field(default_factory=list)

    def __call__(self, terms: TrainingTerms, pull: Pull | None) -> Arrays:
        trained = {name for name, p in self.module.named_parameters() if p.requires_grad}
        self.taken.append((terms.steps, pull, trained))
        mechanism, size = Mechanism(self.noise, 1.0, terms.steps), len(self.cohort.rows)
        return train_locally(
            self.module,
            TASK,
            self.cohort,
            terms,
            mechanism=mechanism,
            clip_norm=1.0,
            public_size=size,
            generator=entropy(),
            pull=pull,
        )


def linear() -> nn.Module:
    module = nn.Linear(3, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.zero_()
    return module


def deep() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(3, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, 1))


def play(module: nn.Module, order: TrainOrder, state: Arrays, steps: Run) -> Trained:
    methods.load_model(module, order, state)
    return train_round(module, order, state, steps)


def gradient(x: Arrays, patients: Cohort) -> Arrays:
    module = linear()
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(x["weight"]))  # type: ignore[union-attr]
        module.bias.copy_(torch.from_numpy(x["bias"]))  # type: ignore[union-attr]
    TASK.loss(module(patients.inputs), patients.targets).backward()
    return {name: p.grad.numpy() for name, p in module.named_parameters() if p.grad is not None}


# --- FedProx ----------------------------------------------------------------------------------------------------------


def test_fedprox_by_hand(document: StudyDocument) -> None:
    """x <- x - eta (g(x) + mu (x - x0)), three times."""
    study, patients = study_of(document, MethodTerms(proximal=0.7), steps=3), cohort()
    start = {"weight": np.array([[0.3, -0.2, 0.1]], np.float32), "bias": np.array([0.5], np.float32)}
    module = linear()
    update = play(module, TrainOrder(study, 1, start), {}, Run(module, patients)).update
    x = {name: value.copy() for name, value in start.items()}
    for _ in range(3):
        slopes = gradient(x, patients)
        x = {name: x[name] - RATE * (slopes[name] + 0.7 * (x[name] - start[name])) for name in x}
    for name in x:
        np.testing.assert_allclose(update[name], x[name] - start[name], atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 50.0])
def test_a_pull_is_added_after_the_noise_and_is_neither_clipped_nor_scaled(noise: float) -> None:
    """One step with the same seed, with and without: the difference is the pull alone, however long it is."""
    patients, moved = cohort(), []
    constant = {"weight": np.full((1, 3), 100, np.float32), "bias": np.zeros(1, np.float32)}
    for pull in (None, Pull(0.0, {}, constant)):
        terms, mechanism = TrainingTerms(1, RATE, 0.0, 0.0, 1.0, 1), Mechanism(noise, 1.0, 1)
        generator = torch.Generator().manual_seed(3)
        update = train_locally(
            linear(),
            TASK,
            patients,
            terms,
            mechanism=mechanism,
            clip_norm=0.1,
            public_size=24,
            generator=generator,
            pull=pull,
        )
        moved.append(update)
    for name, value in constant.items():
        np.testing.assert_allclose(moved[1][name] - moved[0][name], -RATE * value, atol=1e-4)


# --- SCAFFOLD ---------------------------------------------------------------------------------------------------------


def test_scaffold_by_hand(document: StudyDocument) -> None:
    study, patients = study_of(document, MethodTerms(control_variates=True), steps=2), cohort()
    start = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(1, np.float32)}
    c = {"weight": np.array([[0.2, 0, -0.1]], np.float32), "bias": np.array([0.4], np.float32)}
    mine = {"weight": np.array([[0.1, 0.1, 0]], np.float32), "bias": np.array([-0.2], np.float32)}
    order = TrainOrder(study, 2, start | {CONTROL + name: value for name, value in c.items()})
    module = linear()
    trained = play(module, order, {f"variate/{name}": value for name, value in mine.items()}, Run(module, patients))
    x = {name: value.copy() for name, value in start.items()}
    for _ in range(2):
        slopes = gradient(x, patients)
        x = {name: x[name] - RATE * (slopes[name] - mine[name] + c[name]) for name in x}
    for name in x:
        np.testing.assert_allclose(trained.update[name], x[name] - start[name], atol=1e-6)
        wanted = mine[name] - c[name] + (start[name] - x[name]) / (2 * RATE)
        np.testing.assert_allclose(trained.state[f"variate/{name}"], wanted, atol=1e-6)


def test_the_first_control_variate_is_the_mean_gradient(document: StudyDocument) -> None:
    study, patients = study_of(document, MethodTerms(control_variates=True), steps=1), cohort()
    start = arrays_of(linear())
    order = TrainOrder(study, 1, start | {CONTROL + name: np.zeros_like(value) for name, value in start.items()})
    module = linear()
    state = play(module, order, {}, Run(module, patients)).state
    for name, slope in gradient(start, patients).items():
        np.testing.assert_allclose(state[f"variate/{name}"], slope, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "arrays"),
    [
        (MethodTerms(control_variates=True), arrays_of(linear())),
        (MethodTerms(), arrays_of(linear()) | {CONTROL + "weight": np.zeros((1, 3), np.float32)}),
        (MethodTerms(control_variates=True), arrays_of(linear()) | {CONTROL + "weight": np.zeros((1, 3), np.float32)}),
        (
            MethodTerms(control_variates=True),
            arrays_of(linear())
            | {CONTROL + "weight": np.full((1, 3), np.nan, np.float32), CONTROL + "bias": np.zeros(1, np.float32)},
        ),
    ],
    ids=["none", "not asked for", "one missing", "not finite"],
)
def test_control_variates_that_do_not_fit_are_refused(
    document: StudyDocument, method: MethodTerms, arrays: Arrays
) -> None:
    module = linear()
    with pytest.raises(BadOrder):
        methods.load_model(module, TrainOrder(study_of(document, method), 1, arrays), {})


def test_scores_need_no_control_variates(document: StudyDocument) -> None:
    study, arrays = study_of(document, MethodTerms(control_variates=True)), arrays_of(linear())
    c = {CONTROL + name: np.ones_like(value) for name, value in arrays.items()}
    for brought in (arrays, arrays | c):
        module = nn.Linear(3, 1)
        methods.load_model(module, EvaluateOrder(study, 1, brought), {})
        assert all((value == 0).all() for value in arrays_of(module).values())


# --- what a method is for: hospitals with other classes ---------------------------------------------------------------

SKEWED = [cohort(seed, positives=positives) for seed, positives in ((1, 0.1), (2, 0.5), (3, 0.9))]


def optimum() -> Arrays:
    """Of the sum of all hospitals' losses, found by a quite different method."""

    def loss(x: np.ndarray) -> float:
        weight, bias = torch.from_numpy(x[:3]), float(x[3])
        logits = [(c.inputs.double() @ weight + bias)[:, None] for c in SKEWED]
        return float(sum(TASK.loss(z, c.targets.double()) for z, c in zip(logits, SKEWED, strict=True)))

    x = minimize(loss, np.zeros(4), tol=1e-12).x
    return {"weight": x[None, :3], "bias": x[3:]}


def distance_after(document: StudyDocument, settings: StrategySettings, up: Encoding = "float32") -> float:
    """How far the federated model has gone from the optimum, where it starts: both halves together, without noise."""
    rounds, best = 10, optimum()
    study = study_of(document, method_of(settings), up, steps=8)
    strategy = build(settings, local_move=RATE * 8)
    weights = {name: value.astype(np.float32) for name, value in best.items()}
    memory, states = strategy.start(weights), [{} for _ in SKEWED]  # type: list[Arrays]
    for number in range(1, rounds + 1):
        combiner = strategy.combiner(weights, len(SKEWED))
        for index, patients in enumerate(SKEWED):
            module = linear()
            order = TrainOrder(study, min(number, 9), weights | strategy.sent_along(memory))
            trained = play(module, order, states[index], Run(module, patients))
            states[index] = trained.state
            combiner.add(str(index), encoding.restore(trained.update, up, weights), 1.0)
        weights, memory = strategy.step(weights, memory, combiner.combined(), 1.0)
    return float(np.sqrt(sum(np.sum(np.square(weights[name] - best[name])) for name in weights)))


def test_scaffold_reaches_the_optimum_and_fedprox_comes_nearer_than_fedavg(document: StudyDocument) -> None:
    fedavg = distance_after(document, FedAvg())
    fedprox = distance_after(document, FedProx(mu=1.0))
    scaffold = distance_after(document, Scaffold())
    assert fedavg > 0.1
    assert fedprox < 0.7 * fedavg
    assert scaffold < 0.05 * fedavg


def test_scaffold_does_so_when_updates_travel_in_eight_bits(document: StudyDocument) -> None:
    assert distance_after(document, Scaffold(), up="int8") < 0.02


# --- parts that stay --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "own"),
    [
        (MethodTerms(stays="normalisation"), {"1.weight", "1.bias"}),
        (MethodTerms(stays="head"), {"3.weight", "3.bias"}),
        (MethodTerms(stays="head", head_steps=1), {"3.weight", "3.bias"}),
    ],
    ids=["fedbn", "fedper", "fedrep"],
)
def test_a_part_stays_is_trained_and_is_there_next_time(
    document: StudyDocument, method: MethodTerms, own: set[str]
) -> None:
    study, module = study_of(document, method), deep()
    whole = arrays_of(module)
    sent = {name: value for name, value in whole.items() if name not in own}
    trained = play(module, TrainOrder(study, 1, sent), {}, Run(module, cohort(), noise=0.5))
    assert trained.update.keys() == sent.keys()
    assert trained.state.keys() == {f"local/{name}" for name in own}
    assert all(np.abs(value - whole[name.removeprefix("local/")]).max() > 0 for name, value in trained.state.items())

    for order in (TrainOrder(study, 2, sent), EvaluateOrder(study, 1, sent)):
        again = deep()
        methods.load_model(again, order, trained.state)
        for name, value in arrays_of(again).items():
            expected = trained.state[f"local/{name}"] if name in own else sent[name]
            np.testing.assert_array_equal(value, expected)

    with pytest.raises(BadOrder, match="is unknown"):
        methods.load_model(deep(), TrainOrder(study, 2, whole), trained.state)


def test_a_model_that_is_all_head_has_nothing_to_share(document: StudyDocument) -> None:
    study = study_of(document, MethodTerms(stays="head"))
    with pytest.raises(BadOrder, match="nothing else"):
        methods.load_model(linear(), TrainOrder(study, 1, {}), {})
    study = study_of(document, MethodTerms(stays="normalisation"))
    with pytest.raises(BadOrder, match="has none"):
        methods.load_model(linear(), TrainOrder(study, 1, {}), {})


def test_fedrep_trains_the_head_alone_and_then_the_rest_alone(document: StudyDocument) -> None:
    study, module = study_of(document, MethodTerms(stays="head", head_steps=3)), deep()
    sent = {name: value for name, value in arrays_of(module).items() if not name.startswith("3.")}
    steps = Run(module, cohort())
    play(module, TrainOrder(study, 1, sent), {}, steps)
    head, rest = {"3.weight", "3.bias"}, set(sent)
    assert [(count, names) for count, _, names in steps.taken] == [(3, head), (1, rest)]
    assert all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("fails_at", [0, 1])
def test_fedrep_leaves_the_module_as_it_was_when_steps_fail(document: StudyDocument, fails_at: int) -> None:
    """The hospital tries again on nobody, and an answer of another kind would tell."""
    study, module = study_of(document, MethodTerms(stays="head", head_steps=3)), deep()
    sent = {name: value for name, value in arrays_of(module).items() if not name.startswith("3.")}
    calls: list[int] = []
    honest = Run(module, cohort())

    def failing(*asked: Any) -> Arrays:
        calls.append(1)
        if len(calls) == fails_at + 1:
            raise RuntimeError("PATIENT-4711")
        return honest(*asked)

    order = TrainOrder(study, 1, sent)
    with pytest.raises(RuntimeError):
        methods.train_round(module, order, {}, failing)
    assert all(p.requires_grad for p in module.parameters())
    methods.load_model(module, order, {})


# --- Ditto ------------------------------------------------------------------------------------------------------------


def test_ditto_trains_the_shared_model_like_fedavg_and_a_second_one_for_itself(document: StudyDocument) -> None:
    study, patients, start = study_of(document, MethodTerms(personal=0.4)), cohort(), arrays_of(linear())
    module = linear()
    steps = Run(module, patients)
    first = play(module, TrainOrder(study, 1, start), {}, steps)
    assert [count for count, _, _ in steps.taken] == [4, 4]

    plain = linear()
    fedavg = play(plain, TrainOrder(study_of(document, MethodTerms()), 1, start), {}, Run(plain, patients))
    other = {name: value + np.float32(0.3) for name, value in start.items()}
    module = linear()
    second = play(module, TrainOrder(study, 2, other), first.state, Run(module, patients))
    x = {name: first.state[f"personal/{name}"] for name in start}
    for _ in range(4):  # v <- v - eta (g(v) + lambda (v - w)), from its own last place
        slopes = gradient(x, patients)
        x = {name: x[name] - RATE * (slopes[name] + np.float32(0.4) * (x[name] - other[name])) for name in x}
    for name in start:
        np.testing.assert_allclose(first.update[name], fedavg.update[name], atol=1e-7)
        np.testing.assert_allclose(second.state[f"personal/{name}"], x[name], atol=1e-5)

    scored, trained = linear(), linear()
    methods.load_model(scored, EvaluateOrder(study, 2, other), second.state)
    methods.load_model(trained, TrainOrder(study, 3, other), second.state)
    for name in start:
        np.testing.assert_array_equal(arrays_of(scored)[name], second.state[f"personal/{name}"])
        np.testing.assert_array_equal(arrays_of(trained)[name], other[name])


# --- MR-MTL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", [(0.5, 0.3, 0.2), (1 / 3, 1 / 3, 1 / 3)])
def test_mr_mtl_against_the_paper(document: StudyDocument, weights: tuple[float, ...]) -> None:
    """w_k <- w_k - eta (g_k(w_k) + lambda (w_k - w)) from where w_k was, K times at each; then w is the mean of the w_k
    (Liu et al., 2022, algorithm A1). Five rounds of three hospitals."""
    study, pull = study_of(document, MethodTerms(towards_mean=0.3)), np.float32(0.3)
    groups = [cohort(seed, positives=share) for seed, share in ((1, 0.2), (2, 0.5), (3, 0.8))]
    strategy = build(MeanRegularised(pull=0.3))
    shared, states = arrays_of(linear()), [Arrays() for _ in groups]
    mean = {name: value.astype(np.float64) for name, value in shared.items()}
    own = [dict(mean) for _ in groups]
    for number in range(1, 6):
        combiner, before = strategy.combiner(shared, len(groups)), mean
        for k, (patients, weight) in enumerate(zip(groups, weights, strict=True)):
            module = linear()
            trained = play(module, TrainOrder(study, number, shared), states[k], Run(module, patients))
            states[k] = trained.state
            combiner.add(f"h{k}", trained.update, weight)
            for _ in range(4):
                slopes = gradient({name: value.astype(np.float32) for name, value in own[k].items()}, patients)
                own[k] = {n: own[k][n] - RATE * (slopes[n] + pull * (own[k][n] - before[n])) for n in mean}
        mean = {name: sum(w * each[name] for w, each in zip(weights, own, strict=True)) for name in mean}
        update = combiner.combined()
        shared = {name: shared[name] + update[name] for name in shared}
        for name in mean:
            np.testing.assert_allclose(shared[name], mean[name], atol=2e-6)
            for state, each in zip(states, own, strict=True):
                np.testing.assert_allclose(state[f"personal/{name}"], each[name], atol=2e-6)

    scored = linear()
    methods.load_model(scored, EvaluateOrder(study, 5, shared), states[0])
    assert all(np.array_equal(arrays_of(scored)[name], states[0][f"personal/{name}"]) for name in mean)


def test_rounding_where_a_model_is_leaves_nothing_to_send_next_time(document: StudyDocument) -> None:
    """What is lost of a place is not missing from the next one, as it is from a sum of steps."""
    study, module = study_of(document, MethodTerms(towards_mean=0.3), "int8"), linear()
    trained = play(module, TrainOrder(study, 1, arrays_of(linear())), {}, Run(module, cohort()))
    assert encoding.form_of(trained.update) == "int8"
    assert set(trained.state) == {"personal/weight", "personal/bias"}


# --- fewer bits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("up", ["float16", "int8"])
def test_what_rounding_took_is_sent_next_time(document: StudyDocument, up: Encoding) -> None:
    study, start = study_of(document, MethodTerms(), up), arrays_of(linear())
    exact = linear()
    wanted = play(exact, TrainOrder(study_of(document, MethodTerms()), 1, start), {}, Run(exact, cohort())).update
    state: Arrays = {}
    total = {name: np.zeros(value.shape) for name, value in start.items()}
    for number in range(1, 9):  # the same model again and again, so every round means the same update
        module = linear()
        trained = play(module, TrainOrder(study, number, start), state, Run(module, cohort()))
        state = trained.state
        assert encoding.form_of(trained.update) == up
        seen = encoding.restore(trained.update, up, start)
        total = {name: total[name] + seen[name] for name in total}
    for name, value in wanted.items():
        np.testing.assert_allclose(total[name] + state[f"lost/{name}"], 8 * value, atol=1e-5)


def test_a_study_that_keeps_nothing_says_so(document: StudyDocument) -> None:
    kept = [
        MethodTerms(control_variates=True),
        MethodTerms(stays="head"),
        MethodTerms(personal=1.0),
        MethodTerms(towards_mean=1.0),
    ]
    assert not methods.keeps(document)
    assert not methods.keeps(study_of(document, MethodTerms(proximal=1.0)))
    assert all(methods.keeps(study_of(document, method)) for method in kept)
    assert methods.keeps(study_of(document, MethodTerms(), "int8"))


def test_the_rate_of_the_round_is_used(document: StudyDocument) -> None:
    study = study_of(document, MethodTerms(), steps=1)
    study = replace(study, training=replace(study.training, final_rate=0.25))

    def moved(number: int) -> float:
        module = linear()
        trained = play(module, TrainOrder(study, number, arrays_of(module)), {}, Run(module, cohort()))
        return float(np.abs(trained.update["weight"]).sum())

    assert moved(9) == pytest.approx(0.25 * moved(1), rel=1e-5)
