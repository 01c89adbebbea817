"""Hospitals that share the noise: a whole study, hospitals that fail or lie, and kills at any moment."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

import client.app
from client.ledger.accounting import epsilon_of
from server.__main__ import client_app
from server.errors import RoundFailed
from server.results.answers import MeasureFigures
from server.rounds.checkpoint import read_state
from server.rounds.state import EVERYBODY
from server.runtime.workers import LoadApp
from tasks.protocol import wire
from tasks.protocol.secure_sum import WORDS
from tasks.protocol.wire import EvaluateOrder, EvaluateReport, KeyReport, Refusal, SumAttempt, TrainOrder, TrainReport
from tests.federation.embedded import HOSPITALS, Ended, entries, play
from tests.forks import exit_code, started

ROUNDS = 6
DOGWOOD = "+federation.hospitals.dogwood={patients: 14, prevalence: 0.5, images_per_patient: [1, 2]}"
SHARED = (
    "privacy=shared_noise",
    "training.steps=1",
    "training.sample_rate=1.0",
    f"federation.rounds={ROUNDS}",
    "evaluation.arms=[]",
    "evaluation.every=100",
)
FOUR = (*SHARED, DOGWOOD)

Meddle = Callable[[str, TrainOrder | EvaluateOrder, Message], Message | None]
"""(hospital, order, its honest reply) -> what it sends instead; ``None`` for the reply."""


def meddling(meddle: Meddle) -> LoadApp:
    """An app of hospitals that work honestly, whose replies are meddled with on their way."""

    def load_app() -> ClientApp:
        real, app = client_app(), ClientApp()

        def answered(message: Message, context: Context) -> Message:
            order = wire.decode(message.content, TrainOrder, EvaluateOrder)
            reply = real(message, context)
            return meddle(Path(str(context.node_config["site"])).stem, order, reply) or reply

        app.train()(answered)
        app.evaluate()(answered)
        app.query()(lambda message, context: real(message, context))
        return app

    return load_app


def _attempt(order: TrainOrder | EvaluateOrder) -> SumAttempt:
    assert order.attempt is not None
    return order.attempt


def tags(folder: Path, hospital: str) -> list[tuple[str, int, int]]:
    """What stands in a hospital's ledger: cohort, round and attempt of every reservation, verified row by row."""
    return [(e.use.cohort, e.use.round, e.use.attempt) for e in entries(folder, hospital) if e.use.attempt]


def test_a_study_with_shared_noise_from_end_to_end(ground: Path) -> None:
    ended = play(ground, "shared", *SHARED)
    records = ended.state().rounds
    assert [record.number for record in records] == list(range(1, ROUNDS + 1))
    assert all(record.void == [] and record.dropped == {} for record in records)
    for hospital in HOSPITALS:
        trained = [e for e in entries(ended.folder, hospital) if e.use.cohort == "train"]
        assert [(e.use.round, e.use.attempt, e.mechanism.count) for e in trained] == [
            (round, 1, 1) for round in range(1, ROUNDS + 1)
        ]
        (noise,) = {e.mechanism.noise_multiplier for e in trained}
        (alone,) = {e.alone.noise_multiplier for e in trained}
        assert alone == pytest.approx(noise / np.sqrt(len(HOSPITALS) - 1), abs=1e-4)
        told = records[-1].hospitals[hospital]
        assert told.epsilon == pytest.approx(epsilon_of([e.mechanism for e in trained], 1e-4))
        assert told.epsilon_alone == pytest.approx(epsilon_of([e.alone for e in trained], 1e-4))
        assert told.epsilon is not None
        assert told.epsilon <= 8
        assert told.auc is not None, "its own figures are as without shared noise"


def test_figures_of_all_patients_are_a_sum_and_no_hospital_has_its_own(ground: Path) -> None:
    figures = ("evaluation.pooled_only=true", "evaluation.epsilon=200", "evaluation.bins=4")
    ended = play(ground, "pooled", *SHARED, *figures)
    last = ended.state().rounds[-1]
    assert [last.hospitals[name].auc for name in HOSPITALS] == [None] * 3
    together = last.hospitals[EVERYBODY]
    assert last.pooled_auc is not None
    assert together.auc == pytest.approx(last.pooled_auc[0])
    assert [name for name in ended.state().scores if name in HOSPITALS] == []
    for hospital in HOSPITALS:
        (scored,) = [e for e in entries(ended.folder, hospital) if e.use.cohort == "validation"]
        assert scored.use.attempt == 1
        told = last.hospitals[hospital].evaluation_epsilon
        assert told == pytest.approx(epsilon_of([scored.mechanism], 1e-4))


