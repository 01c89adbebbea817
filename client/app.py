"""The hospital's side of a round: an order comes in, a report or a refusal goes out.

Read ``_train`` from top to bottom and you have seen all that an order can do here.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import nn

from client import accounting, policy, privacy, report, site
from client.accounting import Mechanism
from client.dataset import open_cohort
from client.errors import BadOrder, SiteError
from client.ledger import Caps, Ledger, cohort_of
from client.site import SiteSettings
from client.train import load_weights, score_patients, train_locally
from tasks import task as tasks
from tasks import wire
from tasks.models import registry
from tasks.models.registry import Network
from tasks.task import Task
from tasks.wire import EvaluateOrder, EvaluateReport, PrivacyTerms, TrainOrder, TrainReport

SITE_VARIABLE = "CONSILIUM_SITE"
"""Environment variable with the path of ``site.yaml``, for a container; the embedded runtime passes it per hospital."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a ``TrainOrder``."""
    return _answer(message, context, TrainOrder, _train)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer an ``EvaluateOrder``."""
    return _answer(message, context, EvaluateOrder, _evaluate)


def _train(order: TrainOrder, settings: SiteSettings, ledger: Ledger) -> TrainReport:
    terms = policy.permit(order, settings)
    task, network, module = _model_of(order)
    cohort = open_cohort(settings, task, "train", order.model, network)
    size = report.public_size(settings, len(cohort.rows))

    mechanism = ledger.reserve(order, partial(_plan_training, order, terms), _caps(terms, settings))
    update = train_locally(
        module, task, cohort, order.training, mechanism, terms.clip_norm, size, privacy.entropy()
    )
    return report.train_report(order, update, size, _spent(ledger, order, terms), terms.delta)


def _evaluate(order: EvaluateOrder, settings: SiteSettings, ledger: Ledger) -> EvaluateReport:
    terms = policy.permit(order, settings)
    task, network, module = _model_of(order)
    cohort = open_cohort(settings, task, "validation", order.model, network)
    scores = score_patients(module, cohort)

    mechanism = ledger.reserve(order, partial(_plan_evaluation, order, terms), _caps(terms, settings))
    spent = _spent(ledger, order, terms)
    return report.evaluate_report(order, cohort, scores, mechanism, spent, terms.delta, privacy.entropy())


def _model_of(order: TrainOrder | EvaluateOrder) -> tuple[Task, Network, nn.Module]:
    """The order's task and network, the latter's trainable part checked for privacy and holding the order's weights."""
    try:
        task = tasks.get(order.task)
        network = registry.build(order.model, task.example_shape)
    except (tasks.UnknownTask, registry.UnknownModel) as error:
        raise BadOrder(str(error)) from error
    privacy.refuse_unprivate_layers(network.trainable)
    load_weights(network.trainable, order.arrays)
    return task, network, network.trainable


def _plan_training(order: TrainOrder, terms: PrivacyTerms, spent: list[Mechanism]) -> Mechanism:
    """Noise for this round such that all rounds that are left keep the whole study within the terms."""
    steps, rate = order.training.steps, order.training.sample_rate
    left = (order.rounds - order.round + 1) * steps
    noise = 0.0 if terms.epsilon is None else accounting.plan_noise(spent, rate, left, terms.epsilon, terms.delta)
    return Mechanism(noise, rate, steps)


def _plan_evaluation(order: EvaluateOrder, terms: PrivacyTerms, spent: list[Mechanism]) -> Mechanism:
    left = max(1, order.releases - len(spent))
    noise = 0.0 if terms.epsilon is None else accounting.plan_noise(spent, 1.0, left, terms.epsilon, terms.delta)
    return Mechanism(noise, 1.0, 1)


def _caps(terms: PrivacyTerms, settings: SiteSettings) -> Caps:
    if terms.epsilon is None:  # the policy has allowed it, for a simulated hospital
        return Caps(float("inf"), float("inf"), terms.delta)
    return Caps(terms.epsilon, settings.policy.max_epsilon_life, terms.delta)


def _spent(ledger: Ledger, order: TrainOrder | EvaluateOrder, terms: PrivacyTerms) -> float:
    return accounting.epsilon_of(ledger.spent(cohort_of(order), order.study), terms.delta)


Order = TypeVar("Order", TrainOrder, EvaluateOrder)
Report = TrainReport | EvaluateReport


def _answer(
    message: Message,
    context: Context,
    kind: type[Order],
    work: Callable[[Order, SiteSettings, Ledger], Report],
) -> Message:
    """Decode, look for a stored reply, work, commit, reply. Whatever goes wrong, only a code leaves."""
    study, round, settings = "unknown", 0, None
    try:
        settings = site.load(_site_file(context))
        order = _decoded(message, kind)
        study, round = order.study, order.round
        with Ledger(settings.ledger) as ledger:
            packed = ledger.stored_reply(order)
            if packed is None:
                packed = wire.pack(work(order, settings, ledger))
                ledger.commit(order, packed)
        reply: wire.Message = wire.unpack(packed, TrainReport, EvaluateReport)
    except Exception as error:
        _note(settings, study, round, error)
        reply = report.refusal(study, round, error)
    return Message(wire.encode(reply), reply_to=message)


def _decoded(message: Message, kind: type[Order]) -> Order:
    try:
        return wire.decode(message.content, kind)
    except wire.WireError as error:
        raise BadOrder(str(error)) from error


def _site_file(context: Context) -> Path:
    named = context.node_config.get("site") or os.environ.get(SITE_VARIABLE)
    if not named:
        raise SiteError(f"which hospital is this? set {SITE_VARIABLE} to the path of site.yaml")
    return Path(str(named))


def _note(settings: SiteSettings | None, study: str, round: int, error: Exception) -> None:
    """Tell the hospital's own log what happened."""
    text = str(error) if isinstance(error, SiteError) else traceback.format_exc()
    line = f"{datetime.now(UTC).isoformat(timespec='seconds')} study={study} round={round} {type(error).__name__}: {text}\n"
    if settings is not None:
        with settings.log.open("a", encoding="utf-8") as file:
            file.write(line)
