"""Every task's phantoms, and real images: `python -m tests.benchmarks.bench_tasks`.

Each hospital alone, all patients in one place, federated without noise, and at epsilon 8 and 3, over three seeds; by
``scatter_linear``, and of tasks with structures by ``scatter_outline`` as well. A seed draws phantoms, splits and first
weights. Real images come from the folder that ``CONSILIUM_DATA`` names, and are left out where there is none. Figures
are means over seeds, with their deviation. ``--set`` tries another configuration. Slow: minutes a task and seed. What
has ended is written down at once, and the next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tasks import task as tasks
from tests.benchmarks import machine
from tests.benchmarks.studies import data_root

SEEDS = (1, 2, 3)
EPSILONS = {"no noise": "null", "epsilon 8": "8", "epsilon 3": "3"}
QUIET = ("tracking=none", "evaluation.every=100", "evaluation.paired=false")
FEDERATIONS = {
    "cardiac_ultrasound": "three_heart_phantoms",
    "chest_xray": "three_chest_phantoms",
    "lung_ultrasound": "three_lung_phantoms",
    "lung_ct": "three_scan_phantoms",
    "brain_mr": "three_scan_phantoms",
}
SMALL = ("model.resolution=0", "model.J=2", "model.L=8", "training.learning_rate=32", "privacy.clip_norm=0.5")
REAL = {
    "busi": "us_breast_busi",
    "busi_outlined": "us_breast_busi_seg",
    "lung": "us_lung_sites",
    "pneumoniamnist": "pneumoniamnist",
}
"""Experiments on real images, and what each reads of the folder that has them."""
OUTLINE = ("federation.rounds=5", "training.steps=20", "training.learning_rate=2", "training.momentum=0.9")
"""As ``conf/experiment/breast_outlined.yaml``."""
Figures = dict[str, float]


def federation(task: str) -> str:
    """The hospitals of a task's phantoms."""
    return FEDERATIONS.get(task, "three_phantoms")


def models(name: str) -> dict[str, list[str]]:
    """Overrides that choose a model which fits a task, by the model's name."""
    form = tasks.get(name).form
    volumes = "_3d" if len(form.shape) == 4 else ""
    small = list(SMALL) if min(form.shape[1:]) < 32 else []
    found = {"scatter_linear": [f"model=scatter_linear{volumes}", *small]}
    if form.structures:
        found["scatter_outline"] = [f"model=scatter_outline{volumes}", *small, *OUTLINE]
    return found


def command(overrides: Iterable[str], home: Path) -> list[str]:
    """What a researcher would type."""
    return [sys.executable, "-W", "ignore", "-m", "server", *overrides, *QUIET, f"output_dir={home}", "resume=never"]


def play(overrides: Iterable[str], home: Path) -> dict[str, Figures]:
    """Run a study in a folder that others share, and return the figures of each of its arms.

    Raises:
        SystemExit: the study failed; with what it printed.
    """
    asked = command(overrides, home)
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(asked)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    newest = max(home.glob("studies/*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    return figures(json.loads(newest.read_text()))


def figures(results: dict[str, Any]) -> dict[str, Figures]:
    """Of each arm: the mean AUC over hospitals that have one, and on everybody's patients AUC of further findings and
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
    """Overrides of every study of some tasks and experiments, by what it is called in the table."""
    found: dict[str, list[str]] = {}
    data = data_root()
    for name in names:
        if name not in REAL:
            common = [f"task={name}", f"federation={federation(name)}"]
            found |= {f"{name} {model}": [*common, *words] for model, words in models(name).items()}
        elif data is not None:
            found[name] = [f"experiment={name}", f"data_root={data / REAL[name]}"]
    return found


def measure(words: Iterable[str], seed: int) -> dict[str, Figures]:
    """All models of one study and seed, by name."""
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as home:
        common = [*words, f"seed={seed}"]
        for name, epsilon in EPSILONS.items():
            arms = "[local,pooled]" if name == "no noise" else "[]"
            asked = [*common, f"privacy.epsilon={epsilon}", f"evaluation.arms={arms}"]
            told = play(asked, Path(home))
            found[f"federated, {name}"] = told.pop("federated")
            found |= told
    return found


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
    names = [*tasks.names(), *REAL]
    parser.add_argument("--study", choices=names, action="append", help="a task or an experiment, instead of all")
    parser.add_argument("--seed", type=int, choices=SEEDS, action="append", help="instead of all")
    parser.add_argument("--model", choices=("scatter_linear", "scatter_outline"), help="instead of both")
    parser.add_argument("--set", action="append", default=[], help="an override of the configuration")
    asked = parser.parse_args()
    kept = json.loads(asked.output.read_text()) if asked.output.exists() else {"rows": {}}
    for name, words in studies(asked.study or names).items():
        for seed in asked.seed or SEEDS:
            key = f"{name} {seed}"
            if key not in kept["rows"] and (asked.model is None or asked.model in name.split()):
                kept["rows"][key] = measure([*words, *asked.set], seed)
                asked.output.parent.mkdir(parents=True, exist_ok=True)
                asked.output.write_text(json.dumps({"machine": machine.facts(), "rows": kept["rows"]}, indent=1))
    Console(width=150).print(table_of(kept["rows"]))


if __name__ == "__main__":
    main()
