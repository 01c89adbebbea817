"""Which configuration of a linear head wins within a privacy budget: `python -m tests.benchmarks.search_linear`.

For one experiment: configurations of the training are drawn at random and played at epsilon 8 and at epsilon 3, the
best of them played again with more draws of the noise, and the best of those on other features with longer and shorter
steps. The experiment as it is takes part from the first to the last. What is ranked is the mean AUC of the task's
question over hospitals. Hospitals of phantoms, drawn with seeds that no reported table uses: what wins here has not
seen those. All that was played is written down, so that what lost is known as well.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from conf import load
from conf.schema.study import Study
from tasks import task as tasks
from tasks.protocol.study import TrainingTerms
from tests.benchmarks import linear_rounds, machine
from tests.benchmarks.bench_tasks import PHANTOMS
from tests.benchmarks.linear_rounds import Hospital, Terms

SEEDS, EPSILONS = (11, 12, 13), (8.0, 3.0)
DRAWN, KEPT, FINALISTS = 16, 4, 2
"""Configurations that are drawn; that are played again; that are tried on other features."""
_FEW, _MANY = 4, 12
_MOST_STEPS = 200
_APART = 1e-4
Options = dict[str, int]

PICTURES: tuple[Options, ...] = (
    {"resolution": 64, "J": 4, "L": 4, "pool": 4},
    {"resolution": 64, "J": 3, "L": 4, "pool": 4},
    {"resolution": 32, "J": 3, "L": 4, "pool": 4},
    {"resolution": 32, "J": 3, "L": 8, "pool": 4},
    {"resolution": 32, "J": 2, "L": 4, "pool": 8},
)
SMALL_PICTURES: tuple[Options, ...] = (
    {"resolution": 0, "J": 2, "L": 8, "pool": 4},
    {"resolution": 0, "J": 2, "L": 4, "pool": 4},
    {"resolution": 0, "J": 2, "L": 8, "pool": 2},
    {"resolution": 0, "J": 2, "L": 8, "pool": 7},
)
VOLUMES: tuple[Options, ...] = (
    {"resolution": 32, "J": 3, "L": 3, "pool": 3},
    {"resolution": 32, "J": 3, "L": 3, "pool": 2},
    {"resolution": 32, "J": 2, "L": 3, "pool": 3},
    {"resolution": 16, "J": 2, "L": 3, "pool": 4},
    {"resolution": 16, "J": 2, "L": 7, "pool": 2},
)


@dataclass(frozen=True)
class Configuration:
    """What is searched: features and training. ``step`` is the learning rate times the clip norm, how far one clipped
    patient alone in a batch of one moves the model: what matters of both."""

    features: int
    rounds: int
    steps: int
    sample_rate: float
    clip_norm: float
    step: float
    final_rate: float = 1.0
    momentum: float = 0.0
    ema: float = 0.0
    weight_decay: float = 0.0
    images: int = 4

    def terms(self, epsilon: float | None) -> Terms:
        """For a round's play."""
        rate = self.step / self.clip_norm
        training = TrainingTerms(
            self.steps, rate, self.momentum, self.weight_decay, self.sample_rate, self.images, self.final_rate
        )
        return Terms(training, self.rounds, epsilon, 1e-4, self.clip_norm, self.ema)


def features_of(study: Study) -> tuple[Options, ...]:
    """The features that fit a task; the experiment's own first."""
    shape = tasks.get(study.task.name).form.shape
    small = SMALL_PICTURES if min(shape[1:]) < 32 else PICTURES
    own = {name: getattr(study.model, name) for name in ("resolution", "J", "L", "pool")}
    return (own, *(each for each in (VOLUMES if len(shape) == 4 else small) if each != own))


def drawn(number: int, seed: int = 1) -> list[Configuration]:
    """Configurations of the training at random, on the experiment's features."""
    chance = random.Random(seed)
    found: list[Configuration] = []
    while len(found) < number:
        rounds, steps = chance.choice((5, 10, 20)), chance.choice((5, 10, 20))
        candidate = Configuration(
            0, rounds, steps, chance.choice((0.4, 0.7, 1.0, 1.0)), chance.choice((0.1, 0.25, 0.5)),
            chance.choice((0.5, 1.0, 2.0, 4.0)), images=chance.choice((1, 4)),
        )  # fmt: skip
        if rounds * steps <= _MOST_STEPS:
            found.append(candidate)
    return found


