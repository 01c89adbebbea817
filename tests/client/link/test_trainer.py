"""The trainer's forks: one order each, killed when nobody waits any more, spoken for when they die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp

from client.link import trainer
from client.link.flower_trainer import OrderHead
from client.link.trainer import Gateway, Trainer
from tasks.machine.pulse import Pulse, Watched

RECEIPT = OrderHead(b"the head of an order", 2**63 + 5, 30.0)


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, OrderHead]]:
    """Orders for whose dead processes the trainer has spoken."""
    found: list[tuple[str, OrderHead]] = []
    monkeypatch.setattr(trainer, "answer_for_the_dead", lambda _, token, receipt: found.append((token, receipt)))
    return found


def answered(monkeypatch: pytest.MonkeyPatch, child: Callable[[Callable[[OrderHead], None]], None]) -> None:
    """Let a trainer answer one order in a fork that does this."""
    monkeypatch.setattr(trainer, "answer", lambda address, token, app, received: child(received))
    Trainer(Gateway("127.0.0.1:1", b"secret"), ClientApp())._answer("token")


def test_an_order_is_answered_in_a_process_of_its_own(
    monkeypatch: pytest.MonkeyPatch, spoken: list[tuple[str, OrderHead]], tmp_path: Path
) -> None:
    def child(received: Callable[[OrderHead], None]) -> None:
        received(RECEIPT)
        (tmp_path / "pid").write_text(str(os.getpid()))

    answered(monkeypatch, child)
    assert int((tmp_path / "pid").read_text()) != os.getpid()
    assert spoken == []


@pytest.mark.parametrize("how", ["signal", "exit", "raise"])
def test_who_dies_with_an_order_is_spoken_for(
    monkeypatch: pytest.MonkeyPatch, spoken: list[tuple[str, OrderHead]], how: str
) -> None:
    def child(received: Callable[[OrderHead], None]) -> None:
        received(RECEIPT)
        if how == "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exit":
            os._exit(9)
        raise RuntimeError("text that must not leave")

    answered(monkeypatch, child)
    assert spoken == [("token", RECEIPT)]


def test_who_dies_before_it_has_read_its_order_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, spoken: list[tuple[str, OrderHead]], tmp_path: Path
) -> None:
    def child(received: Callable[[OrderHead], None]) -> None:
        with (tmp_path / "tries").open("a") as file:
            file.write("x")
        if (tmp_path / "tries").read_text() == "x":
            os.kill(os.getpid(), signal.SIGKILL)
        received(RECEIPT)

    answered(monkeypatch, child)
    assert (tmp_path / "tries").read_text() == "xx"
    assert spoken == []


def test_an_order_that_is_not_answered_in_time_is_given_up(
    monkeypatch: pytest.MonkeyPatch, spoken: list[tuple[str, OrderHead]]
) -> None:
    late = OrderHead(b"head", 1, 0.05)

    def child(received: Callable[[OrderHead], None]) -> None:
        received(late)
        time.sleep(600)

    answered(monkeypatch, child)
    assert spoken == [("token", late)]


def test_a_trainer_that_waits_for_an_answer_is_alive(
    monkeypatch: pytest.MonkeyPatch, spoken: list[tuple[str, OrderHead]], tmp_path: Path
) -> None:
    alive = tmp_path / "alive"
    watched = Watched(alive, silent_s=60)
    monkeypatch.setattr(trainer, "answer", lambda address, token, app, received: received(RECEIPT))
    Trainer(Gateway("127.0.0.1:1", b"secret"), ClientApp(), Pulse(alive))._answer("token")
    assert watched()
