"""The hospital's side of a round: an order comes in, a report or a refusal goes out.

Read ``_answered`` and then ``_train`` from top to bottom: that is everything an order can do here, in this order.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from torch import nn

from client import policy, privacy, report, site
from client.cohort import ownership, subgroups
from client.cohort.dataset import Cohort, open_cohort
from client.cohort.survey import patients_of
from client.errors import BadOrder, ModelRefused, NotPermitted, OtherRelease, SiteError
from client.ledger import accounting
from client.ledger.account import Use
from client.ledger.accounting import Mechanism
from client.ledger.audit_log import AuditLog, Receipt
from client.ledger.ledger import Ledger, Planned, refuse_used_tag
from client.ledger.records import Records, records_kept_open
from client.oversight import approvals, halt, planning, premises, surveys
from client.policy import COHORTS
from client.report import MaskedPart, Report
from client.secure_sum import peers
from client.secure_sum.own_key import OwnKey
from client.secure_sum.pads import Pads
from client.site import SiteSettings
from client.training import client_state, compare, methods, model_cache
from client.training.noise import draws, entropy
from client.training.scoring import score_outlines, scores_of, tell_patients
from client.training.train import Pull, summed_step, train_locally
from tasks import task as tasks
from tasks.machine.device import Placement, placement, telling
from tasks.machine.logs import append
from tasks.models import registry
from tasks.models.network import Network
from tasks.models.weights import in_folder
from tasks.protocol import documents, wire
from tasks.protocol.documents import Document
from tasks.protocol.secure_sum import grid
from tasks.protocol.study import PrivacyTerms, TrainingTerms
from tasks.protocol.wire import (
    Arrays,
    EvaluateOrder,
    EvaluateReport,
    KeyOrder,
    KeyReport,
    Order,
    Refusal,
    SurveyOrder,
    SurveyReport,
    TrainOrder,
    TrainReport,
)
from tasks.tables import answer_terms
from tasks.task import Task

SITE_VARIABLE = "CONSILIUM_SITE"
"""Environment variable with the path of ``site.yaml``, for a container; the embedded runtime passes it per hospital."""

_LOG = logging.getLogger(__name__)

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a ``TrainOrder``."""
    return _answer(message, context, TrainOrder, partial(_answered, work=_train))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Answer an ``EvaluateOrder``."""
    return _answer(message, context, EvaluateOrder, partial(_answered, work=_evaluate))


@app.query()
def query(message: Message, context: Context) -> Message:
    """Answer a ``KeyOrder``."""
    return _answer(message, context, KeyOrder, _told_key)


@app.query("survey")
def survey(message: Message, context: Context) -> Message:
    """Answer a ``SurveyOrder``."""
    return _answer(message, context, SurveyOrder, _surveyed)


Work = Callable[[Order, Use, PrivacyTerms, SiteSettings, Ledger], Report]
Asked = TypeVar("Asked", KeyOrder, TrainOrder, EvaluateOrder, SurveyOrder)


def _answer(
    message: Message,
    context: Context,
    kind: type[Asked],
    answered: Callable[[Asked, SiteSettings, Records], Report | KeyReport],
) -> Message:
    """Whatever goes wrong, only a code leaves; the details go to the hospital's own log.

    This includes a panic in a decoder written in Rust, which is not an ``Exception``: Flower would send its text.
    """
    received = time.monotonic()
    study, round, settings = "unknown", 0, None
    reply: Report | KeyReport | Refusal
    try:
        settings = site.load(_site_file(context))
        order = _decoded(message, kind)
        study, round = order.study.name, order.round
        key = site.secret(settings)
        with records_kept_open(settings.ledger, settings.audit_log, key, premises.outlives(settings)) as records:
            try:
                reply = answered(order, settings, records)
            except BaseException as error:
                reply = _refusal(settings, study, round, error)
                _enter(settings, records, report.receipt_without_patients(reply, records.ledger.head()))
    except BaseException as error:
        reply = _refusal(settings, study, round, error)
    if settings is not None:
        _wait_for_tick(received, settings.tick_s)
    return Message(wire.encode(reply), reply_to=message)


def _wait_for_tick(received: float, tick_s: float) -> None:
    """The time a reply takes reveals the number of patients. So it leaves at a multiple of a public time after the
    order was received, and timing reveals no more than that."""
    if tick_s > 0:
        time.sleep(-(time.monotonic() - received) % tick_s)


def _refusal(settings: SiteSettings | None, study: str, round: int, error: BaseException) -> Refusal:
    if isinstance(error, (KeyboardInterrupt, SystemExit)):
        raise error
    _note(settings, study, round, error)
    return report.refusal(study, round, error)


def _answered(order: Order, settings: SiteSettings, records: Records, work: Work[Order]) -> Report:
    """Permit, approve, work, commit, write the receipt. An order that was answered before gets the stored reply."""
    _require_ready(settings, records)
    premises.require_not_behind(order.ledger_head, order.study.name, records)
    order = model_cache.whole(order, settings)
    with _kept_if_refused(order.study, settings, records.audit_log):
        terms = policy.permit(order, settings)
    approvals.require(order.study, records.audit_log, settings)
    model_cache.keep(order, settings)

    use = _use_of(order)
    with telling(partial(_enter_in_log, settings, order.study.name, order.round, "device")):
        return _settled((use,), terms, settings, records, lambda: work(order, use, terms, settings, records.ledger))


def _settled(
    uses: Sequence[Use], terms: PrivacyTerms, settings: SiteSettings, records: Records, made: Callable[[], Report]
) -> Report:
    """The stored reply to an order, or a new one, committed for each cohort that it uses; and its receipt."""
    ledger = records.ledger
    epsilon_before = max(_epsilon_spent(ledger, use, terms) for use in uses)
    packed = ledger.stored_reply(uses[0])
    repeated = packed is not None
    if packed is None:
        packed = wire.pack(made())
        for use in uses:
            ledger.commit(use, packed)
    reply = cast(Report, wire.unpack(packed, TrainReport, EvaluateReport, SurveyReport))

    halt.require_running(settings.stop_file)
    epsilon_after = max(_epsilon_spent(ledger, use, terms) for use in uses)
    cohorts = "+".join(use.cohort for use in uses)
    spending = report.Spending(cohorts, epsilon_before, epsilon_after, ledger.head(), repeated)
    _enter(settings, records, report.receipt(reply, packed, spending))
    return reply


def _surveyed(order: SurveyOrder, settings: SiteSettings, records: Records) -> Report:
    """The same for a survey, which brings no model and counts on both cohorts at once."""
    _require_ready(settings, records)
    premises.require_not_behind(order.ledger_head, order.study.name, records)
    with _kept_if_refused(order.study, settings, records.audit_log):
        terms = policy.permit_survey(order.study, settings)
    approvals.require(order.study, records.audit_log, settings)
    uses = surveys.uses_of(order)
    return _settled(uses, terms, settings, records, lambda: _counted(order, uses, terms, settings, records.ledger))


def _require_ready(settings: SiteSettings, records: Records) -> None:
    """What holds for every order: the hospital runs, on its own terms, and its catalog is counted in this ledger."""
    halt.require_running(settings.stop_file)
    premises.require_terms(settings, records.ledger)
    ownership.claim(settings, records.ledger.account().id)


def _enter(settings: SiteSettings, records: Records, receipt: Receipt) -> None:
    """Enter a receipt, with the policy under which the message leaves."""
    records.audit_log.append_receipt(replace(receipt, policy=premises.policy_digest(settings)))


@contextmanager
def _kept_if_refused(study: Document, settings: SiteSettings, audit_log: AuditLog) -> Iterator[None]:
    """A study that the policy refuses is kept as pending as well, so that a person can see why."""
    try:
        yield
    except (NotPermitted, OtherRelease):
        if documents.digest(study) not in approvals.decisions(audit_log, settings):
            approvals.keep(study, settings)
        raise


def _told_key(order: KeyOrder, settings: SiteSettings, records: Records) -> KeyReport:
    """Permit, approve, make the key, write the receipt. It concerns no patient."""
    _require_ready(settings, records)
    with _kept_if_refused(order.study, settings, records.audit_log):
        policy.permit_key(order.study, settings)
    approvals.require(order.study, records.audit_log, settings)
    key = OwnKey.of(settings, order.study, records.ledger).signed(settings, order.study)
    reply = report.key_report(order, key, records.ledger.head())
    halt.require_running(settings.stop_file)
    _enter(settings, records, report.receipt_without_patients(reply, records.ledger.head()))
    return reply


@dataclass(frozen=True)
class _Seat:
    """This hospital's place in a secure sum: its key and its pads, checked against peers and ledger."""

    own: OwnKey
    pads: Pads

    @classmethod
    def of(cls, order: TrainOrder | EvaluateOrder, use: Use, settings: SiteSettings, ledger: Ledger) -> _Seat | None:
        """The place; ``None`` where the order asks for no sum.

        Raises:
            PeersRefused, TagUsed, LedgerBroken: before any patient is touched.
        """
        if order.attempt is None:
            return None
        own = OwnKey.of(settings, order.study, ledger)
        peers.require(order.attempt, order.study, own, settings)
        refuse_used_tag(ledger.account(), use)
        return cls(own, Pads(own.secret, settings.name, order.attempt.roster, use.order_digest, use.cohort))

    def part(self, order: TrainOrder | EvaluateOrder, planned: Planned, most: float, ledger: Ledger) -> MaskedPart:
        """How its part leaves, once it is reserved; ``most`` is what one patient can change."""
        study, attempt, alone = order.study, order.attempt, planned.now_alone
        assert study.secure_sum is not None, "the order was refused otherwise"
        assert attempt is not None
        assert alone is not None
        self.own.note(ledger)
        common = grid(
            planned.now.noise_multiplier,
            most,
            hospitals=len(attempt.roster),
            colluding=study.secure_sum.colluding,
            patients=sum(study.sizes[each.hospital] for each in attempt.roster),
        )
        return MaskedPart(alone.noise_multiplier, common, self.pads)


