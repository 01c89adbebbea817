"""Which head wins at how many patients: `python -m tests.benchmarks.bench_heads data_root=FOLDER`

Four hospitals of 20, 50, 100 and 500 patients each, drawn anew from the open part of PneumoniaMNIST, whose images are
patients of their own; scored on its official test part. The heads are those of ``search_heads``, on scattering, and on
directions of it that come from random processes. Which features and settings are used, each cell of the table decides
on a thousand other open patients, with hospitals of other draws: no figure is of patients that anything was chosen on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from conf import load
from conf.schema.study import Study
from server.pages.svg import WIDTH, Chart, Scale, axis_y, legend, mark, numbered, path, text
from server.study.document import model_of
from tasks import task as tasks
from tasks.models import registry
from tasks.models.encoders import random_images
from tasks.models.encoders.directions import fitted
from tasks.task import Picture
from tests.benchmarks import machine
from tests.benchmarks.search_heads import EPSILONS, MODES, Head, Images, aucs, settings_of, trained

SIZES, HOSPITALS, KINDS = (20, 50, 100, 500), 4, ("steps", "covariance", "prototypes")
DIRECTIONS = (8, 32, 128)
CHOSEN_ON, CHOICES, SEEDS, DRAWS = 1000, 2, (1, 2, 3, 4, 5), 4
_DRAWN, _AT_ONCE = 600, 64
Floats = NDArray[np.float64]
Features = dict[str, tuple[Images, Images]]


def features_of(study: Study, archive: Path) -> Features:
    """Open and official test images, by what describes them."""
    task = tasks.get(study.task.name)
    network = registry.build(model_of(study), task.form, study.seed)
    described = network.features
    assert described is not None
    with np.load(archive) as parts:
        images = {part: parts[f"{part}_images"] for part in ("train", "val", "test")}
        labels = {part: parts[f"{part}_labels"].ravel().astype(np.float64) for part in images}

    def through(examples: torch.Tensor) -> torch.Tensor:
        return torch.cat([described(examples[start : start + _AT_ONCE]) for start in range(0, len(examples), _AT_ONCE)])

    def scattered(grey: NDArray[np.uint8]) -> torch.Tensor:
        examples = np.stack([task.read_example(Picture(one.astype(np.float32) / 255)) for one in grey])
        return through(torch.from_numpy(examples))

    found = {part: scattered(grey) for part, grey in images.items()}
    nobody = random_images.drawn(_DRAWN, task.form.shape[1:])
    along = fitted(through(nobody), random_images.TOLD)
    order = np.random.default_rng(0).permutation(len(labels["train"]) + len(labels["val"]))
    told = {"all": found} | {f"{n}": {p: along.along(f, n) for p, f in found.items()} for n in DIRECTIONS}
    return {
        name: (
            _images([parts["train"], parts["val"]], [labels["train"], labels["val"]], order),
            _images([parts["test"]], [labels["test"]]),
        )
        for name, parts in told.items()
    }


def _images(features: list[torch.Tensor], labels: list[Floats], order: NDArray[np.int64] | None = None) -> Images:
    x = np.concatenate([part.numpy().astype(np.float64) for part in features])
    count = np.arange(len(x))
    images = Images(np.c_[x, np.ones(len(x))], np.concatenate(labels), count, np.zeros_like(count))
    return images if order is None else Images(images.features[order], images.labels[order], count, images.hospital)


def hospitals(open_part: Images, patients: int, seed: int) -> Images:
    """So many patients of each hospital, none of those that choices are made on."""
    chosen = (
        CHOSEN_ON + np.random.default_rng(seed).permutation(len(open_part.labels) - CHOSEN_ON)[: HOSPITALS * patients]
    )
    of = np.repeat(np.arange(HOSPITALS), patients)
    return Images(open_part.features[chosen], open_part.labels[chosen], np.arange(len(chosen)), of)


@dataclass(frozen=True)
class Cell:
    """What won on the thousand, and its AUCs on the test part by seed and draw."""

    epsilon: float
    mode: str
    patients: int
    kind: str
    features: str
    head: Head
    auc: list[list[float]]

    def mean(self) -> float:
        """Over seeds and draws."""
        return float(np.mean(np.array(self.auc)))


def cell(features: Features, epsilon: float, mode: str, patients: int, kind: str) -> Cell:
    """Choose features and settings, then score on the test part."""

    def chosen_by(name: str, head: Head) -> float:
        whole = features[name][0]
        judges = whole.of(np.arange(len(whole.labels)) < CHOSEN_ON)
        runs = [trained(hospitals(whole, patients, 1000 + n), head, epsilon, mode, 2, n) for n in range(CHOICES)]
        return float(np.mean([aucs(judges, heads) for heads in runs]))

    used = [name for name in features if kind != "covariance" or name != "all"]
    tried = [(name, head) for name in used for head in settings_of(kind)]
    name, head = max(tried, key=lambda both: chosen_by(*both))
    whole, test = features[name]
    runs = [trained(hospitals(whole, patients, seed), head, epsilon, mode, DRAWS, seed) for seed in SEEDS]
    return Cell(epsilon, mode, patients, kind, name, head, [aucs(test, heads).tolist() for heads in runs])


def chart(cells: list[Cell]) -> Chart:
    """AUC of the three heads over hospitals' sizes: a column an epsilon, a row a kind of noise."""
    drawn = Chart("AUC of three heads by patients of a hospital", "The table beside it has the numbers.", 442)
    styles = {kind: colour for kind, colour, _ in numbered(KINDS)}
    legend(drawn, 12, [(kind, partial(mark, "circle", colour=colour)) for kind, colour in styles.items()])
    wide = (WIDTH - 50) / len(EPSILONS)
    for row, mode in enumerate(MODES):
        y = Scale(0.5, 1.0, 210 + 195 * row, 60 + 195 * row)
        for panel, epsilon in enumerate(EPSILONS):
            left, right = 46 + panel * wide, 46 + (panel + 1) * wide - 16
            axis_y(drawn, y, left, "", right)
            drawn.add(
                text((left + right) / 2, y.end - 8, f"epsilon {epsilon:g}, {mode} noise", "middle", font_size="11")
            )
            x = Scale(0, len(SIZES) - 1, left + 12, right - 12)
            for kind, colour in styles.items():
                shown = [c for c in cells if (c.epsilon, c.mode, c.kind) == (epsilon, mode, kind)]
                points = [(x(SIZES.index(c.patients)), y(c.mean())) for c in shown]
                drawn.add(path(points, colour, 1.6), *(mark("circle", *point, colour, 3) for point in points))
            drawn.add(*(text(x(n), y.start + 16, f"{size}", "middle", font_size="10") for n, size in enumerate(SIZES)))
    drawn.add(text(WIDTH / 2, 438, "patients of each of four hospitals", "middle"))
    return drawn


