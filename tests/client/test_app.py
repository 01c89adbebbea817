"""The hospital's side of a round, with real messages, images and a real ledger: what an order can do, and what not."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from torch import nn

import client.app
from client.cohort.dataset import Cohort, open_cohort
from client.errors import LedgerUnwritable, UpdateNotFinite
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.audit_log import AuditLog
from client.oversight import approvals, halt
from client.training.noise import entropy
from client.training.scoring import score_patients
from client.training.train import train_locally
from server.runtime.flower_private import deflate
from tasks import task as tasks
from tasks.contract import digest_of_task
from tasks.machine.device import PROCESSOR
from tasks.metrics.histogram import score_histogram
from tasks.models import registry
from tasks.protocol import wire
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, StudyDocument, TrainingTerms, digest
from tasks.protocol.wire import Arrays, ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport
from tests.client.hospital import TASK, Archive, Hospital, draw_archive, evaluate, read, train, weights, with_terms
from tests.client.reserving import plan_noise
from tests.spread import spread

STORY = "PATIENT-4711 in /archive/ward-7/image.dcm"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def hospital(tmp_path: Path, archive: Archive) -> Hospital:
    return Hospital.provision(tmp_path, archive)


@pytest.fixture
def approved(hospital: Hospital, document: StudyDocument) -> Hospital:
    hospital.approve(document)
    return hospital


def _refused(reply: object, document: StudyDocument, code: ErrorCode, round: int = 1) -> None:
    assert reply == Refusal(document.name, round, code)


def _crash(error: BaseException) -> Callable[..., Arrays]:
    def crash(*given: Any, **named: Any) -> Arrays:
        raise error

    return crash


def _nobody_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.app, "open_cohort", _crash(AssertionError("patients were touched")))


# --- the way of an order ------------------------------------------------------------------------------------------


def test_an_order_to_train_is_answered_charged_and_noted(approved: Hospital, document: StudyDocument) -> None:
    order = train(document)
    reply = approved.ask(order)
    assert isinstance(reply, TrainReport)
    assert (reply.study, reply.round, reply.delta) == (document.name, 1, 1e-4)
    assert reply.arrays.keys() == order.arrays.keys()
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in reply.arrays.values())
    assert any(value.any() for value in reply.arrays.values())

    (entry,) = approved.entries()
    assert (entry.use.cohort, entry.use.study, entry.use.round) == ("train", document.name, 1)
    assert entry.use.order_digest == wire.digest(order)
    assert (entry.mechanism.sample_rate, entry.mechanism.count) == (0.8, 3)
    assert reply.epsilon == epsilon_of([entry.mechanism], 1e-4)

    (receipt,) = approved.receipts()
    packed = wire.pack(reply)
    assert (receipt.message, receipt.cohort, receipt.repeated) == ("TrainReport", "train", False)
    assert (receipt.bytes, receipt.sha256) == (len(packed), hashlib.sha256(packed).hexdigest())
    assert (entry.reply_bytes, entry.reply_sha256) == (receipt.bytes, receipt.sha256)
    assert (receipt.epsilon_before, receipt.epsilon_after) == (0.0, reply.epsilon)
    assert receipt.ledger is not None
    assert receipt.ledger.seq == entry.committed


def test_a_study_that_keeps_nothing_leaves_nothing(approved: Hospital, document: StudyDocument) -> None:
    approved.ask(train(document))
    assert not approved.settings.kept.exists()


def test_an_order_to_score_is_charged_to_the_validation_patients(approved: Hospital, document: StudyDocument) -> None:
    reply = approved.ask(evaluate(document))
    assert isinstance(reply, EvaluateReport)
    assert reply.arrays["histogram"].shape == (2, 16)
    (entry,) = approved.entries()
    assert (entry.use.cohort, entry.mechanism.sample_rate, entry.mechanism.count) == ("validation", 1.0, 1)
    assert entry.mechanism.noise_multiplier > 0
    assert reply.epsilon == approved.spent("validation")
    assert approved.spent("train") == 0
    (receipt,) = approved.receipts()
    assert (receipt.message, receipt.cohort) == ("EvaluateReport", "validation")
    assert isinstance(approved.ask(evaluate(document, 2)), EvaluateReport)
    assert 0.97 * 4 <= approved.spent("validation") <= 4


def test_subgroups_share_the_epsilon_of_the_scores_and_leave_after_the_last_round_only(
    archive: Archive, document: StudyDocument, tmp_path: Path
) -> None:
    """Two evaluations and two attributes are four histograms, all with the same noise."""
    asked = replace(document, evaluation=replace(document.evaluation, subgroups=["sex", "vendor"]))
    hospital = Hospital.provision(tmp_path, archive, policy={"subgroups": ["vendor", "sex"]})
    hospital.approve(asked)
    first, last = hospital.ask(evaluate(asked)), hospital.ask(evaluate(asked, 2))
    assert isinstance(first, EvaluateReport)
    assert isinstance(last, EvaluateReport)
    assert first.arrays.keys() == {"histogram"}
    assert {name: counts.shape for name, counts in last.arrays.items()} == {
        "histogram": (2, 16), "sex": (3, 2, 16), "vendor": (10, 2, 16)
    }  # fmt: skip
    mechanisms = [entry.mechanism for entry in hospital.entries()]
    assert [mechanism.count for mechanism in mechanisms] == [1, 3]
    assert {mechanism.noise_multiplier for mechanism in mechanisms} == {first.noise} == {last.noise}
    assert 0.97 * 4 <= hospital.spent("validation") <= 4


def _with_others(document: StudyDocument, **terms: int) -> StudyDocument:
    return replace(document, evaluation=replace(document.evaluation, **terms))


def _to_compare(document: StudyDocument, bins: int = 4, shift: float = 0.5, **changes: Any) -> EvaluateOrder:
    """The order's own model has every score above one half; the other model is its mirror."""
    mine = evaluate(document, shift=shift).arrays
    other = {f"{wire.OTHER}{name}": -value for name, value in mine.items()}
    edges = np.tile(np.linspace(0, 1, bins + 1)[1:-1], (2, 1))
    order = EvaluateOrder(document, document.rounds, {**mine, **other, wire.EDGES: edges}, asks="paired")
    return replace(order, arrays={**order.arrays, **changes})


