"""What a hospital does in a round, by method: what it adds to private steps, and how that affects the guarantee.

    plain       nothing.
    FedProx     mu (x - x0) is added to each gradient after its noise (Li et al., MLSys 2020, equation 2). It depends on
                the model alone, so it costs nothing, and it is not clipped.
    SCAFFOLD    c - c_i is added likewise (Karimireddy et al., ICML 2020, algorithm 1, option II). c_i is computed from
                the hospital's own updates, after their noise and after rounding: post-processing, free. It carries the
                noise of earlier rounds into later ones, so it pays where noise is small against the drift.
    FedBN       scale and shift of normalisation layers stay (Li et al., ICLR 2021); here group normalisation.
    FedPer      the head stays (Arivazhagan et al., 2019, arXiv:1912.00818); so does it in
    FedRep      which trains the head alone first, then the rest alone (Collins et al., ICML 2021, algorithm 1).
                What stays was trained by the same clipped and noised gradients as what leaves, and must be: scores and
                later updates are computed with it, and they leave. It costs nothing more. Less leaves.
    Ditto       a second, personal model is trained on the same patients and pulled towards the shared one (Li et al.,
                ICML 2021, algorithm 1). It stays, but scores are computed with it, so it spends: its steps count like
                the others, the hospital plans its noise for twice as many, and both models get that noise.
    MR-MTL      the hospital trains one model, its own, pulled towards the mean of all hospitals' models, and sends
                where it is from there, so that the server's model stays the mean (Liu et al., On privacy and
                personalization in cross-silo federated learning, NeurIPS 2022, algorithm A1: of private methods for
                one's own model the cheapest). Pull and difference are computed from released numbers: free.

What stays lies on the hospital's disk between rounds (``client/training/client_state.py``) and scores are
computed with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from client.errors import BadOrder
from client.training.noise import roundings
from client.training.train import Pull, load_weights
from tasks.models.parts import NothingToShare, staying
from tasks.models.registry import arrays_of
from tasks.protocol import encoding
from tasks.protocol.study import StudyDocument, TrainingTerms
from tasks.protocol.wire import CONTROL, Arrays, EvaluateOrder, TrainOrder

_LOCAL, _PERSONAL, _VARIATE, _LOST = "local/", "personal/", "variate/", "lost/"

Steps = Callable[[TrainingTerms, Pull | None], Arrays]
"""Takes private steps on the module as it stands, and gives new minus old of every trained tensor."""


@dataclass(frozen=True)
class Trained:
    """What a round has made: the update in the form in which it leaves, and the state that its next round needs."""

    update: Arrays
    state: Arrays


def keeps(study: StudyDocument) -> bool:
    """Whether a hospital keeps anything of the study between rounds."""
    method = study.method
    own = method.personal is not None or method.towards_mean is not None
    apart = method.control_variates or method.stays != "nothing" or own
    return apart or study.wire.up != "float32"


def load_model(module: nn.Module, order: TrainOrder | EvaluateOrder, state: Arrays) -> None:
    """Give the module the order's weights, and the hospital's own where the method says so.

    Raises:
        BadOrder: the weights do not fit the network and the method.
    """
    if isinstance(order, EvaluateOrder) and order.asks == "matrix":
        load_weights(module, order.arrays)  # another model than the study's: nothing of it stays anywhere
        return
    method = order.study.method
    weights, variates = _split(order.arrays)
    stay = _staying(module, order.study)
    if variates and not method.control_variates:
        raise BadOrder("it brings control variates, and the study has none")
    if method.control_variates and not variates and isinstance(order, TrainOrder):
        raise BadOrder("the control variates are missing")
    if variates:  # of the same names and shapes as the weights, which are loaded over them
        load_weights(module, variates, stay)
    load_weights(module, weights, stay)
    _set(module, _named(state, _LOCAL))
    if isinstance(order, EvaluateOrder):
        _set(module, _named(state, _PERSONAL))


def train_round(module: nn.Module, order: TrainOrder, state: Arrays, steps: Steps, hospital: str = "") -> Trained:
    """Train as the study's method says; ``module`` holds what ``load_model`` gave it.

    Args:
        hospital: whose update is rounded; no two hospitals round by the same draws.

    Raises:
        UpdateNotFinite, ModelRefused: as ``client.training.train.train_locally``.
    """
    method = order.study.method
    rate = order.study.training.rate_in(order.round, order.study.rounds)
    terms = replace(order.study.training, learning_rate=rate)
    stay = _staying(module, order.study)
    if method.control_variates:
        return _scaffold(module, order, state, terms, steps, hospital=hospital)
    if method.personal is not None:
        return _ditto(module, order, state, terms, steps, hospital=hospital)
    if method.towards_mean is not None:
        return _mean_regularised(module, order, state, terms, steps, hospital=hospital)
    if method.head_steps:
        update = _head_then_rest(module, stay, method.head_steps, terms, steps)
    else:
        update = steps(terms, Pull(method.proximal, arrays_of(module)) if method.proximal else None)
    leaving = {name: value for name, value in update.items() if name not in stay}
    rounded, residual = _rounded(leaving, order, state, hospital)
    local = {name: value for name, value in arrays_of(module).items() if name in stay}
    return Trained(rounded, _under(_LOCAL, local) | residual)


def _head_then_rest(module: nn.Module, head: frozenset[str], count: int, terms: TrainingTerms, steps: Steps) -> Arrays:
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    try:
        _train_only(module, head)
        update = steps(replace(terms, steps=count), None)
        _train_only(module, set(trained) - head)
        return update | steps(replace(terms, steps=terms.steps - count), None)
    finally:  # whatever has failed, the same module may be asked for another try
        _train_only(module, set(trained))


def _scaffold(
    module: nn.Module, order: TrainOrder, state: Arrays, terms: TrainingTerms, steps: Steps, *, hospital: str
) -> Trained:
    _, c = _split(order.arrays)
    c_i = _named(state, _VARIATE) or {name: np.zeros_like(value) for name, value in c.items()}
    update = steps(terms, Pull(0.0, {}, {name: c[name] - c_i[name] for name in c}))
    rounded, residual = _rounded(update, order, state, hospital)
    # c_i moves by the update as the server sees it, or c would no longer be the mean of the c_i.
    seen = encoding.restore(rounded, order.study.wire.up, update)
    move = np.float32(terms.learning_rate * sum_of_responses(terms.steps, terms.momentum))
    variates = {name: c_i[name] - c[name] - seen[name] / move for name in c}
    return Trained(rounded, _under(_VARIATE, variates) | residual)


def _ditto(
    module: nn.Module, order: TrainOrder, state: Arrays, terms: TrainingTerms, steps: Steps, *, hospital: str
) -> Trained:
    shared = arrays_of(module)
    rounded, residual = _rounded(steps(terms, None), order, state, hospital)
    _set(module, _named(state, _PERSONAL) or shared)
    steps(terms, Pull(order.study.method.personal or 0.0, shared))
    return Trained(rounded, _under(_PERSONAL, arrays_of(module)) | residual)


def _mean_regularised(
    module: nn.Module, order: TrainOrder, state: Arrays, terms: TrainingTerms, steps: Steps, *, hospital: str
) -> Trained:
    mean = arrays_of(module)
    _set(module, _named(state, _PERSONAL) or mean)
    steps(terms, Pull(order.study.method.towards_mean or 0.0, mean))
    own = arrays_of(module)
    away = {name: own[name] - mean[name] for name in own}
    # Nothing of what rounding took: it says where the model is, not how far it went, and errors do not add up.
    rounded, _ = _rounded(away, order, {}, hospital)
    return Trained(rounded, _under(_PERSONAL, own))


def sum_of_responses(steps: int, momentum: float) -> float:
    """How far, in units of the learning rate, one unit of constant gradient moves a model in so many steps of SGD."""
    return float(np.cumsum(momentum ** np.arange(steps)).sum())


def _rounded(update: Arrays, order: TrainOrder, state: Arrays, hospital: str) -> tuple[Arrays, Arrays]:
    """The update in the study's form, and what rounding took; what it took last time is added first."""
    form, residual = order.study.wire.up, _named(state, _LOST)
    if form == "float32":
        return update, {}
    compensated = {name: value + residual[name] if residual else value for name, value in update.items()}
    either_way = encoding.stochastic(roundings(order.study.seed, hospital, order.round))
    rounded = encoding.shrink(compensated, form, either_way)
    return rounded, _under(_LOST, encoding.lost(compensated, rounded, form))


def _split(arrays: Arrays) -> tuple[Arrays, Arrays]:
    variates = {name.removeprefix(CONTROL): value for name, value in arrays.items() if name.startswith(CONTROL)}
    return {name: value for name, value in arrays.items() if not name.startswith(CONTROL)}, variates


def _staying(module: nn.Module, study: StudyDocument) -> frozenset[str]:
    try:
        return staying(module, study.method.stays)
    except NothingToShare as error:
        raise BadOrder(str(error)) from error


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {prefix + name: value for name, value in arrays.items()}


def _train_only(module: nn.Module, names: frozenset[str] | set[str]) -> None:
    for name, p in module.named_parameters():
        p.requires_grad_(name in names)


@torch.no_grad()
def _set(module: nn.Module, values: Arrays) -> None:
    parameters = dict(module.named_parameters())
    for name, value in values.items():
        parameters[name].copy_(torch.from_numpy(value))
