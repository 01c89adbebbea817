"""Models as changes and updates in eight bits, through the real hospitals: who holds what, and what it weighs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.ledger.accounting import epsilon_of
from server import simulation
from server.__main__ import client_app
from tasks.protocol import wire
from tasks.protocol.wire import EvaluateOrder, TrainOrder
from tests.federation.embedded import HOSPITALS, Ended, entries, play
from tests.server import delaying

LEAN = ("wire=lean", "evaluation.arms=[]", "federation.rounds=3", "model.pool=4", "model.L=4")
_orders: list[tuple[str, int, str]] = []


def noting_app() -> ClientApp:
    """The hospitals' app, noting how each order came."""
    return _wrapped(lambda order, site: None)


def forgetful_app() -> ClientApp:
    """Hospitals that lose the model before they are asked to train in round 2."""

    def lose(order: TrainOrder | EvaluateOrder, site: str) -> None:
        if isinstance(order, TrainOrder) and order.round == 2 and order.change is not None:
            for held in (Path(site).parent / "kept").glob(f"{Path(site).stem}.*.model.safetensors"):
                held.unlink()

    return _wrapped(lose)


def _wrapped(before: object) -> ClientApp:
    inner, app = client_app(), ClientApp()

    def answer(message: Message, context: Context) -> Message:
        order = wire.decode(message.content, TrainOrder, EvaluateOrder)
        way = "whole" if order.change is None else "change" if order.arrays else "digest"
        _orders.append((type(order).__name__[:5], order.round, way))
        before(order, str(context.node_config["site"]))  # type: ignore[operator]
        return inner(message, context)

    app.train()(answer)
    app.evaluate()(answer)
    return app


@pytest.fixture(scope="module")
def lean_study(ground: Path) -> tuple[Ended, list[tuple[str, int, str]]]:
    _orders.clear()
    return play(ground, "lean", *LEAN, load_app=noting_app), list(_orders)


def test_a_model_travels_whole_once_and_never_twice(lean_study: tuple[Ended, list[tuple[str, int, str]]]) -> None:
    ended, orders = lean_study
    expected = [
        ("Train", 1, "whole"),
        ("Evalu", 1, "change"),
        ("Train", 2, "digest"),
        ("Evalu", 2, "change"),
        ("Train", 3, "digest"),
        ("Evalu", 3, "change"),
    ]
    assert orders == [each for each in expected for _ in HOSPITALS]
    assert ended.results.dropped == {}


def test_it_costs_what_it_costs_otherwise(lean_study: tuple[Ended, list[tuple[str, int, str]]]) -> None:
    ended, _ = lean_study
    for hospital in HOSPITALS:
        trained = [entry for entry in entries(ended.folder, hospital) if entry.use.cohort == "train"]
        assert [entry.use.round for entry in trained] == [1, 2, 3]
        assert 7 < epsilon_of([entry.mechanism for entry in trained], 1e-4) <= 8


def test_whoever_lost_the_model_is_sent_it_whole_and_loses_no_round(ground: Path) -> None:
    _orders.clear()
    ended = play(ground, "forgetful", *LEAN, load_app=forgetful_app)
    assert [way for kind, round, way in _orders if (kind, round) == ("Train", 2)] == ["digest"] * 3 + ["whole"] * 3
    assert ended.results.dropped == {}
    for hospital in HOSPITALS:
        assert [e.use.round for e in entries(ended.folder, hospital) if e.use.cohort == "train"] == [1, 2, 3]


def test_what_hospitals_were_told_is_the_model_that_is_kept(
    lean_study: tuple[Ended, list[tuple[str, int, str]]],
) -> None:
    ended, _ = lean_study
    state = ended.state()
    digest = wire.digest_of_arrays(state.weights)
    for hospital in HOSPITALS:
        (held,) = (ended.folder / "sites" / "kept").glob(f"{hospital}.*.model.safetensors")
        from safetensors.numpy import load

        assert wire.digest_of_arrays(load(held.read_bytes())) == digest
    assert state.residual.keys() == state.weights.keys()
    step = max(float(np.abs(value).max()) for value in state.weights.values()) / 127
    assert all(np.abs(value).max() < step for value in state.residual.values())


def test_a_lean_study_that_was_killed_goes_on_with_the_very_orders_it_would_have_given(ground: Path) -> None:
    """Between two rounds; the state holds what rounding took, so the next model is told in the same bits."""
    _orders.clear()
    killed = {"yet": False}

    class Killed(BaseException):
        pass

    def dying_app() -> ClientApp:
        def die(order: TrainOrder | EvaluateOrder, site: str) -> None:
            if isinstance(order, EvaluateOrder) and order.round == 2 and not killed["yet"]:
                killed["yet"] = True
                raise KeyboardInterrupt

        return _wrapped(die)

    with pytest.raises(KeyboardInterrupt):
        play(ground, "killed", *LEAN, load_app=dying_app)
    ended = play(ground, "killed", *LEAN, load_app=dying_app)
    for hospital in HOSPITALS:
        trained = [e for e in entries(ended.folder, hospital) if e.use.cohort == "train"]
        assert [e.use.round for e in trained] == [1, 2, 3], "round 2 was asked for again, and answered from the ledger"


class Delaying(delaying.Delaying):
    slow = "cedar"


def test_a_late_lean_update_of_an_older_model_is_carried_and_costs_nothing_more(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes of a change to the model of round 1 come in round 2: they are the hospital's update all the same. What the
    hospital reserved, it reserved for round 1, and its error feedback goes on."""
    monkeypatch.setattr(simulation, "LocalGrid", Delaying)
    late = (*LEAN, "federation.late_rounds=1", "federation.participation=0.67", "federation.over_selection=0.5")
    ended = play(ground, "late-lean", *late)
    rounds = ended.state().rounds
    assert [record.carried for record in rounds] == [{}, {"cedar": 1}, {}]
    assert [record.invited for record in rounds][1] == ["alder", "birch"]
    training = [entry for entry in entries(ended.folder, "cedar") if "train" in entry.use.cohort]
    assert training[0].use.round == 1
    assert 2 not in [entry.use.round for entry in training], "it was still at round 1"
    assert all(entry.committed is not None for entry in training)
    assert epsilon_of([entry.mechanism for entry in training], 1e-4) <= 8.0
    assert all("cedar" not in record.dropped or "the round closed" in record.dropped["cedar"] for record in rounds)