def test_two_models_are_compared_on_the_same_patients_within_the_epsilon_of_the_scores(
    archive: Archive, document: StudyDocument, tmp_path: Path
) -> None:
    asked = _with_others(document, paired=4, matrix=1)
    hospital = Hospital.provision(tmp_path, archive)
    hospital.approve(asked)
    order = _to_compare(asked)
    replies = [hospital.ask(evaluate(asked)), hospital.ask(evaluate(asked, 2)), hospital.ask(order)]
    replies.append(hospital.ask(EvaluateOrder(asked, asked.rounds, evaluate(asked, shift=0.1).arrays, asks="matrix")))
    reports = [reply for reply in replies if isinstance(reply, EvaluateReport)]
    shapes = [{name: counts.shape for name, counts in report.arrays.items()} for report in reports]
    assert shapes == [{"histogram": (2, 16)}, {"histogram": (2, 16)}, {"paired": (2, 4, 4)}, {"histogram": (2, 16)}]
    assert [entry.mechanism.count for entry in hospital.entries()] == [1, 1, 1, 1]
    assert len({report.noise for report in reports}) == 1, "planned for all four beforehand"
    assert reports[-1].epsilon == hospital.spent("validation")
    assert 0.97 * 4 <= hospital.spent("validation") <= 4
    assert hospital.receipts()[2].tensors.keys() == {"paired"}
    fifth = hospital.ask(_to_compare(asked, shift=0.7))  # was not planned: what is left of epsilon buys noise alone
    assert isinstance(fifth, Refusal) or fifth.noise > 10 * reports[0].noise
    assert hospital.spent("validation") <= 4