def main() -> None:
    """Print the table; write figures and chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="+", help="data_root=FOLDER, which has pneumoniamnist.npz")
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    asked = parser.parse_args()
    study = load.load(["experiment=pneumoniamnist", *asked.settings, "tracking=none"])
    features = features_of(study, Path(study.data_root) / "pneumoniamnist.npz")
    asked.output.mkdir(parents=True, exist_ok=True)
    cells: list[Cell] = []
    table = Table(title="AUC on the official test part, deviation over hospitals' draws and trainings")
    for heading in ("epsilon", "noise", "patients", *KINDS):
        table.add_column(heading)
    for epsilon, mode, patients in product(EPSILONS, MODES, SIZES):
        own = [cell(features, epsilon, mode, patients, kind) for kind in KINDS]
        cells += own
        shown = [f"{c.mean():.3f} ± {np.std(c.auc, ddof=1):.3f} ({c.features})" for c in own]
        table.add_row(f"{epsilon:g}", mode, f"{patients}", *shown)
        written = {"machine": machine.facts(), "cells": [asdict(c) for c in cells]}
        (asked.output / "heads.json").write_text(json.dumps(written, indent=1))
        (asked.output / "heads.svg").write_text(chart(cells).svg())
        print(epsilon, mode, patients, *shown, flush=True)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