def _train(order: TrainOrder, use: Use, terms: PrivacyTerms, settings: SiteSettings, ledger: Ledger) -> TrainReport:
    seat = _Seat.of(order, use, settings, ledger)
    state = _state_of(order, settings, ledger)
    task, network, module = _model_of(order, state, settings.weights)
    cohort = open_cohort(settings, task, COHORTS["training"], order.study.model, network)
    public_size = site.declared_size(settings, len(cohort.rows))

    planned = planning.reserve(order, use, terms, settings, ledger)
    spent, mechanism = _spent(ledger, use, terms, planned), planned.now_alone or planned.now
    steps = _ReservedSteps(
        module=module,
        task=task,
        cohort=cohort,
        mechanism=mechanism,
        clip_norm=terms.clip_norm,
        public_size=public_size,
        max_memory_mb=settings.max_memory_mb,
        on=_placement(settings),
        draw=partial(draws, order.study.seed, mechanism.noise_multiplier, settings.name, order.round),
    )

    # From here on a report leaves, whoever the patients are.
    if seat is not None:
        part = seat.part(order, planned, terms.clip_norm, ledger)
        try:
            total = steps.summed(order.study.training)
        except Exception as error:
            _log_or_raise(error, mechanism, order, settings)
            total = steps.without_patients().summed(order.study.training)
        return report.summed_train_report(order, total, spent, ledger.head(), part)
    try:
        trained = methods.train_round(module, order, state, steps, settings.name)
    except Exception as error:
        _log_or_raise(error, mechanism, order, settings)
        methods.load_model(module, order, state)  # what the first try has moved must not leave
        trained = methods.train_round(module, order, state, steps.without_patients(), settings.name)
    if methods.keeps(order.study):
        client_state.write(settings, ledger, use, trained.state)
    return report.train_report(order, trained.update, spent, ledger.head())