def test_tables_of_a_measured_value_and_of_a_grade_are_sums_as_well(ground: Path) -> None:
    few = [f"federation.hospitals.{h}={{patients: 10, prevalence: 0.5, images_per_patient: [1, 1]}}" for h in HOSPITALS]
    figures = ("evaluation.pooled_only=true", "evaluation.epsilon=200", "evaluation.bins=4", "federation.rounds=1")
    ended = play(ground, "pooled-answers", *SHARED, *figures, "task=heart_size", *few)
    wanted = ["finding-enlargement", "told-enlargement", "told-question"]
    assert sorted(ended.state().scores) == sorted([EVERYBODY, *(f"{EVERYBODY}.{name}" for name in wanted)])
    told = ended.results.answers
    assert {name: list(arms["federated"].hospitals) for name, arms in told.items()} == {
        "question": [],
        "enlargement": [],
    }
    measured = told["question"]["federated"].everybody
    assert isinstance(measured, MeasureFigures)
    assert 0 < measured.size_noise < 3
    assert abs(measured.patients - _validated(ended)) < 5 * measured.size_noise
    assert "all patients" in ended.shown
    (scored,) = [e for e in entries(ended.folder, "alder") if e.use.cohort == "validation"]
    paid = ended.state().rounds[-1].hospitals["alder"].evaluation_epsilon
    assert paid == pytest.approx(epsilon_of([scored.mechanism], 1e-4))


def _validated(ended: Ended) -> int:
    """Validation patients of all hospitals, as the terminal shows them."""
    return sum(int(number) for number in re.findall(r"to train on, (\d+) to validate with", ended.shown))


def test_a_hospital_that_fails_voids_the_step_which_is_played_again_without_it(ground: Path) -> None:
    def meddle(hospital: str, order: TrainOrder | EvaluateOrder, reply: Message) -> Message | None:
        if hospital == "birch" and order.round == 2 and isinstance(order, TrainOrder):
            raise RuntimeError("the network is gone")
        return None

    ended = play(ground, "failing-once", *FOUR, load_app=meddling(meddle))
    second, third = ended.state().rounds[1:3]
    assert len(second.void) == 1
    assert "birch" in second.void[0]
    assert sorted(second.invited) == ["alder", "cedar", "dogwood"]
    assert "birch" in second.dropped
    assert sorted(third.invited) == ["alder", "birch", "cedar", "dogwood"], "it is there again"
    used = {hospital: tags(ended.folder, hospital) for hospital in (*HOSPITALS, "dogwood")}
    assert ("train", 2, 1) in used["alder"], "what it had reserved stays charged"
    assert ("train", 2, 2) in used["alder"]
    assert ("train", 2, 1) in used["birch"]
    assert ("train", 2, 2) not in used["birch"]


@pytest.mark.parametrize(
    "lie", ["random words", "too few words", "wider words", "no words", "another noise", "an old reply"]
)
def test_a_reply_that_cannot_be_added_costs_the_step_and_not_the_study(ground: Path, lie: str) -> None:
    kept: dict[str, TrainReport] = {}

    def meddle(hospital: str, order: TrainOrder | EvaluateOrder, reply: Message) -> Message | None:
        if hospital != "cedar" or not isinstance(order, TrainOrder):
            return None
        report = wire.decode(reply.content, TrainReport, Refusal, KeyReport)
        assert isinstance(report, TrainReport)
        kept.setdefault("first", report)
        if order.round != 3 or _attempt(order).number != 1:
            return None
        words = report.arrays[WORDS]
        arrays = {
            "random words": {WORDS: np.random.default_rng(1).integers(0, 2**32, len(words), dtype=np.uint32)},
            "too few words": {WORDS: words[:-1]},
            "wider words": {WORDS: words.astype(np.uint64)},
            "no words": {},
            "another noise": {WORDS: words},
            "an old reply": {WORDS: kept["first"].arrays[WORDS]},
        }[lie]
        noise = report.noise_multiplier * (2 if lie == "another noise" else 1)
        told = TrainReport(
            report.study, report.round, report.epsilon, report.delta, noise, report.ledger_head, arrays=arrays
        )
        return _instead(reply, told)

    ended = play(ground, f"lying-{lie.replace(' ', '-')}", *FOUR, load_app=meddling(meddle))
    records = ended.state().rounds
    assert len(records) == ROUNDS
    assert len(records[2].void) == 1
    blamed = "cedar" in records[2].void[0]
    assert blamed == (lie not in ("random words", "an old reply")), "what only the sum shows has no name"
    assert all(np.isfinite(value).all() for value in ended.state().weights.values())


def _instead(reply: Message, report: TrainReport) -> Message:
    reply.content = wire.encode(report)
    return reply


def test_below_the_minimum_there_is_no_sum(ground: Path) -> None:
    def meddle(hospital: str, order: TrainOrder | EvaluateOrder, reply: Message) -> Message | None:
        if hospital == "cedar" and order.round == 2:
            raise RuntimeError("gone")
        return None

    with pytest.raises(RoundFailed, match="3 usable"):
        play(ground, "too-few", *SHARED, load_app=meddling(meddle))
    folder = next((ground / "studies").glob("too-few-*"))
    assert max(round for _, round, _ in tags(folder, "alder")) == 2


