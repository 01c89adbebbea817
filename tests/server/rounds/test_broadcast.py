"""Models whole, as changes or not at all: by what a hospital was last seen to hold, and always to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from server.rounds.broadcast import Broadcast
from server.study.document import document_of
from tasks.protocol import encoding, wire
from tasks.protocol.study import Encoding, StudyDocument
from tasks.protocol.wire import Arrays, EvaluateOrder, TrainOrder
from tests.server import scripted

FORMS: tuple[Encoding, ...] = ("float16", "int8")


def document(form: str) -> StudyDocument:
    return document_of(scripted.study(f"wire.down={form}"), "broadcast-1", {})


def model(seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {"a": rng.normal(size=(40, 50)).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}


def received(content: RecordDict, held: Arrays, form: Encoding) -> Arrays:
    """What a hospital makes of it."""
    order = wire.decode(content, TrainOrder, EvaluateOrder)
    if order.change is None:
        return order.arrays
    assert order.change.base == wire.digest_of_arrays(held)
    if order.change.result == order.change.base:
        assert order.arrays == {}
        return held
    change = encoding.restore(order.arrays, form, held)
    after = {name: value + change[name] for name, value in held.items()}
    assert wire.digest_of_arrays(after) == order.change.result
    return after


@pytest.mark.parametrize("form", FORMS)
def test_whoever_follows_and_whoever_missed_a_round_end_with_the_same_bits(form: Encoding) -> None:
    broadcast, study, told, lost = Broadcast(form), document(form), model(0), {}
    hospitals: dict[str, Arrays] = {"steady": {}, "absent": {}}
    for number in range(1, 6):
        present = list(hospitals) if number != 3 else ["steady"]
        contents = broadcast.contents(TrainOrder(study, number, told), present)
        for name in present:
            hospitals[name] = received(contents[name], hospitals[name], form)
            broadcast.confirmed(name, TrainOrder(study, number, told))
            assert wire.digest_of_arrays(hospitals[name]) == wire.digest_of_arrays(told)
        ways = {name: wire.decode(content, TrainOrder).change for name, content in contents.items()}
        assert (ways["steady"] is None) is (number == 1)
        assert number != 4 or ways["absent"] is None, "it holds the model before the last one"
        told, lost = broadcast.rounded(told, {name: value + 0.1 for name, value in model(number).items()}, lost)


def test_models_that_travel_whole_are_one_object_for_all_and_nothing_is_remembered() -> None:
    broadcast, order = Broadcast(), TrainOrder(document("float32"), 1, model(0))
    contents = broadcast.contents(order, ["a", "b"])
    assert contents["a"] is contents["b"]
    broadcast.confirmed("a", order)
    assert wire.decode(broadcast.contents(order, ["a"])["a"], TrainOrder).arrays.keys() == order.arrays.keys()
    after = model(1)
    assert broadcast.rounded(model(0), after, {}) == (after, {})


def test_whoever_has_lost_it_is_sent_the_whole() -> None:
    broadcast, order = Broadcast("int8"), TrainOrder(document("int8"), 1, model(0))
    broadcast.confirmed("a", order)
    assert wire.decode(broadcast.contents(order, ["a"])["a"], TrainOrder).change is not None
    broadcast.forget("a")
    assert wire.decode(broadcast.contents(order, ["a"])["a"], TrainOrder).change is None


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(FORMS), st.integers(2, 12), st.integers(0, 99))
def test_what_is_told_follows_what_is_meant(form: Encoding, rounds: int, seed: int) -> None:
    """Error feedback: after many rounds only the rounding of the last one is missing."""
    broadcast, told, lost = Broadcast(form), model(seed), {}
    meant = {name: value.astype(np.float64) for name, value in told.items()}
    for number in range(1, rounds):
        step = model(1000 + seed + number)
        after = {name: value + step[name] for name, value in told.items()}
        told, lost = broadcast.rounded(told, after, lost)
        meant = {name: value + step[name] for name, value in meant.items()}
    for name, value in meant.items():
        np.testing.assert_allclose(told[name] + lost[name], value, atol=1e-4)
        assert np.abs(lost[name]).max() < 0.05