@dataclass
class _ReservedSteps:
    """Takes private steps on one cohort, and no more of them than the ledger has reserved.

    A ``methods.Steps``: the study's method decides how many steps it takes at a time, and with which pull. ``draw``
    gives a fresh generator after so many steps.
    """

    module: nn.Module
    task: Task
    cohort: Cohort
    mechanism: Mechanism
    clip_norm: float
    public_size: int
    max_memory_mb: int
    on: Placement
    draw: Callable[[int], torch.Generator]
    taken: int = 0

    def __call__(self, terms: TrainingTerms, pull: Pull | None) -> Arrays:
        generator = self.draw(self.taken)
        self.taken += terms.steps
        if self.taken > self.mechanism.count:
            raise ValueError(f"more than the {self.mechanism.count} steps that are in the ledger")
        return train_locally(
            self.module,
            self.task,
            self.cohort,
            terms,
            mechanism=replace(self.mechanism, count=terms.steps),
            clip_norm=self.clip_norm,
            public_size=self.public_size,
            generator=generator,
            max_memory_mb=self.max_memory_mb,
            on=self.on,
            pull=pull,
        )

    def summed(self, terms: TrainingTerms) -> NDArray[np.float64]:
        """One step's sum of gradients with this hospital's share of the noise; the module stays as it is."""
        return summed_step(
            self.module,
            self.task,
            self.cohort,
            terms,
            mechanism=self.mechanism,
            clip_norm=self.clip_norm,
            generator=entropy(),
            max_memory_mb=self.max_memory_mb,
            on=self.on,
        )

    def without_patients(self) -> _ReservedSteps:
        """The same steps on nobody: noise alone, in the same shapes."""
        return replace(self, cohort=replace(self.cohort, rows=[], patients=()), taken=0)


