"""Whether `wire=lean` costs accuracy: AUC exact and lean, five seeds each: `python -m tests.benchmarks.bench_lean`.

Needs the real images in the folder that ``CONSILIUM_DATA`` names; without it there is nothing to measure, and the
benchmark says so. A seed draws splits and initial weights. Sampling of patients and noise cannot be repeated, so two
exact runs of one seed differ as well: that difference is the yardstick, and a third run of each seed measures it.

DenseNet121 does not learn from nothing in the steps that two cores can take in minutes: AUC was 0.5 to 0.8 by seed, and
told nothing of the wire. So it starts from weights that were trained here first, in one place, on part of the same
images: its AUC says how much the wire takes away and nothing of how good such a model is.

Slow: DenseNet121 takes some minutes a study on one core. Every study that has ended is written down at once, and the
next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from tasks import task as tasks
from tasks.models import registry
from tests.benchmarks import machine
from tests.benchmarks.studies import SEEDS, Figures, data_root, difference, level, measure

_STEPS, _BATCH = 300, 32
WIRES = {"exact": "exact", "lean": "lean", "exact again": "exact"}


@dataclass(frozen=True)
class Case:
    """A study, and what of the folder of real images it reads."""

    folder: str
    overrides: tuple[str, ...]
    started: bool = False
    """Whether the network starts from weights that ``start`` has trained."""


CASES = {
    "densenet121, pneumoniamnist, no noise": Case(
        "pneumoniamnist",
        (
            "task=pneumonia_xray",
            "federation=pneumoniamnist_six",
            *(f"federation.sizes.{name}=250" for name in ("ash", "beech")),
            *(f"~federation.sizes.{name}" for name in ("elm", "hazel", "oak", "rowan")),
            "federation.label_skew=50",
            "model=densenet121",
            "privacy=none",
            "federation.rounds=6",
            "training.steps=8",
            "training.learning_rate=0.05",
            "training.sample_rate=0.1",
            "training.images_per_patient=1",
        ),
        started=True,
    ),
    "scatter_linear, busi, epsilon 8": Case("us_breast_busi", ("experiment=busi",)),
    "scatter_linear, pneumoniamnist, epsilon 8": Case("pneumoniamnist", ("experiment=pneumoniamnist",)),
}
Rows = dict[str, Figures]
"""By wire and seed."""


def of_wire(rows: Rows, wire: str) -> list[float]:
    """AUC of one wire, by seed."""
    return [rows[key]["auc"] for seed in SEEDS if (key := f"{wire} {seed}") in rows]


def pairs(rows: Rows, one: str, other: str, what: str) -> list[tuple[float, float]]:
    """A figure of both wires, by seed, where both were measured."""
    both = [(f"{one} {seed}", f"{other} {seed}") for seed in SEEDS]
    return [(rows[a][what], rows[b][what]) for a, b in both if a in rows and b in rows]


def start(data: Path, file: Path) -> Path:
    """Weights of DenseNet121 after a few hundred steps of Adam on a fifth of the images, made once."""
    if file.exists():
        return file.resolve()
    with np.load(data / "pneumoniamnist" / "pneumoniamnist.npz") as archive:
        images, labels = (
            np.concatenate([archive[f"{part}_{what}"] for part in ("val", "test")]) for what in ("images", "labels")
        )
    inputs, targets = torch.from_numpy(images / np.float32(255))[:, None], torch.from_numpy(labels).float()
    network = registry.build({"name": "densenet121"}, tasks.get("pneumonia_xray").form, seed=1)
    assert network.features is not None
    adam = torch.optim.Adam(network.trainable.parameters(), 1e-3)
    draw = torch.Generator().manual_seed(1)
    for _ in track(range(_STEPS), "training weights to start from"):
        some = torch.randperm(len(inputs), generator=draw)[:_BATCH]
        adam.zero_grad()
        logits = network.trainable(network.features(inputs[some]))
        binary_cross_entropy_with_logits(logits, targets[some]).backward()
        adam.step()
    save_file({name: p.detach().contiguous() for name, p in network.trainable.named_parameters()}, file)
    return file.resolve()


def report(console: Console, data: Path, output: Path, names: list[str], wires: list[str]) -> None:
    """Measure what is not yet written down; print the table."""
    output.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(output.read_text()) if output.exists() else {"rows": {}}
    table = Table(
        title="mean AUC over hospitals: mean and deviation over seeds; differences by seed, with 95 % interval"
    )
    for heading in ("study", "exact", "lean", "lean - exact", "exact again - exact", "bytes down", "bytes up"):
        table.add_column(heading)
    for name in names:
        rows: Rows = kept["rows"].setdefault(name, {})
        for wire, seed in [(wire, seed) for seed in SEEDS for wire in wires]:
            if f"{wire} {seed}" not in rows:
                words = [*CASES[name].overrides, f"wire={WIRES[wire]}", f"seed={seed}"]
                words += [f"data_root={data / CASES[name].folder}"]
                if CASES[name].started:
                    words += [f"model.weights={start(data, output.with_suffix('.safetensors'))}"]
                rows[f"{wire} {seed}"] = measure(words)
                output.write_text(json.dumps({"machine": machine.facts(), "rows": kept["rows"]}, indent=1))
        both = [difference([a - b for a, b in pairs(rows, one, "exact", "auc")]) for one in ("lean", "exact again")]
        bytes_ = [pairs(rows, "lean", "exact", way) for way in ("down", "up")]
        ratios = [f"{sum(a for a, _ in known) / sum(b for _, b in known):.3f}" if known else "" for known in bytes_]
        table.add_row(name, level(of_wire(rows, "exact")), level(of_wire(rows, "lean")), *both, *ratios)
    console.print(table)
    console.print(f"numbers: {output}")


def main() -> None:
    """Measure all studies, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/lean.json"))
    parser.add_argument("--case", choices=CASES, action="append", help="instead of all")
    parser.add_argument("--wire", choices=WIRES, action="append", help="instead of all")
    arguments = parser.parse_args()
    console, data = Console(width=150), data_root()
    if data is None:
        console.print("bench_lean: not measured, CONSILIUM_DATA names no folder with pneumoniamnist/, us_breast_busi/")
        return
    report(console, data, arguments.output, arguments.case or list(CASES), arguments.wire or list(WIRES))


if __name__ == "__main__":
    main()
