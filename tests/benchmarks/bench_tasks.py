"""Every task's phantoms, and real images: `python -m tests.benchmarks.bench_tasks`.

Each hospital alone, all patients in one place, federated without noise, and at epsilon 8, 3 and 1, over three seeds, by
the experiments as they are in ``conf/experiment``; where there is one for an epsilon, by that. A seed draws phantoms,
splits and first weights. Real images come from the folder that ``CONSILIUM_DATA`` names, and are left out where there
is none. Figures are means over seeds, with their deviation; at an epsilon each seed's is a mean over draws of the
noise. ``--set`` tries another configuration. Slow: minutes an experiment and seed. What has ended is written down at
once, and the next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.load import FOLDER
from tests.benchmarks import machine
from tests.benchmarks.studies import data_root, results_of

SEEDS = (1, 2, 3)
EPSILONS = {"no noise": "null", "epsilon 8": "8", "epsilon 3": "3", "epsilon 1": "1"}
QUIET = ("resume=never", "tracking=none", "evaluation.every=100", "evaluation.paired=false")
PHANTOMS = (
    "demo", "lung_phantoms", "chest_phantoms", "pneumonia_phantoms", "heart_phantoms", "nodule_phantoms",
    "glioma_phantoms", "breast_outlined", "heart_outlined", "nodules_outlined", "gliomas_outlined",
)  # fmt: skip
REAL = {
    "busi": "us_breast_busi",
    "busi_outlined": "us_breast_busi_seg",
    "lung": "us_lung_sites",
    "pneumoniamnist": "pneumoniamnist",
}
"""Experiments on real images, and what each reads of the folder that has them."""
DRAWS = 3
"""How often what is private is trained: one draw of the noise alone says little."""
Figures = dict[str, float]


def figures(results: dict[str, Any]) -> dict[str, Figures]:
    """Of each arm: the mean AUC over hospitals that have one, and on everybody's patients AUC of secondary findings and
    Dice of structures."""
    found: dict[str, Figures] = {}
    for arm, hospitals in results["arms"].items():
        told = [figure["auc"] for figure in hospitals.values() if figure["auc"] is not None]
        found[arm] = {"AUC": float(np.mean(told))} if told else {}
    for what, key, kind in (("AUC", "auc", "findings"), ("Dice", "dice", "outlines")):
        for name, arms in results[kind].items():
            for arm, told in arms.items():
                if told["everybody"][key] is not None:
                    found[arm][f"{what} {name}"] = told["everybody"][key]["value"]
    return found


def studies(names: Iterable[str]) -> dict[str, list[str]]:
    """Overrides by experiment, without those whose images are not here."""
    data = data_root()
    found = {name: [f"experiment={name}"] for name in names}
    if data is None:
        return {name: words for name, words in found.items() if name not in REAL}
    return {n: [*words, f"data_root={data / REAL[n]}"] if n in REAL else words for n, words in found.items()}


def measure(words: Iterable[str], seed: int, draws: int) -> dict[str, Figures]:
    """The figures of one study and seed, by how its model was trained."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as home:
        common = [*words, f"seed={seed}"]
        for name, epsilon in EPSILONS.items():
            arms = "[local,pooled]" if name == "no noise" else "[]"
            asked = [*_at(epsilon, common), *QUIET, f"privacy.epsilon={epsilon}", f"evaluation.arms={arms}"]
            told = [figures(results_of(asked, Path(home))) for _ in range(1 if name == "no noise" else draws)]
            found[f"federated, {name}"] = {
                figure: float(np.mean([each["federated"][figure] for each in told])) for figure in told[0]["federated"]
            }
            found |= {arm: figures for arm, figures in told[0].items() if arm != "federated"}
    return found


def _at(epsilon: str, words: Iterable[str]) -> list[str]:
    """The words of a study, with the experiment whose settings are for this epsilon where there is one."""
    fitting = {f"experiment={path.stem}" for path in (FOLDER / "experiment").glob(f"*_epsilon{epsilon}.yaml")}
    return [at if (at := f"{word}_epsilon{epsilon}") in fitting else word for word in words]


def table_of(rows: dict[str, dict[str, Figures]]) -> Table:
    """One line a task and figure, one column a model."""
    columns = ("local", "pooled", *(f"federated, {name}" for name in EPSILONS))
    table = Table(title="mean ± deviation over seeds")
    for heading in ("study", "figure", *columns):
        table.add_column(heading)
    for task in sorted({key.rpartition(" ")[0] for key in rows}):
        of_seeds = [each for key, each in rows.items() if key.rpartition(" ")[0] == task]
        for figure in dict.fromkeys(name for each in of_seeds for arm in each.values() for name in arm):
            cells = [[each[c][figure] for each in of_seeds if figure in each.get(c, {})] for c in columns]
            table.add_row(task, figure, *(f"{np.mean(c):.3f} ± {np.std(c, ddof=1):.3f}" if c else "" for c in cells))
    return table


def main() -> None:
    """Measure what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/tasks.json"))
    parser.add_argument("--study", choices=[*PHANTOMS, *REAL], action="append", help="instead of all")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="instead of all")
    parser.add_argument("--draws", type=int, default=DRAWS, help="trainings of a seed at each epsilon")
    parser.add_argument("--set", action="append", default=[], help="an override of the configuration")
    asked = parser.parse_args()
    kept = json.loads(asked.output.read_text()) if asked.output.exists() else {"rows": {}}
    for name, words in studies(asked.study or [*PHANTOMS, *REAL]).items():
        for seed in asked.seed or SEEDS:
            key = f"{name} {seed}"
            if key not in kept["rows"]:
                kept["rows"][key] = measure([*words, *asked.set], seed, asked.draws)
                asked.output.parent.mkdir(parents=True, exist_ok=True)
                asked.output.write_text(json.dumps({"machine": machine.facts(), "rows": kept["rows"]}, indent=1))
    Console(width=150).print(table_of(kept["rows"]))


if __name__ == "__main__":
    main()