def _evaluate(
    order: EvaluateOrder, use: Use, terms: PrivacyTerms, settings: SiteSettings, ledger: Ledger
) -> EvaluateReport:
    seat = _Seat.of(order, use, settings, ledger)
    order, second = compare.split(order)
    task, network, module = _model_of(order, _state_of(order, settings, ledger), settings.weights)
    if second is not None:
        second.require_fit(module)
    cohort = open_cohort(settings, task, COHORTS["evaluation"], order.study.model, network)

    planned = planning.reserve(order, use, terms, settings, ledger)
    spent = _spent(ledger, use, terms, planned)
    part = None if seat is None else seat.part(order, planned, 1.0, ledger)

    # From here on a report leaves, whoever the patients are.
    try:
        scored = _scored(order, settings, task=task, module=module, cohort=cohort, second=second)
        counts = report.counted(order, scored)
    except Exception as error:
        _log_or_raise(error, planned.now, order, settings)
        counts = report.nobody_counted(order)
    if part is not None:
        return report.summed_evaluate_report(order, counts, spent, ledger.head(), part, generator=entropy())
    return report.evaluate_report(order, counts, spent, ledger.head(), entropy())


def _counted(
    order: SurveyOrder, uses: Sequence[Use], terms: PrivacyTerms, settings: SiteSettings, ledger: Ledger
) -> SurveyReport:
    members = patients_of(settings, tasks.get(order.study.task))

    mechanism = surveys.reserve(order, terms, settings, ledger)
    epsilon = max(_epsilon_spent(ledger, use, terms) for use in uses)
    spent = report.Spent(epsilon, terms.delta, mechanism.noise_multiplier)

    # From here on a report leaves, whoever the patients are.
    try:
        tables = members.tables(order.study)
    except Exception as error:
        _note(settings, order.study.name, order.round, error)
        tables = report.nobody_in_survey(order)
    return report.survey_report(order, tables, spent, ledger.head(), entropy())


def _log_or_raise(
    error: Exception, mechanism: Mechanism, order: TrainOrder | EvaluateOrder, settings: SiteSettings
) -> None:
    """Log a failure on patients' data here; a report of noise alone leaves instead. A refusal's code would reveal that
    there is a patient on whom it fails. Without noise nobody is protected, so the error may leave as a code."""
    if not mechanism.noise_multiplier:
        raise error
    _note(settings, order.study.name, order.round, error)


def _scored(
    order: EvaluateOrder,
    settings: SiteSettings,
    task: Task,
    module: nn.Module,
    cohort: Cohort,
    second: compare.SecondModel | None,
) -> report.Scored:
    on = _placement(settings)
    told = tell_patients(module, cohort, on)
    scores = scores_of(cohort, told)
    scored = report.Scored(scores[0], cohort.patient_labels().numpy())
    if second is not None:
        return replace(scored, pair=report.SecondScores(second.scores(module, cohort, on), second.edges))
    if order.asks == "scores" and order.round == order.study.rounds:
        last = _scored_at_last(order, settings, task=task, module=module, cohort=cohort, told=told, scores=scores)
        return replace(scored, **last)
    return scored


def _scored_at_last(
    order: EvaluateOrder,
    settings: SiteSettings,
    task: Task,
    module: nn.Module,
    cohort: Cohort,
    told: list[NDArray[np.float64]],
    scores: NDArray[np.float64],
) -> dict[str, Any]:
    """Fields of ``report.Scored`` that the study asks for once, after its last round; ``told`` and ``scores`` are of
    every question, see ``tell_patients`` and ``scores_of``."""
    evaluation = order.study.evaluation
    places = {name: number for number, name in enumerate(task.questions)}
    levels = subgroups.levels_of(settings, task, list(cohort.patients)) if evaluation.subgroups else {}
    outlines = score_outlines(module, cohort, task.form, _placement(settings)) if evaluation.structures else []
    return {
        "levels": {name: levels[name] for name in evaluation.subgroups},
        "findings": {
            name: np.stack([scores[number], cohort.patient_labels(number).numpy()])
            for number, name in enumerate(evaluation.findings, start=1)
        },
        "outlines": dict(zip(evaluation.structures, outlines, strict=True)),
        "answers": {
            name: report.ToldAnswers(task.questions[name], told[n], cohort.patient_truths(n))
            for name, n in places.items()
            if name in evaluation.answers
        },
    }


