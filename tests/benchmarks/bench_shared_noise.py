"""What federation, privacy and sharing the noise are worth: `python -m tests.benchmarks.bench_shared_noise`.

On the hospitals of an experiment with private heads (``--experiment busi`` on the open patients of BUSI, or phantoms):
each hospital alone, all patients in one place, and federated, without noise and at each epsilon with each hospital's
whole noise, and with noise that all share (one may collude, a fifth of the steps is spare). For each of them settings
are searched by cross-validation among the hospitals' training patients alone, or, of phantoms, on phantoms of other
seeds (``--choose-on 31 32``); then the best is trained with many draws of the noise and judged once on the validation
patients, which took no part in the search. The own noise may also take single steps, so that it is compared at its
best. Spread: standard deviations over seeds and, beside them, over draws of the noise. ``rare_disease`` has
sensitivities as ``bench_rare`` has them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from client.cohort.dataset import Cohort
from conf import load
from conf.schema.study import Study
from tasks import task as tasks
from tasks.protocol.study import TrainingTerms
from tasks.task import Task
from tests.benchmarks import linear_rounds, machine, studies
from tests.benchmarks.bench_rare import judged, together
from tests.benchmarks.bench_tasks import PHANTOMS, REAL
from tests.benchmarks.linear_rounds import Hospital, Terms

EXPERIMENTS = (*(n for n in PHANTOMS if not n.endswith("_outlined")), "rare_disease", "busi", "pneumoniamnist")
"""Of one question and a linear head."""
SEEDS, EPSILONS = (1, 2, 3), (8.0, 3.0, 1.0)
Rows = dict[str, dict[str, object]]
"""By column of the table, what one seed has told."""
_RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_CLIP = 0.3
_FOLDS, _FEW, _MANY = 3, 4, 20


@dataclass(frozen=True)
class Setting:
    """What is searched; ``own`` noise, or shared."""

    shared: bool
    rounds: int
    steps: int
    sample_rate: float
    rate: float
    clip_norm: float

    def terms(self, epsilon: float | None, delta: float) -> Terms:
        """For a play."""
        training = TrainingTerms(self.steps, self.rate, 0.0, 0.0, self.sample_rate, 4)
        return Terms(training, self.rounds, epsilon, delta, self.clip_norm, colluding=1 if self.shared else None)


class Column(NamedTuple):
    """How models are trained: who trains together, within which epsilon, and whose noise."""

    name: str
    together: Literal["each alone", "one place", "federated"]
    epsilon: float | None
    shared: bool


def columns(epsilons: Iterable[float]) -> Iterator[Column]:
    """Without noise, and at each epsilon with own and shared noise."""
    yield Column("each alone", "each alone", None, False)
    yield Column("one place", "one place", None, False)
    yield Column("no noise", "federated", None, False)
    for epsilon in epsilons:
        for shared in (False, True):
            yield Column(f"{epsilon:g} {'shared' if shared else 'own'}", "federated", epsilon, shared)


def settings(column: Column) -> Iterator[Setting]:
    """All that are tried: single steps of everybody, and for own noise also rounds of ten sampled ones."""
    lengths = [(50, 1, 1.0)]
    if column.epsilon is not None:
        lengths += [(25, 1, 1.0), *([] if column.shared else [(10, 10, 0.4)])]
    for (rounds, steps, rate), learning in product(lengths, _RATES):
        yield Setting(column.shared, rounds, steps, rate, learning, _CLIP)


def folds(hospitals: list[Hospital]) -> Iterator[list[Hospital]]:
    """Each hospital's training patients in as many parts; each part is once what the others are judged by."""
    for fold in range(_FOLDS):
        yield [replace(h, train=_some(h.train, fold, False), validation=_some(h.train, fold, True)) for h in hospitals]


def _some(cohort: Cohort, fold: int, of_fold: bool) -> Cohort:
    chosen = [number for number in range(len(cohort.rows)) if (number % _FOLDS == fold) == of_fold]
    return replace(cohort, rows=[cohort.rows[n] for n in chosen], patients=tuple(cohort.patients[n] for n in chosen))


def trained(
    task: Task, hospitals: list[Hospital], column: Column, terms: Terms, *, draws: int, seed: int
) -> list[torch.Tensor]:
    """Each hospital's model, of several draws."""
    if column.together == "each alone":
        return [linear_rounds.play(task, [hospital], terms, draws, seed) for hospital in hospitals]
    everybody = [together(hospitals)] if column.together == "one place" else hospitals
    return [linear_rounds.play(task, everybody, terms, draws, seed)] * len(hospitals)


def areas(hospitals: list[Hospital], heads: list[torch.Tensor]) -> list[float]:
    """Of each draw the mean AUC of the hospitals that have one."""
    each = [linear_rounds.aucs([one], head)[:, 0] for one, head in zip(hospitals, heads, strict=True)]
    return [float(np.nanmean(of_draw)) for of_draw in zip(*each, strict=True)]


def pooled(hospitals: list[Hospital], heads: list[torch.Tensor]) -> list[float]:
    """AUC on all validation patients together, of each draw."""
    scores = [linear_rounds.scores(h.validation, head)[:, :, 0] for h, head in zip(hospitals, heads, strict=True)]
    labels = np.concatenate([h.validation.patient_labels().numpy() for h in hospitals])
    return list(linear_rounds.areas(labels, np.concatenate(scores)))


