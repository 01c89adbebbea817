"""Hospitals with other classes, and what helps: `python -m tests.benchmarks.bench_skew`.

Six hospitals of 60 invented patients, 10 to 90 percent of them positive, and a logistic regression with many steps a
round. Both halves of each method are the real ones: the hospital's private steps and the server's strategy, with no
wire between. How far the shared model's loss, over all hospitals, is above the least there is, by round: first without
noise, then with the noise of epsilon 8. Draws ``benchmarks/skew.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import minimize
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from client.cohort.dataset import Cohort
from client.ledger.accounting import Mechanism
from client.training import methods
from client.training.noise import entropy
from client.training.train import Pull, train_locally
from conf import load
from conf.schema.strategy import FedAvg, FedProx, Scaffold, StrategySettings
from conf.schema.training import TrainingSettings
from server.strategy.client_terms import method_of
from server.strategy.local_sgd import local_move
from server.strategy.registry import build
from server.study.document import document_of
from tasks import task as tasks
from tasks.models.registry import arrays_of
from tasks.protocol.study import TrainingTerms
from tasks.protocol.wire import Arrays, TrainOrder
from tests.benchmarks import machine
from tests.client.reserving import plan_noise

PATIENTS, FEATURES, ROUNDS, SEEDS = 60, 8, 30, 3
POSITIVES = (0.1, 0.1, 0.3, 0.7, 0.9, 0.9)
TRAINING = TrainingSettings(steps=20, learning_rate=0.5, sample_rate=0.5, images_per_patient=1)
CLIP, EPSILON, DELTA = 1.0, 8.0, 1e-3
STRATEGIES: dict[str, StrategySettings] = {
    "FedAvg": FedAvg(),
    "FedProx mu=0.3": FedProx(mu=0.3),
    "FedProx mu=1": FedProx(mu=1.0),
    "SCAFFOLD": Scaffold(),
}
_COLOURS = ("#6c757d", "#b58900", "#cc6600", "#0072b2")
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Hospitals, and the least mean loss of one model over all of them."""

    hospitals: list[Cohort]
    least: float

    def loss(self, x: NDArray[np.float64]) -> float:
        weight, bias = torch.from_numpy(x[:-1]), float(x[-1])
        each = [
            binary_cross_entropy_with_logits(c.inputs.double() @ weight + bias, c.targets[:, 0].double())
            for c in self.hospitals
        ]
        return float(np.mean([float(value) for value in each]))


def draw(seed: int, positives: Sequence[float] = POSITIVES) -> Problem:
    """Two classes whose centres are 2 apart; each hospital's scanner adds an offset of its own."""
    rng, hospitals = np.random.default_rng(seed), []
    for fraction in positives:
        labels = (np.arange(PATIENTS) < fraction * PATIENTS).astype(np.float32)
        inputs = rng.normal(size=(PATIENTS, FEATURES)) + 0.5 * rng.normal(size=FEATURES)
        inputs[:, 0] += 2 * labels
        rows = list(torch.arange(PATIENTS).view(-1, 1))
        hospitals.append(Cohort(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels)[:, None], rows))
    problem = Problem(hospitals, 0.0)
    found = minimize(problem.loss, np.zeros(FEATURES + 1), tol=1e-12)
    return replace(problem, least=float(found.fun))


def play(
    problem: Problem,
    settings: StrategySettings,
    noises: Sequence[float],
    training: TrainingSettings = TRAINING,
) -> Curve:
    """The excess loss after each round; ``noises`` has the multiplier of each."""
    study = replace(load.load([f"federation.rounds={ROUNDS}"]), strategy=settings, training=training)
    document = replace(document_of(study, "skew-1", {}), method=method_of(settings))
    module = nn.Linear(FEATURES, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    weights, curve = arrays_of(module), []
    memory: Arrays = build(settings).start(weights)
    kept = [dict[str, NDArray[np.float32]]() for _ in problem.hospitals]
    for number, noise in enumerate(noises, start=1):
        strategy = build(settings, local_move(training, number, ROUNDS))
        combiner = strategy.combiner(weights, len(problem.hospitals))
        order = TrainOrder(document, number, weights | strategy.sent_along(memory))
        for index, cohort in enumerate(problem.hospitals):
            trained = train(order, kept[index], cohort, noise)
            kept[index] = trained.state
            combiner.add(str(index), trained.update, 1.0)
        weights, memory = strategy.step(weights, memory, combiner.combined(), 1.0)
        x = np.concatenate([weights["weight"].reshape(-1), weights["bias"]]).astype(np.float64)
        curve.append(problem.loss(x) - problem.least)
    return np.array(curve)


def train(order: TrainOrder, kept: Arrays, cohort: Cohort, noise: float) -> methods.Trained:
    """One hospital's part of a round."""
    module, task = nn.Linear(FEATURES, 1), tasks.get("breast_ultrasound")
    methods.load_model(module, order, kept)

    def steps(terms: TrainingTerms, pull: Pull | None) -> Arrays:
        mechanism = Mechanism(noise, terms.sample_rate, terms.steps)
        return train_locally(
            module,
            task,
            cohort,
            terms,
            mechanism=mechanism,
            clip_norm=CLIP,
            public_size=PATIENTS,
            generator=entropy(),
            pull=pull,
        )

    return methods.train_round(module, order, kept, steps)


def draw_figure(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    """Excess loss by round, without and with noise; the band is one standard deviation over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for each, (title, by_strategy) in zip(axes, curves.items(), strict=True):
        for colour, (name, runs) in zip(_COLOURS, by_strategy.items(), strict=True):
            mean, spread = runs.mean(axis=0), runs.std(axis=0)
            rounds = np.arange(1, len(mean) + 1)
            each.plot(rounds, mean, color=colour, label=name)
            each.fill_between(rounds, np.maximum(mean - spread, 1e-7), mean + spread, color=colour, alpha=0.2)
        each.set_yscale("log")
        each.set_title(title)
        each.set_xlabel("round")
        each.grid(alpha=0.3)
        each.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("loss above the least")
    axes[1].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def report(console: Console, folder: Path) -> None:
    """Play everything, print the table, draw the figure, write the numbers."""
    private = plan_noise([], TRAINING.sample_rate, TRAINING.steps * ROUNDS, EPSILON, DELTA)
    curves: dict[str, dict[str, Curve]] = {}
    for title, noise in (("no noise", 0.0), (f"epsilon {EPSILON:g}", private)):
        curves[title] = {
            name: np.stack([play(draw(seed), settings, [noise] * ROUNDS) for seed in range(SEEDS)])
            for name, settings in STRATEGIES.items()
        }
    table = Table(title=f"loss above the least after {ROUNDS} rounds, mean and deviation of {SEEDS} seeds")
    table.add_column("strategy")
    for title in curves:
        table.add_column(title, justify="right")
    for name in STRATEGIES:
        last = [by_strategy[name][:, -5:].mean(axis=1) for by_strategy in curves.values()]
        table.add_row(name, *(f"{values.mean():.5f} ± {values.std():.5f}" for values in last))
    console.print(table)
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {title: {name: runs.tolist() for name, runs in rows.items()} for title, rows in curves.items()}
    (folder / "skew.json").write_text(
        json.dumps({"machine": machine.facts(), "noise": private, "curves": numbers}, indent=1)
    )
    draw_figure(curves, folder / "skew.png")
    console.print(f"noise multiplier at epsilon {EPSILON:g}: {private}; numbers and figure: {folder}/skew.*")


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    torch.set_num_threads(1)
    report(Console(width=110), parser.parse_args().output)


if __name__ == "__main__":
    main()