def test_the_joint_histogram_is_of_both_models_scores(
    archive: Archive, document: StudyDocument, tmp_path: Path
) -> None:
    asked = _with_others(replace(document, evaluation=replace(document.evaluation, epsilon=None)), paired=2)
    rules = {"scores": "exact", "auto_approve": True}
    hospital = Hospital.provision(tmp_path, archive, simulated=True, policy=rules)
    alone, joint = hospital.ask(evaluate(asked, shift=0.5)), hospital.ask(_to_compare(asked, bins=2))
    assert isinstance(alone, EvaluateReport)
    assert isinstance(joint, EvaluateReport)
    halves = alone.arrays["histogram"].reshape(2, 2, 8).sum(axis=2)
    np.testing.assert_array_equal(joint.arrays["paired"].sum(axis=2), halves)
    np.testing.assert_array_equal(joint.arrays["paired"].sum(axis=1), halves[:, ::-1], "sigmoid(-x) = 1 - sigmoid(x)")
    assert joint.arrays["paired"].sum() == alone.arrays["histogram"].sum()
    assert np.count_nonzero(joint.arrays["paired"][:, 0, 0] + joint.arrays["paired"][:, 1, 1]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {wire.EDGES: np.zeros((2, 4))},
        {wire.EDGES: np.tile([0.5, 0.4, 0.6], (2, 1))},
        {wire.EDGES: np.tile([0.5, np.nan, 0.6], (2, 1))},
        {wire.EDGES: np.zeros((2, 3), np.float32)},
        {f"{wire.OTHER}weight": np.zeros((1, 1), np.float32)},
        {f"{wire.OTHER}hook": np.zeros(1, np.float32)},
    ],
)
def test_an_order_to_compare_that_does_not_fit_is_refused_and_costs_nothing(
    approved: Hospital, document: StudyDocument, changes: dict[str, Any]
) -> None:
    asked = _with_others(document, paired=4)
    approved.approve(asked)
    _refused(approved.ask(_to_compare(asked, **changes)), asked, ErrorCode.BAD_ORDER, asked.rounds)
    assert approved.entries() == []


def test_subgroups_that_the_policy_does_not_name_are_refused(approved: Hospital, document: StudyDocument) -> None:
    asked = replace(document, evaluation=replace(document.evaluation, subgroups=["age"]))
    approved.approve(asked)
    _refused(approved.ask(evaluate(asked)), asked, ErrorCode.NOT_PERMITTED)
    assert "by age, policy.subgroups allows none" in approved.log()