class Search:
    """One experiment's hospitals on every kind of features, and what has been played on them."""

    def __init__(self, overrides: Sequence[str], folder: Path) -> None:
        self._overrides, self._folder = list(overrides), folder
        self._study = load.load(overrides)
        self._task = tasks.get(self._study.task.name)
        self._known: dict[tuple[int, int], list[Hospital]] = {}
        self.features = features_of(self._study)
        self.played: list[dict[str, Any]] = []

    def default(self) -> Configuration:
        """The experiment as it is."""
        study = self._study
        training, clip = study.training, study.privacy.clip_norm
        return Configuration(
            0, study.federation.rounds, training.steps, training.sample_rate, clip, training.learning_rate * clip,
            training.final_rate, training.momentum, study.strategy.ema, training.weight_decay,
            training.images_per_patient,
        )  # fmt: skip

    def check(self) -> None:
        """See that a step here is a hospital's.

        Raises:
            SystemExit: it is not.
        """
        apart = linear_rounds.alike(self._task, self._hospitals(0, SEEDS[0])[0], self.default().terms(EPSILONS[0]))
        if apart > _APART:
            raise SystemExit(f"a step of the search differs by {apart:g} from a hospital's: linear_rounds.py is wrong")

    def score(self, each: Configuration, epsilon: float | None, draws: int) -> float:
        """The mean AUC of the question over seeds and draws; written down."""
        by_seed = []
        for seed in SEEDS:
            hospitals = self._hospitals(each.features, seed)
            heads = linear_rounds.play(self._task, hospitals, each.terms(epsilon), draws, seed)
            by_seed.append(linear_rounds.aucs(hospitals, heads).mean(axis=0))
        told = np.stack(by_seed)
        row = asdict(each) | {"epsilon": epsilon, "draws": draws, "by_seed": told.tolist()}
        self.played.append(row)
        return float(told[:, 0].mean())

    def best(self, pool: Sequence[Configuration], epsilon: float, draws: int, keep: int) -> list[Configuration]:
        """The best of some, best first."""
        title = f"{self._task.name}, epsilon {epsilon:g}, {len(pool)} configurations"
        scores = {each: self.score(each, epsilon, draws) for each in track(dict.fromkeys(pool), title)}
        return sorted(scores, key=scores.__getitem__, reverse=True)[:keep]

    def run(self) -> list[Configuration]:
        """Search; returns what came last into the final, best of the first epsilon first."""
        final: list[Configuration] = [self.default()]
        for epsilon in EPSILONS:
            kept = self.best([*final, *drawn(DRAWN)], epsilon, _FEW, KEPT)
            trained = self.best([*final, *kept], epsilon, _MANY, FINALISTS)
            others = [
                replace(each, features=number, step=each.step * factor)
                for each in trained
                for number in range(len(self.features))
                for factor in (0.5, 1.0)
            ]
            kept = self.best(others, epsilon, _FEW, KEPT)
            final += self.best([*trained, *kept], epsilon, _MANY, FINALISTS)
        return list(dict.fromkeys(final))

    def _hospitals(self, features: int, seed: int) -> list[Hospital]:
        if (features, seed) not in self._known:
            options = [f"model.{name}={value}" for name, value in self.features[features].items()]
            fixed = ["tracking=none", "evaluation.arms=[]", f"output_dir={self._folder}", f"seed={seed}"]
            study = load.load([*self._overrides, *options, *fixed])
            self._known[features, seed] = linear_rounds.hospitals(study, self._folder / f"books-{features}-{seed}")
        return self._known[features, seed]


def table_of(search: Search, final: Sequence[Configuration]) -> Table:
    """The finalists at each epsilon and without noise."""
    table = Table(title="mean AUC of the question over hospitals; deviation over seeds of the mean over draws")
    for heading in ("configuration", "features", "no noise", *(f"epsilon {epsilon:g}" for epsilon in EPSILONS)):
        table.add_column(heading)
    for each in final:
        cells = []
        for epsilon in (None, *EPSILONS):
            search.score(each, epsilon, 1 if epsilon is None else _MANY)
            told = np.array(search.played[-1]["by_seed"])[:, 0]
            cells.append(f"{told.mean():.3f} ± {told.std(ddof=1):.3f}")
        shown = {name: value for name, value in asdict(each).items() if name != "features"}
        words = " ".join(f"{name}={value:g}" for name, value in shown.items())
        table.add_row(words, " ".join(f"{k}={v}" for k, v in search.features[each.features].items()), *cells)
    return table


def main() -> None:
    """Search for one experiment; print the finalists, write down everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=[name for name in PHANTOMS if not name.endswith("_outlined")])
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--folder", type=Path, help="keeps phantoms and features for the next call")
    parser.add_argument("--set", action="append", default=[], help="an override of the configuration")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    overrides = [f"experiment={asked.experiment}", *asked.set]
    with tempfile.TemporaryDirectory() as scratch:
        search = Search(overrides, asked.folder or Path(scratch))
        search.check()
        final = search.run()
        table = table_of(search, final)
    asked.output.mkdir(parents=True, exist_ok=True)
    numbers = {"machine": machine.facts(), "features": search.features, "played": search.played}
    (asked.output / f"search-{asked.experiment}.json").write_text(json.dumps(numbers, indent=1))
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