class Bench:
    """One experiment with one kind of features."""

    def __init__(self, experiment: str, folder: Path, overrides: list[str]) -> None:
        self._experiment, self._folder, self._overrides = experiment, folder, overrides
        self._columns = list(columns((8.0,) if experiment == "rare_disease" else EPSILONS))

    def drawn(self, seed: int) -> tuple[Study, Task, list[Hospital]]:
        """The hospitals of a seed."""
        words = [f"experiment={self._experiment}", "tracking=none", "evaluation.arms=[]", f"seed={seed}"]
        study = load.load([*words, f"output_dir={self._folder}", *self._overrides])
        place = self._folder / f"{self._experiment}-{seed}"
        return study, tasks.get(study.task.name), linear_rounds.hospitals(study, place)

    def chosen(self, seeds: list[int]) -> dict[str, Setting]:
        """For each column, the setting with the best mean AUC of hospitals on other phantoms."""
        drawn = [self.drawn(seed) for seed in seeds]
        study, everybody = drawn[0][0], [hospitals for _, _, hospitals in drawn]
        return {column.name: self._best(column, everybody, study) for column in self._columns}

    def played(self, seed: int, chosen: dict[str, Setting]) -> Rows:
        """Every column for one seed; what was not chosen on other seeds is found by cross-validation among the
        hospitals' training patients."""
        study, task, hospitals = self.drawn(seed)
        rows: Rows = {}
        for column in self._columns:
            setting = chosen.get(column.name)
            if setting is None:
                setting = self._best(column, list(folds(hospitals)), study)
            terms = setting.terms(column.epsilon, study.privacy.delta)
            heads = trained(task, hospitals, column, terms, draws=_MANY, seed=2)
            rows[column.name] = {
                "setting": vars(setting),
                "areas": areas(hospitals, heads),
                "pooled": pooled(hospitals, heads),
                "sensitivity": judged(hospitals, heads)["sensitivity"],
            }
        return rows

    def _best(self, column: Column, on: list[list[Hospital]], study: Study) -> Setting:
        """The setting with the best mean AUC; each of ``on`` is trained and judged by itself."""
        task = tasks.get(study.task.name)

        def worth(setting: Setting) -> float:
            terms = setting.terms(column.epsilon, study.privacy.delta)
            return float(
                np.mean([np.mean(areas(of, trained(task, of, column, terms, draws=_FEW, seed=1))) for of in on])
            )

        return max(settings(column), key=worth)


def table_of(rows: dict[str, Rows]) -> Table:
    """One line for each column of figures; that of shared noise with the difference from own (Student over seeds)."""
    table = Table(title=f"{len(rows)} seeds, {_MANY} trainings each")
    for heading in ("", "mean AUC of hospitals", "over trainings", "pooled AUC", "sensitivity", "settings"):
        table.add_column(heading)
    for name in next(iter(rows.values())):
        told = [_figures(each[name]) for each in rows.values()]
        cells = [studies.level([one[what] for one in told]) for what in range(3)]
        if name.endswith(" shared"):
            own = [_figures(each[name.replace("shared", "own")]) for each in rows.values()]
            more = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(told, own, strict=True)]
            cells = [f"{cell}\n{studies.difference([one[i] for one in more])}" for i, cell in enumerate(cells)]
        found = [Setting(**each[name]["setting"]) for each in rows.values()]  # type: ignore[arg-type]
        chosen = dict.fromkeys(f"{s.rounds}x{s.steps} q{s.sample_rate:g} r{s.rate:g}" for s in found)
        spread = f"{np.mean([one[3] for one in told]):.4f}"
        table.add_row(name, cells[0], spread, cells[1], cells[2], "; ".join(chosen))
    return table


def _figures(row: dict[str, object]) -> tuple[float, float, float, float]:
    """Mean AUC of the hospitals, pooled AUC, sensitivity, and the deviation of the first over trainings."""
    each, all_together = (np.array(row[what], dtype=float) for what in ("areas", "pooled"))
    return float(each.mean()), float(all_together.mean()), float(str(row["sensitivity"])), float(each.std(ddof=1))


def main() -> None:
    """Measure what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", choices=EXPERIMENTS, default="busi")
    parser.add_argument("--model", default="", help="features other than the experiment's, such as encoder_breast_7")
    parser.add_argument("--output", type=Path, help="benchmarks/shared-EXPERIMENT.json")
    parser.add_argument("--seed", type=int, action="append", help="instead of all")
    parser.add_argument(
        "--choose-on", type=int, nargs="+", default=[], help="seeds of phantoms that settings are chosen on, instead "
        "of cross-validation: where eight patients have the finding, folds of them decide nothing",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="keeps images and features for the next call")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    output = asked.output or Path(f"benchmarks/shared-{asked.experiment}.json")
    root = studies.data_root()
    if asked.experiment in REAL and root is None:
        raise SystemExit(f"CONSILIUM_DATA names no folder of real images, which {asked.experiment} needs")
    seeds = asked.seed or SEEDS
    if set(seeds) & set(asked.choose_on):
        raise SystemExit(f"settings are not chosen on the seeds that are judged: {set(seeds) & set(asked.choose_on)}")
    rows = json.loads(output.read_text())["rows"] if output.exists() else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    data = str(root / REAL[asked.experiment]) if root is not None and asked.experiment in REAL else ""
    overrides = [*([f"data_root={data}"] if data else []), *([f"model={asked.model}"] if asked.model else [])]
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(asked.experiment, asked.folder or Path(scratch), overrides)
        missing = [seed for seed in seeds if str(seed) not in rows]
        chosen = bench.chosen(asked.choose_on) if missing and asked.choose_on else {}
        for seed in missing:
            rows[str(seed)] = bench.played(seed, chosen)
            output.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    Console(width=200).print(table_of(rows))


if __name__ == "__main__":
    main()
