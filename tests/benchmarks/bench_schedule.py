"""Whether a schedule of noise helps: `python -m tests.benchmarks.bench_schedule`.

The six hospitals of ``bench_skew``, whose classes differ, and as many whose classes do not. FedAvg with noise that
falls to a third over the rounds, stays, and rises threefold, all within one epsilon; alone, and with a learning rate
that falls to a tenth. How far the shared model's loss is above the least there is at the end, and by seed how much
better or worse than without a schedule.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from client.ledger.accounting import noise_at, plan_scale
from conf.schema.strategy import FedAvg
from tasks.protocol.study import TrainingTerms
from tests.benchmarks import bench_skew as skew
from tests.benchmarks import machine
from tests.benchmarks.studies import difference, level

FACTORS, RATES, SEEDS = (1.0, 1 / 3, 3.0), (1.0, 0.1), 8
CLASSES = {"classes differ": skew.POSITIVES, "classes alike": (0.5,) * len(skew.POSITIVES)}
_AT_THE_END = 3


def noises(factor: float) -> list[float]:
    """The noise multiplier of each round, as a hospital plans it."""
    terms = replace(TrainingTerms(**asdict(skew.TRAINING)), final_noise=factor)
    factors = [terms.noise_in(number, skew.ROUNDS) for number in range(1, skew.ROUNDS + 1)]
    ahead = [(each, terms.steps) for each in factors]
    scale = plan_scale([], terms.sample_rate, ahead, skew.EPSILON, skew.DELTA)
    return [noise_at(scale, each) for each in factors]


def losses(positives: Sequence[float], planned: list[float], rate: float) -> list[float]:
    """Mean excess loss of the last rounds, by seed."""
    training = replace(skew.TRAINING, final_rate=rate)
    curves = [skew.play(skew.draw(seed, positives), FedAvg(), planned, training) for seed in range(SEEDS)]
    return [float(np.mean(curve[-_AT_THE_END:])) for curve in curves]


def report(console: Console, output: Path) -> None:
    """Play everything, print the table, write the numbers."""
    planned = {factor: noises(factor) for factor in FACTORS}
    found = {
        title: {
            f"{factor:.2g} {rate:g}": losses(positives, planned[factor], rate) for rate in RATES for factor in FACTORS
        }
        for title, positives in CLASSES.items()
    }
    table = Table(title=f"loss above the least after {skew.ROUNDS} rounds at epsilon {skew.EPSILON:g}, {SEEDS} seeds")
    for heading in ("hospitals", "rate falls to", "noise ends at", "noise", "loss", "less the one without a schedule"):
        table.add_column(heading)
    for title, rows in found.items():
        for rate in RATES:
            for factor in FACTORS:
                mine, base = rows[f"{factor:.2g} {rate:g}"], rows[f"1 {rate:g}"]
                told = "" if factor == 1 else difference([a - b for a, b in zip(mine, base, strict=True)])
                levels = f"{planned[factor][0]:.2f} to {planned[factor][-1]:.2f}"
                table.add_row(title, f"{rate:g}", f"{factor:.2g}", levels, level(mine), told)
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    numbers = {"noises": {f"{factor:.2g}": each for factor, each in planned.items()}, "losses": found}
    output.write_text(json.dumps({"machine": machine.facts(), **numbers}, indent=1))
    console.print(f"numbers: {output}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/schedule.json"))
    torch.set_num_threads(1)
    report(Console(width=130), parser.parse_args().output)


if __name__ == "__main__":
    main()