def _placement(settings: SiteSettings) -> Placement:
    """What the hospital computes on."""
    return placement(settings.trainer.device, settings.trainer.precision)


def _state_of(order: TrainOrder | EvaluateOrder, settings: SiteSettings, ledger: Ledger) -> Arrays:
    """What earlier rounds of training have left here."""
    if not methods.keeps(order.study):
        return {}
    return client_state.read(settings, ledger, order.study.name, COHORTS["training"])


def _model_of(order: TrainOrder | EvaluateOrder, state: Arrays, weights: Path) -> tuple[Task, Network, nn.Module]:
    """The order's task and network. The network's trainable part is checked for privacy, and holds the order's weights
    and the state that the hospital has of its study."""
    try:
        task = tasks.get(order.study.task)
        network = registry.build(order.study.model, task.form, find=in_folder(weights))
    except (registry.WeightsMissing, registry.EntryRefused) as error:
        raise ModelRefused(str(error)) from error
    except (tasks.UnknownTask, registry.UnknownModel) as error:
        raise BadOrder(str(error)) from error
    evaluation = order.study.evaluation
    requested, available = (evaluation.findings, evaluation.structures), task.asks(network.outlines)
    if requested != available:
        raise BadOrder(
            f"the study asks for findings and structures {requested}, {task.name} with this model has {available}"
        )
    if evaluation.answers != (expected := answer_terms(task, evaluation.bins)):
        raise BadOrder(f"the study asks for answers {evaluation.answers}, {task.name} has {expected}")
    if wrong := task.unfit_weights(order.study.training.class_weights):
        raise BadOrder(wrong)
    privacy.refuse_unprivate_layers(network.trainable)
    methods.load_model(network.trainable, order, state)
    return task, network, network.trainable


def _use_of(order: TrainOrder | EvaluateOrder) -> Use:
    """Which cohort's privacy the order spends; ``COHORTS`` says why."""
    cohort = COHORTS["training" if isinstance(order, TrainOrder) else "evaluation"]
    attempt = 0 if order.attempt is None else order.attempt.number
    return Use(cohort, order.study.name, order.round, wire.digest(order), attempt)


def _spent(ledger: Ledger, use: Use, terms: PrivacyTerms, planned: Planned) -> report.Spent:
    """What the study has cost with the order that was just reserved."""
    alone = None if planned.now_alone is None else _epsilon_spent(ledger, use, terms, alone=True)
    spent = _epsilon_spent(ledger, use, terms)
    return report.Spent(spent, terms.delta, planned.now.noise_multiplier, alone)


def _epsilon_spent(ledger: Ledger, use: Use, terms: PrivacyTerms, *, alone: bool = False) -> float:
    return accounting.epsilon_of(ledger.spent(use.cohort, use.study, alone=alone), terms.delta)


def _decoded(message: Message, kind: type[Asked]) -> Asked:
    try:
        return wire.decode(message.content, kind)
    except wire.WireError as error:
        raise BadOrder(str(error)) from error


def _site_file(context: Context) -> Path:
    path = context.node_config.get("site") or os.environ.get(SITE_VARIABLE)
    if not path:
        raise SiteError(f"no site.yaml: set {SITE_VARIABLE} to its path")
    return Path(str(path))


def _note(settings: SiteSettings | None, study: str, round: int, error: BaseException) -> None:
    """Write what happened to the hospital's own log. Never raises: a full log must not change what leaves."""
    if settings is None:  # nothing of a patient has been read yet, so the process's own log may have it
        _LOG.error("%s: %s", type(error).__name__, error)
        return
    text = str(error) if isinstance(error, SiteError) else "".join(traceback.format_exception(error))
    _enter_in_log(settings, study, round, type(error).__name__, text)


def _enter_in_log(settings: SiteSettings, study: str, round: int, kind: str, text: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        line = f"{now} study={study} round={round} {kind}: {text}\n"
        append(settings.log, line.encode("utf-8", "backslashreplace"), settings.log_bytes)
    except OSError as unwritten:
        _LOG.error("cannot write %s (%s); what happened: %s", settings.log, unwritten.strerror, kind)