def test_training_touches_one_side_of_the_split_and_scoring_the_other(
    archive: Archive, document: StudyDocument, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose privacy the ledger charges is who was there: what leaves without noise shows whose scores it counts."""
    exact = replace(document, evaluation=replace(document.evaluation, epsilon=None))
    rules = {"scores": "exact", "auto_approve": True}
    hospital = Hospital.provision(tmp_path, archive, simulated=True, policy=rules)
    task = tasks.get(TASK)
    network = registry.build(exact.model, task.form)
    order = evaluate(exact, shift=0.01)
    registry.load_arrays(network.trainable, order.arrays)
    sides = {side: open_cohort(hospital.settings, task, side, exact.model, network) for side in ("train", "validation")}
    assert not set(sides["train"].patients) & set(sides["validation"].patients)
    due = {
        side: score_histogram(score_patients(network.trainable, cohort), cohort.patient_labels().numpy(), 16)
        for side, cohort in sides.items()
    }
    assert not np.array_equal(due["train"], due["validation"]), "or the histogram would not tell the sides apart"
    reply = hospital.ask(order)
    assert isinstance(reply, EvaluateReport)
    np.testing.assert_array_equal(reply.arrays["histogram"], due["validation"])

    seen: list[tuple[str, ...]] = []

    def look(*given: Any, **named: Any) -> Arrays:
        seen.append(given[2].patients)
        return train_locally(*given, **named)

    monkeypatch.setattr(client.app, "train_locally", look)
    assert isinstance(hospital.ask(train(exact)), TrainReport)
    assert seen == [sides["train"].patients]


def test_what_is_spent_stands_in_the_ledger_before_training_starts(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(*given: Any, **named: Any) -> Arrays:
        seen.extend(approved.entries())
        raise KeyboardInterrupt

    monkeypatch.setattr(client.app, "train_locally", look)
    with pytest.raises(KeyboardInterrupt):
        approved.ask(train(document))
    assert len(seen) == 1
    assert seen[0].committed is None
    assert approved.entries() == seen, "the reservation stands"
    assert 0 < (lost := approved.spent()) < 8

    monkeypatch.undo()
    for round in (1, 2):
        assert isinstance(approved.ask(train(document, round)), TrainReport)
    first, *rest = [entry.mechanism for entry in approved.entries()]
    assert all(mechanism.noise_multiplier > first.noise_multiplier for mechanism in rest), (
        "more noise, not more epsilon"
    )
    assert lost < approved.spent() <= 8


def test_a_receipt_is_there_before_the_reply_leaves(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AuditLog, "append_receipt", _crash(LedgerUnwritable(STORY)))
    _refused(approved.ask(train(document)), document, ErrorCode.LEDGER_BROKEN)
    assert approved.receipts() == []
    monkeypatch.undo()
    assert isinstance(approved.ask(train(document)), TrainReport)
    assert [r.repeated for r in approved.receipts()] == [True]
    assert len(approved.entries()) == 1


def test_the_same_order_twice_is_answered_with_the_same_bytes_and_spends_once(
    approved: Hospital, document: StudyDocument
) -> None:
    for order, action in ((train(document), "train"), (evaluate(document), "evaluate")):
        first, second = (approved.send(wire.encode(order), action) for _ in range(2))
        assert first.object_id == second.object_id, "Flower names content by its SHA-256"
        assert wire.pack(read(first)) == wire.pack(read(second))
    assert [entry.use.cohort for entry in approved.entries()] == ["train", "validation"]
    receipts = approved.receipts()
    assert [r.repeated for r in receipts] == [False, True, False, True]
    assert receipts[0].sha256 == receipts[1].sha256
    assert receipts[1].epsilon_before == receipts[1].epsilon_after == receipts[0].epsilon_after


def test_an_order_that_later_ones_have_replaced_is_not_computed_again(
    approved: Hospital, document: StudyDocument
) -> None:
    for round in (1, 2):
        approved.ask(train(document, round))
    _refused(approved.ask(train(document, 1)), document, ErrorCode.NOT_PERMITTED)
    assert len(approved.entries()) == 2


def test_the_memory_that_the_hospital_allows_is_kept_to(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    seen = []

    def look(*given: Any, **named: Any) -> Arrays:
        seen.append(named["max_memory_mb"])
        return train_locally(*given, **named)

    hospital = Hospital.provision(tmp_path, archive, max_memory_mb=77)
    hospital.approve(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client.app, "train_locally", look)
        assert isinstance(hospital.ask(train(document)), TrainReport)
    assert seen == [77]


def test_no_more_steps_are_taken_than_the_ledger_has_reserved() -> None:
    """Also by a method that shares a round's steps out in several goes: all of them together are what was charged."""
    cohort = Cohort(torch.ones(2, 3), torch.ones(2, 1), [torch.arange(1), torch.arange(1, 2)])
    goes = TrainingTerms(2, 0.1, 0.0, 0.0, 1.0, 1)
    charged = Mechanism(1.0, 1.0, 4)
    task, module, drawn = tasks.get(TASK), nn.Linear(3, 1), list[int]()

    def draw(taken: int) -> torch.Generator:
        drawn.append(taken)
        return entropy()

    steps = client.app._ReservedSteps(module, task, cohort, charged, 1.0, 2, 1024, PROCESSOR, draw)
    for _ in range(2):
        assert steps(goes, None).keys() == {"weight", "bias"}
    with pytest.raises(ValueError, match="more than the 4 steps that are in the ledger"):
        steps(replace(goes, steps=1), None)
    assert drawn == [0, 2, 4], "each go draws for itself, also where a seed is public"


@pytest.mark.parametrize(("took", "waits"), [(0.4, 9.6), (12.5, 7.5), (20.0, 0.0)])
def test_an_answer_waits_for_the_next_tick_since_its_order_came(
    took: float, waits: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 100.0 + took, sleep=slept.append)
    monkeypatch.setattr(client.app, "time", clock)
    client.app._wait_for_tick(100.0, 10.0)
    assert slept == pytest.approx([waits])
    client.app._wait_for_tick(100.0, 0.0)
    assert len(slept) == 1, "a simulated hospital does not wait"


def test_reports_and_refusals_leave_at_a_tick(approved: Hospital, document: StudyDocument) -> None:
    """Whatever was done before: a refusal that came at once would tell what an order was refused for."""
    approved.change(reply_tick_s=1.5)
    for order, kind in ((train(document), TrainReport), (train(document, round=3), Refusal)):
        began = time.monotonic()
        assert isinstance(approved.ask(order), kind)
        assert time.monotonic() - began >= 1.5


def test_the_sum_is_divided_by_the_size_that_was_declared_and_not_by_who_is_there(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the spread of the noise would tell exactly how many patients there are."""
    seen = []

    def look(*given: Any, **named: Any) -> Arrays:
        seen.append((named["public_size"], len(given[2].rows)))
        return train_locally(*given, **named)

    monkeypatch.setattr(client.app, "train_locally", look)
    assert isinstance(approved.ask(train(document)), TrainReport)
    ((size, there),) = seen
    assert size == approved.settings.public_size != there


# --- refusals that touch nobody -----------------------------------------------------------------------------------


def test_stopped_before_training(approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch) -> None:
    _nobody_trains(monkeypatch)
    halt.stop(approved.settings.stop_file, "a test")
    _refused(approved.ask(train(document)), document, ErrorCode.STOPPED)
    _refused(approved.ask(evaluate(document)), document, ErrorCode.STOPPED)
    assert approved.entries() == []


def test_stopped_between_training_and_sending(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was computed stays, and leaves when the hospital goes on and is asked again; it is paid once."""

    def interrupted(*given: Any, **named: Any) -> Arrays:
        halt.stop(approved.settings.stop_file, "in the middle of a round")
        return train_locally(*given, **named)

    monkeypatch.setattr(client.app, "train_locally", interrupted)
    _refused(approved.ask(train(document)), document, ErrorCode.STOPPED)
    _refused(approved.ask(train(document)), document, ErrorCode.STOPPED)
    (entry,) = approved.entries()
    assert entry.committed is not None
    assert [r.message for r in approved.receipts()] == ["Refusal STOPPED"] * 2
    assert halt.resume(approved.settings.stop_file)

    _nobody_trains(monkeypatch)
    reply = approved.ask(train(document))
    assert isinstance(reply, TrainReport)
    assert hashlib.sha256(wire.pack(reply)).hexdigest() == entry.reply_sha256
    assert approved.entries() == [entry]
    assert approved.receipts()[-1].repeated


def test_an_unapproved_study_is_refused_and_waits(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    _nobody_trains(monkeypatch)
    _refused(hospital.ask(train(document)), document, ErrorCode.NOT_APPROVED)
    _refused(hospital.ask(evaluate(document)), document, ErrorCode.NOT_APPROVED)
    assert approvals.waiting(hospital.settings).keys() == {digest(document)}
    assert hospital.entries() == []


def test_approval_is_of_this_very_study(approved: Hospital, document: StudyDocument) -> None:
    other = with_terms(document, learning_rate=document.training.learning_rate * 1.001)
    _refused(approved.ask(train(other)), other, ErrorCode.NOT_APPROVED)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"release": "0.0.0"}, ErrorCode.OTHER_RELEASE),
        ({"task_version": 99}, ErrorCode.OTHER_RELEASE),
        ({"contract": "0" * 64}, ErrorCode.OTHER_RELEASE),
        ({"rounds": 101}, ErrorCode.NOT_PERMITTED),
        ({"task": "pneumonia_xray", "contract": digest_of_task("pneumonia_xray")}, ErrorCode.NOT_PERMITTED),
        ({"model": {"name": "densenet121"}}, ErrorCode.NOT_PERMITTED),
        ({"privacy": PrivacyTerms(None, 1e-4, 0.5)}, ErrorCode.NOT_PERMITTED),
    ],
)
def test_what_the_policy_refuses_stays_refused_whoever_approves_it(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, change: Any, code: ErrorCode
) -> None:
    _nobody_trains(monkeypatch)
    other = replace(document, **change)
    order = TrainOrder(other, 1, weights(document))
    _refused(hospital.ask(order), other, code)
    assert approvals.waiting(hospital.settings).keys() == {digest(other)}, "so that review can say why"
    hospital.approve(other)
    _refused(hospital.ask(order), other, code)
    assert approvals.waiting(hospital.settings) == {}, "it was decided about"
    assert hospital.entries() == []


