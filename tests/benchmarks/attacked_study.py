"""Whole studies with default settings in which one hospital of five is hostile: the real app, wire, server and books.

Cedar, the smallest, trains as it should and then sends something else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from rich.console import Console

from conf import load
from conf.schema.federation import Phantom, PhantomFederation
from server.__main__ import client_app, provision_hospitals
from server.launch import run_study
from server.rounds.checkpoint import read_state
from server.strategy.honest_updates import Honest
from server.strategy.strategy import norm
from tasks.protocol import wire
from tasks.protocol.wire import TrainOrder, TrainReport

PATIENTS = {"alder": 90, "birch": 80, "dogwood": 70, "elm": 60, "cedar": 40}
HOSTILE = "cedar"
SETTINGS = (
    "experiment=demo",
    "tracking=none",
    "evaluation.arms=[]",
)

Attack = Callable[[TrainOrder, TrainReport], TrainReport]


def times(factor: float, order: TrainOrder, report: TrainReport) -> TrainReport:
    """So many times the update."""
    return replace(report, arrays={name: np.float32(factor) * value for name, value in report.arrays.items()})


def louder(order: TrainOrder, report: TrainReport) -> TrainReport:
    """The opposite, a hundred times as long, and said to have a hundred times the noise."""
    return replace(times(-100.0, order, report), noise_multiplier=100 * report.noise_multiplier)


def longest(order: TrainOrder, report: TrainReport) -> TrainReport:
    """The opposite, as long as nothing shortens it: what somebody sends who has read the server's code."""
    honest, size = Honest.of(order), order.study.sizes[HOSTILE]
    noise = 10 * report.noise_multiplier
    most = honest.counted(size, noise, order.round) / norm(report.arrays)
    return replace(times(-0.99 * most, order, report), noise_multiplier=noise)


ATTACKS: dict[str, Attack | None] = {
    "nothing": None,
    "sign flip x 100": partial(times, -100.0),
    "sign flip x 100, claims 100 times the noise": louder,
    "sign flip x 1": partial(times, -1.0),
    "sign flip, as long as is counted": longest,
    "zeros": partial(times, 0.0),
}


@dataclass(frozen=True)
class Played:
    """One study: mean AUC of the honest hospitals, rounds in which cedar was dropped and named, and all warnings."""

    auc: float
    dropped: int
    named: int
    warnings: list[str]


def hostile_app(attack: Attack | None) -> ClientApp:
    """The hospitals' app, of which cedar replaces what it trained."""
    real, app = client_app(), ClientApp()

    def train(message: Message, context: Context) -> Message:
        reply = real(message, context)
        if attack is None or HOSTILE not in Path(str(context.node_config["site"])).name:
            return reply
        order, report = wire.decode(message.content, TrainOrder), wire.decode(reply.content, TrainReport)
        return Message(wire.encode(attack(order, report)), reply_to=message)

    app.train()(train)
    app.evaluate()(lambda message, context: real(message, context))
    return app


def play(output: Path, name: str, attack: Attack | None, seed: int, *overrides: str) -> Played:
    """A whole study."""
    study = load.load([*SETTINGS, f"output_dir={output}", f"seed={seed}", *overrides])
    hospitals = {name: Phantom(patients=count) for name, count in PATIENTS.items()}
    assert isinstance(study.federation, PhantomFederation)
    study = replace(study, experiment=name, federation=replace(study.federation, hospitals=hospitals))
    outcome = run_study(study, provision_hospitals, lambda: hostile_app(attack), Console(file=StringIO()))
    state = read_state(output / "studies" / outcome.study / "federated")
    assert state is not None
    aucs = [figures.auc for who, figures in state.outcome.hospitals.items() if who != HOSTILE and figures.auc]
    dropped = sum("train: " in record.dropped.get(HOSTILE, "") for record in state.rounds)
    named = sum(HOSTILE in record.named for record in state.rounds)
    return Played(statistics.mean(aucs), dropped, named, outcome.warnings)


def table(found_by_attack: dict[str, list[Played]]) -> str:
    """As Markdown: mean and standard deviation over seeds."""
    lines = ["| cedar does | AUC of the four honest hospitals | dropped | named | warnings |", "|---|---|---|---|---|"]
    for attack, played in found_by_attack.items():
        aucs = [one.auc for one in played]
        spread = f" ± {statistics.stdev(aucs):.3f}" if len(aucs) > 1 else ""
        sums = [statistics.mean(v) for v in zip(*((p.dropped, p.named, len(p.warnings)) for p in played), strict=True)]
        lines.append(
            f"| {attack} | {statistics.mean(aucs):.3f}{spread} | " + " | ".join(f"{s:.1f}" for s in sums) + " |"
        )
    return "\n".join(lines)