@pytest.mark.parametrize("every", [10])
def test_one_step_in_ten_may_be_void_and_the_study_ends_within_its_budget(ground: Path, every: int) -> None:
    seen: dict[str, int] = defaultdict(int)

    def meddle(hospital: str, order: TrainOrder | EvaluateOrder, reply: Message) -> Message | None:
        if hospital == "dogwood" and isinstance(order, TrainOrder):
            seen["steps"] += 1
            if seen["steps"] % every == 0:
                raise RuntimeError("gone")
        return None

    ended = play(ground, "one-in-ten", *FOUR, "federation.rounds=50", load_app=meddling(meddle))
    records = ended.state().rounds
    assert len(records) == 50
    assert sum(len(record.void) for record in records) >= 4
    for hospital in HOSPITALS:
        assert epsilon_of([e.mechanism for e in entries(ended.folder, hospital) if e.use.cohort == "train"], 1e-4) <= 8


def recorded(path: Path) -> LoadApp:
    """An app that notes what leaves under which tag, before it leaves: a line for each reply."""

    def meddle(hospital: str, order: TrainOrder | EvaluateOrder, reply: Message) -> Message | None:
        report = wire.decode(reply.content, TrainReport, EvaluateReport, Refusal) if not reply.has_error() else None
        if isinstance(report, TrainReport | EvaluateReport) and WORDS in report.arrays:
            digest = hashlib.sha256(report.arrays[WORDS].tobytes()).hexdigest()
            with path.open("a") as file:
                kind = type(order).__name__
                file.write(f"{hospital} {kind} {order.round} {_attempt(order).number} {digest}\n")
        return None

    return meddling(meddle)


def _noted(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def _sent(ground: Path, name: str) -> Path:
    return ground / f"{name}.sent"


def _play_recorded(ground: Path, name: str, *overrides: str) -> Ended:
    return play(ground, name, *overrides, load_app=recorded(_sent(ground, name)))


def drill(ground: Path, name: str, kills: int, seed: int, *overrides: str) -> Ended:
    """Kill a study with -9 at random moments, then let it end; every tag has one message, and the ledgers are right."""
    rng, noted, killed = random.Random(seed), _sent(ground, name), 0
    while killed < kills:
        child = started(_play_recorded, ground, name, *overrides)
        aim, ends = _noted(noted) + rng.randint(0, 3), time.monotonic() + 60
        while _noted(noted) < aim and time.monotonic() < ends and child.is_alive():
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3))
        child.kill()
        if exit_code(child) == 0:
            break
        killed += 1
    assert killed > kills // 2, "it was over before it could be killed"
    ended = _play_recorded(ground, name, *overrides)
    sent: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for line in noted.read_text().splitlines():
        *tag, digest = line.split()
        if len(tag) == 4 and len(digest) == 64:  # a kill cuts the last line
            sent[tuple(tag)].add(digest)
    assert sent
    assert all(len(messages) == 1 for messages in sent.values()), "two messages under one pad"
    for hospital in HOSPITALS:
        used = tags(ended.folder, hospital)
        assert len(used) == len(set(used)), "a tag was reserved twice"
        in_ledger = {(round, attempt) for cohort, round, attempt in used if cohort == "train"}
        left = {(int(tag[2]), int(tag[3])) for tag in sent if tag[0] == hospital and tag[1] == "TrainOrder"}
        assert left <= in_ledger, "something left that is not in the ledger"
        assert epsilon_of([e.mechanism for e in entries(ended.folder, hospital) if e.use.cohort == "train"], 1e-4) <= 8
    return ended


def _play_to_a_death(ground: Path) -> None:
    """The process ends after the second of three hospitals has reserved the third round."""
    real, steps = client.app.summed_step, list[int]()

    def dying(*given: Any, **named: Any) -> Any:
        steps.append(1)
        if len(steps) == 3 * 2 + 2:
            os._exit(9)
        return real(*given, **named)

    with patch.object(client.app, "summed_step", dying):
        play(ground, "killed-over-it", *SHARED)


def test_a_kill_between_reservation_and_reply_voids_the_step_for_good(ground: Path) -> None:
    """The hospital's pad is taken, and nobody knows for what: it is not computed again."""
    assert exit_code(started(_play_to_a_death, ground)) == 9
    ended = play(ground, "killed-over-it", *SHARED)
    third = ended.state().rounds[2]
    assert len(third.void) == 1
    assert f"birch: refused with {wire.ErrorCode.TAG_USED}" in third.void[0]
    assert [tag[1:] for tag in tags(ended.folder, "birch") if tag[1] == 3] == [(3, 1), (3, 2)]
    assert [tag[1:] for tag in tags(ended.folder, "cedar") if tag[1] == 3] == [(3, 2)], "it was not asked in vain"
    assert ended.state().rounds[2].dropped == {}, "nobody is left out for having been killed"


def test_killed_again_and_again_no_tag_is_used_twice_and_the_study_ends(ground: Path) -> None:
    play(ground, "warm", *SHARED)
    ended = drill(ground, "killed-shared", 8, 20260101, *SHARED, "federation.rounds=25", "privacy.spare=4")
    state = read_state(ended.folder / "federated")
    assert state is not None
    assert len(state.rounds) == 25
