"""Which training of ``scatter_outline`` wins within a privacy budget: `python -m tests.benchmarks.search_outlines`.

One change at a time from an experiment with outlines, on phantoms of seeds that no reported table uses. An outline's
gradient has no closed form, so that a configuration takes minutes where ``search_linear`` takes seconds: a handful of
them is tried, each by the command that researchers type. What has ended is written down at once, and the next call
goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks import machine
from tests.benchmarks.bench_tasks import PHANTOMS, QUIET, Figures, figures
from tests.benchmarks.studies import results_of

SEEDS, EPSILONS = (11, 12), ("null", "8", "3")
CHANGES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "FedAvg": ("strategy=fedavg",),
    "SCAFFOLD": ("strategy=scaffold",),
    "SCAFFOLD, rate 0.5": ("strategy=scaffold", "training.learning_rate=0.5"),
    "SCAFFOLD, rate 2": ("strategy=scaffold", "training.learning_rate=2"),
    "SCAFFOLD, all": ("strategy=scaffold", "training.sample_rate=1"),
    "20 rounds of 5 steps": ("strategy=fedavg", "federation.rounds=20", "training.steps=5"),
    "rate 2": ("training.learning_rate=2",),
    "rate 0.5": ("training.learning_rate=0.5",),
    "all": ("training.sample_rate=1",),
    "rate 2 falling to 0.2, all": (
        *("training.learning_rate=2", "training.final_rate=0.1"),
        "training.sample_rate=1",
    ),
    "four images": ("training.images_per_patient=4",),
    "four images, half the steps": ("training.images_per_patient=4", "training.steps=10"),
    "four images, twice the steps": ("training.images_per_patient=4", "training.steps=40"),
}
"""``training=outlines`` has rate 1, one image a patient, 40 % of the patients in each of 20 steps a round."""


def play(words: Iterable[str]) -> Figures:
    """Run a study: mean AUC of the question over hospitals, and mean Dice over structures of everybody's patients."""
    with tempfile.TemporaryDirectory() as home:
        told = figures(results_of([*words, *QUIET, "evaluation.arms=[]"], Path(home)))["federated"]
    dice = [value for name, value in told.items() if name.startswith("Dice ")]
    return {"AUC": told["AUC"], "Dice": float(np.mean(dice))}


def table_of(experiment: str, rows: dict[str, list[Figures]]) -> Table:
    """Means over all trainings of a change."""
    table = Table(title=f"{experiment}: AUC of the question and Dice, and of how many trainings they are means")
    for heading in ("change", "no noise", *(f"epsilon {epsilon}" for epsilon in EPSILONS[1:])):
        table.add_column(heading)
    for change in CHANGES:
        each = [[one for seed in SEEDS for one in rows.get(f"{change} {epsilon} {seed}", [])] for epsilon in EPSILONS]
        if any(each):
            means = ({name: np.mean([one[name] for one in told]) for name in ("AUC", "Dice")} for told in each if told)
            cells = (f"{mean['AUC']:.3f}, {mean['Dice']:.3f}" for mean in means)
            table.add_row(change, *(f"{next(cells)} ({len(told)})" if told else "" for told in each))
    return table


def main() -> None:
    """Play what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=[name for name in PHANTOMS if name.endswith("_outlined")])
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--change", choices=CHANGES, action="append", help="instead of all")
    parser.add_argument("--draws", type=int, default=1, help="trainings of a seed at each epsilon")
    asked = parser.parse_args()
    file = asked.output / f"outlines-{asked.experiment}.json"
    rows: dict[str, list[Figures]] = json.loads(file.read_text())["rows"] if file.exists() else {}
    asked.output.mkdir(parents=True, exist_ok=True)
    wanted = [(seed, epsilon, change) for seed in SEEDS for epsilon in EPSILONS for change in asked.change or CHANGES]
    for seed, epsilon, change in track(wanted, asked.experiment):
        told = rows.setdefault(f"{change} {epsilon} {seed}", [])
        while len(told) < (1 if epsilon == "null" else asked.draws):
            told.append(
                play([f"experiment={asked.experiment}", f"seed={seed}", f"privacy.epsilon={epsilon}", *CHANGES[change]])
            )
            file.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    Console(width=110).print(table_of(asked.experiment, rows))


if __name__ == "__main__":
    main()