def test_exact_scores_are_refused(hospital: Hospital, document: StudyDocument) -> None:
    exact = replace(document, evaluation=EvaluationTerms(2, 16, None))
    hospital.approve(exact)
    _refused(hospital.ask(evaluate(exact)), exact, ErrorCode.NOT_PERMITTED)


@pytest.mark.parametrize("lost", ["ledger", "audit_log"])
def test_without_its_records_the_hospital_does_nothing(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    approved.ask(train(document))
    path: Path = getattr(approved.settings, lost)
    path.unlink()
    _nobody_trains(monkeypatch)
    _refused(approved.ask(train(document, 2)), document, ErrorCode.LEDGER_BROKEN, 2)
    assert not path.exists(), "nothing is made in its place"
    assert str(path) in approved.log()


def test_weights_that_do_not_fit_are_a_bad_order(approved: Hospital, document: StudyDocument) -> None:
    good = weights(document)
    (name, value), *_ = good.items()
    broken = [
        {},
        {name: value},
        good | {"extra": value},
        good | {name: value.astype(np.float64)},
        good | {name: value[..., :-1]},
        good | {name: np.full_like(value, np.nan)},
    ]
    for arrays in broken:
        _refused(approved.ask(TrainOrder(document, 1, arrays)), document, ErrorCode.BAD_ORDER)
    assert approved.entries() == []


def test_how_many_patients_there_are_is_in_no_answer_to_an_order(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    """Not even on which side of the policy's minimum, nor that there is nobody: people are told when they approve."""
    for name, least in (("few", 1000), ("enough", 1)):
        hospital = Hospital.provision(tmp_path / name, archive, policy={"min_patients": least})
        hospital.approve(document)
        assert isinstance(hospital.ask(train(document)), TrainReport)
    names = [str(dcmread(file, stop_before_pixels=True).PatientID) for file in archive.folder.rglob("*.dcm")]
    empty = draw_archive(tmp_path / "empty")
    (tmp_path / "withdrawn.txt").write_text("\n".join(sorted(set(names))), "utf-8")
    nobody = Hospital.provision(tmp_path / "nobody", empty, withdrawals=str(tmp_path / "withdrawn.txt"))
    nobody.approve(document)
    for reply in (nobody.ask(train(document)), nobody.ask(evaluate(document, round=2))):
        assert isinstance(reply, TrainReport | EvaluateReport)
        assert all(np.std(value) > 0 for value in reply.arrays.values() if value.size > 1), "noise alone"


# --- what a study and a life cost ---------------------------------------------------------------------------------


def test_the_whole_study_costs_what_was_asked_for_and_every_round_says_so(
    hospital: Hospital, document: StudyDocument
) -> None:
    """Not the epsilon of one round ten times: what is reported is composed over all rounds so far."""
    study = replace(document, rounds=10, asked=10)
    hospital.approve(study)
    told = []
    for round in range(1, 11):
        reply = hospital.ask(train(study, round))
        assert isinstance(reply, TrainReport)
        assert reply.epsilon == hospital.spent()
        told.append(reply.epsilon)
    assert told == sorted(set(told))
    assert 0.97 * 8 <= told[-1] <= 8
    assert len({entry.mechanism.noise_multiplier for entry in hospital.entries()}) == 1
    for shift in (1, 2, 3):  # a server that asks for more than it said gets noise, or nothing
        hospital.ask(train(study, 10, shift))
        assert hospital.spent() <= 8
    assert min(entry.mechanism.noise_multiplier for entry in hospital.entries()[10:]) > 10


@pytest.mark.parametrize("last", [0.5, 2.0])
def test_a_schedule_of_noise_costs_what_was_asked_for(hospital: Hospital, document: StudyDocument, last: float) -> None:
    """Six rounds, of which the hospital never hears of the third."""
    study = replace(document, rounds=6, asked=6, training=replace(document.training, final_noise=last))
    hospital.approve(study)
    for round in (1, 2, 4, 5, 6):
        assert isinstance(hospital.ask(train(study, round)), TrainReport)
    noises = [entry.mechanism.noise_multiplier for entry in hospital.entries()]
    factors = [study.training.noise_in(round, 6) for round in (1, 2, 4, 5, 6)]
    assert noises == pytest.approx([noises[0] * factor / factors[0] for factor in factors], abs=5e-4)
    assert noises[-1] == pytest.approx(last * noises[0], abs=5e-4)
    assert 0.6 * 8 <= hospital.spent() <= 8, "what the third round would have cost is left"
    hospital.ask(train(study, 6, shift=1))
    assert hospital.spent() <= 8


def test_a_schedule_makes_up_for_a_lost_reservation_by_noise(
    hospital: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(document, rounds=4, asked=4, training=replace(document.training, final_noise=0.5))
    hospital.approve(study)
    hospital.ask(train(study, 1))
    with monkeypatch.context() as broken:
        broken.setattr(client.app, "train_locally", lambda *_, **__: 1 / 0)
        assert isinstance(hospital.ask(train(study, 2)), Refusal)
    for round in (2, 3, 4):
        assert isinstance(hospital.ask(train(study, round)), TrainReport)
    first, lost, *later = (entry.mechanism.noise_multiplier for entry in hospital.entries())
    factors = [study.training.noise_in(turn, 4) for turn in (1, 2, 3, 4)]
    assert lost == pytest.approx(first * factors[1], abs=5e-4)
    scales = [noise / factor for noise, factor in zip(later, factors[1:], strict=True)]
    assert min(scales) > 1.05 * first
    assert scales == pytest.approx([scales[0]] * 3, abs=1e-3), "planned anew once"
    assert 0.97 * 8 <= hospital.spent() <= 8


def test_the_hospitals_cap_wins_over_the_request(tmp_path: Path, archive: Archive, document: StudyDocument) -> None:
    hospital = Hospital.provision(tmp_path, archive, policy={"max_epsilon_study": 1.5, "max_delta": 1e-6})
    hospital.approve(document)
    replies = [hospital.ask(train(document, round)) for round in (1, 2)]
    assert [(type(reply), getattr(reply, "delta", None)) for reply in replies] == [(TrainReport, 1e-6)] * 2
    assert 0.97 * 1.5 <= hospital.spent(delta=1e-6) <= 1.5


def test_the_second_study_is_planned_whole_within_what_the_first_has_left(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    """It ends, with more noise; before, it got as much noise as the first and died in its middle."""
    hospital = Hospital.provision(tmp_path, archive, policy={"max_epsilon_study": 4.0, "max_epsilon_life": 5.0})
    first, second = (
        replace(document, name=name, rounds=6, asked=6, privacy=PrivacyTerms(4.0, 1e-4, 0.5)) for name in ("a", "b")
    )
    hospital.approve(first, second)
    for round in range(1, 7):
        assert isinstance(hospital.ask(train(first, round)), TrainReport)
    before = [entry.mechanism for entry in hospital.entries()]
    alone = plan_noise([], 0.8, 18, 4.0, 1e-4)
    affordable = next(
        n for n in range(7) if epsilon_of([*before, *[replace(before[0], noise_multiplier=alone)] * (n + 1)], 1e-4) > 5
    )
    assert 0 < affordable < 6, "by itself it would end in its middle"

    for round in range(1, 7):
        reply = hospital.ask(train(second, round))
        assert isinstance(reply, TrainReport)
        assert reply.noise_multiplier > alone
    assert 4.9 < hospital.spent() <= 5
    third = replace(second, name="c")
    hospital.approve(third)
    whole = hospital.entries()
    _refused(hospital.ask(train(third)), third, ErrorCode.BUDGET_EXHAUSTED)
    assert hospital.entries() == whole, "refused as a whole, nothing charged"
    assert isinstance(hospital.ask(evaluate(second)), EvaluateReport), (
        "the validation patients have a life of their own"
    )


# --- whatever happens, a code ------------------------------------------------------------------------------------


class Panic(BaseException):
    """As a decoder written in Rust raises it: no ``Exception``."""


@pytest.mark.parametrize(
    "error",
    [RuntimeError(STORY), OSError(5, STORY, "/archive/7.dcm"), MemoryError(STORY), Panic(STORY), KeyError(STORY)],
)
@pytest.mark.parametrize("where", ["open_cohort", "train_locally"])
def test_the_story_of_an_error_stays(
    approved: Hospital,
    document: StudyDocument,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    where: str,
) -> None:
    monkeypatch.setattr(client.app, where, _crash(error))
    content = approved.send(wire.encode(train(document)), "train")
    _refused(read(content), document, ErrorCode.INTERNAL)
    _nothing_of(content, "4711", "ward", "archive")
    assert STORY in approved.log()
    assert not "".join(capfd.readouterr())
    assert [receipt.message for receipt in approved.receipts()] == ["Refusal INTERNAL"]


def test_without_noise_what_goes_wrong_is_told_by_a_code(
    archive: Archive, document: StudyDocument, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is protected there, and an update of nobody's would pass for one of these patients."""
    plain = replace(
        document,
        privacy=replace(document.privacy, epsilon=None),
        evaluation=replace(document.evaluation, epsilon=None),
    )
    rules = {"without_privacy": True, "scores": "exact", "auto_approve": True}
    hospital = Hospital.provision(tmp_path, archive, simulated=True, policy=rules)

    def fails_on_patients(module: nn.Module, task: Any, cohort: Cohort, terms: Any, **named: Any) -> Arrays:
        if cohort.rows:
            raise UpdateNotFinite(STORY)
        return train_locally(module, task, cohort, terms, **named)

    monkeypatch.setattr(client.app, "train_locally", fails_on_patients)
    _refused(hospital.ask(train(plain)), plain, ErrorCode.UPDATE_NOT_FINITE)
    monkeypatch.setattr(client.app, "tell_patients", _crash(RuntimeError(STORY)))
    _refused(hospital.ask(evaluate(plain)), plain, ErrorCode.INTERNAL)


def test_ctrl_c_is_not_an_answer(approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client.app, "train_locally", _crash(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        approved.ask(train(document))
    assert len(approved.entries()) == 1


def test_a_log_that_cannot_be_written_changes_nothing(
    approved: Hospital, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    approved.settings.log.mkdir()
    monkeypatch.setattr(client.app, "train_locally", _crash(RuntimeError(STORY)))
    _refused(approved.ask(train(document)), document, ErrorCode.INTERNAL)
    assert "cannot write" in caplog.text
    assert STORY not in caplog.text


def test_settings_that_cannot_be_read_are_a_code(
    hospital: Hospital, document: StudyDocument, caplog: pytest.LogCaptureFixture
) -> None:
    hospital.file.write_text("name: [", "utf-8")
    reply = hospital.ask(train(document))
    assert reply == Refusal("unknown", 0, ErrorCode.SITE_MISCONFIGURED), "without settings no order is even read"
    assert str(hospital.file) in caplog.text, "the hospital is told why"


def test_an_order_of_the_wrong_kind_is_a_bad_order(approved: Hospital, document: StudyDocument) -> None:
    for order, action in ((train(document), "evaluate"), (evaluate(document), "train")):
        assert read(approved.send(wire.encode(order), action)) == Refusal("unknown", 0, ErrorCode.BAD_ORDER)


# --- whatever comes, an answer ------------------------------------------------------------------------------------

SECRET = "do not/echo 8f3a"
FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
SCALAR = st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.text() | st.binary() | st.just(SECRET)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([SECRET, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just(SECRET), inner, max_size=3),
    max_leaves=6,
)
ARRAY = st.builds(
    Array,
    dtype=st.sampled_from(["float32", "object", "|O", "<M8[s]", "float16", ">f8", SECRET]),
    shape=st.lists(st.integers(0, 2**31 - 1), max_size=3).map(tuple),
    stype=st.sampled_from(["numpy.ndarray", "torch", SECRET]),
    data=st.binary(max_size=64) | st.just(SECRET.encode()) | st.just(b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"),
)
NAMES = st.sampled_from(["head", "arrays", "version", "kind", "json", "weight", SECRET]) | st.text(max_size=5)
HEAD = st.dictionaries(NAMES, SCALAR, max_size=4).map(lambda values: ConfigRecord(values))  # type: ignore[arg-type]
ARRAYS = st.dictionaries(NAMES, ARRAY, max_size=2).map(lambda arrays: ArrayRecord(arrays))
ACTION = st.sampled_from(["train", "evaluate"])


@FUZZ
@given(records=st.dictionaries(NAMES, HEAD | ARRAYS, max_size=3), action=ACTION)
def test_whatever_comes_is_answered_with_a_code(approved: Hospital, records: Any, action: str) -> None:
    content = approved.send(RecordDict(records), action)
    assert read(content) == Refusal("unknown", 0, ErrorCode.BAD_ORDER)
    _nothing_of(content, SECRET)


@FUZZ
@given(data=st.data(), action=ACTION, value=JSON | st.just(KeyError), arrays=st.none() | ARRAYS)
def test_an_order_that_was_damaged_anywhere_is_answered_with_a_code(
    approved: Hospital, document: StudyDocument, data: st.DataObject, action: str, value: Any, arrays: Any
) -> None:
    order = train(document) if action == "train" else evaluate(document)
    content = spread(wire.encode(order))
    head = content.config_records["head"]
    scalars = json.loads(str(head["json"]))
    where = scalars
    while isinstance(inner := where[key := data.draw(st.sampled_from(sorted(where)))], dict) and (
        inner and data.draw(st.booleans())
    ):
        where = inner
    if value is KeyError:
        del where[key]
    else:
        where[key] = value
    head["json"] = json.dumps(scalars)
    if arrays is not None:
        content["arrays"] = arrays
    reply = approved.send(content, action)
    assert isinstance(read(reply), Refusal) or wire.digest(wire.decode(content, type(order))) == wire.digest(order)
    _nothing_of(reply, SECRET, str(approved.file.parent))


def _nothing_of(content: RecordDict, *words: str) -> None:
    """No object of a message has any of the words in it."""
    _, parts = deflate(Message(content, 1, "train"))
    assert not [word for word in words for part in parts.values() if word.encode() in part]
