"""What sharing the noise is worth at equal epsilon and features: `python -m tests.benchmarks.bench_shared_noise`.

On the hospitals of an experiment (``--experiment busi`` on the open patients of BUSI, or ``rare_disease`` on phantoms):
private heads with each hospital's whole noise, and with noise that all share (one may collude, a fifth of the steps is
spare). For each epsilon and each of the two, settings are searched by cross-validation among the hospitals' training
patients alone; then the best is trained on all of them with many draws of the noise and judged once on the validation
patients, which took no part in the search. ``rare_disease`` is judged as ``bench_rare`` does. The own noise may also
take single steps, so that it is compared at its best. Spread: standard deviations over draws of the noise and seeds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from client.cohort.dataset import Cohort
from conf import load
from tasks import task as tasks
from tasks.protocol.study import TrainingTerms
from tasks.task import Task
from tests.benchmarks import linear_rounds, machine, studies
from tests.benchmarks.bench_rare import judged
from tests.benchmarks.bench_tasks import REAL
from tests.benchmarks.linear_rounds import Hospital, Terms

SEEDS, EPSILONS = (1, 2, 3), (8.0, 3.0, 1.0)
_RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_CLIPS = (0.3,)
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

    def terms(self, epsilon: float, delta: float) -> Terms:
        """For a play."""
        training = TrainingTerms(self.steps, self.rate, 0.0, 0.0, self.sample_rate, 4)
        return Terms(training, self.rounds, epsilon, delta, self.clip_norm, colluding=1 if self.shared else None)


def settings(shared: bool) -> Iterator[Setting]:
    """All that are tried: single steps of everybody, and for own noise also rounds of ten sampled ones."""
    lengths = [(25, 1, 1.0), (50, 1, 1.0), *([] if shared else [(10, 10, 0.4)])]
    for (rounds, steps, rate), clip, learning in product(lengths, _CLIPS, _RATES):
        yield Setting(shared, rounds, steps, rate, learning, clip)


def folds(hospitals: list[Hospital]) -> Iterator[list[Hospital]]:
    """Each hospital's training patients in as many parts; each part is once what the others are judged by."""
    for fold in range(_FOLDS):
        yield [replace(h, train=_some(h.train, fold, False), validation=_some(h.train, fold, True)) for h in hospitals]


def _some(cohort: Cohort, fold: int, of_fold: bool) -> Cohort:
    chosen = [number for number in range(len(cohort.rows)) if (number % _FOLDS == fold) == of_fold]
    return replace(cohort, rows=[cohort.rows[n] for n in chosen], patients=tuple(cohort.patients[n] for n in chosen))


def pooled_aucs(hospitals: list[Hospital], heads: torch.Tensor) -> list[float]:
    """AUC on all validation patients together, of each draw."""
    scores = np.concatenate([linear_rounds.scores(h.validation, heads)[:, :, 0] for h in hospitals])
    labels = np.concatenate([h.validation.patient_labels().numpy() for h in hospitals])
    return [float(roc_auc_score(labels, of_draw)) for of_draw in scores.T]


def best(task: Task, hospitals: list[Hospital], shared: bool, epsilon: float, delta: float) -> tuple[Setting, float]:
    """The setting with the best mean AUC in cross-validation, and that AUC."""
    parts, found = list(folds(hospitals)), {}
    for setting in settings(shared):
        terms = setting.terms(epsilon, delta)
        values = [v for part in parts for v in pooled_aucs(part, linear_rounds.play(task, part, terms, _FEW, seed=1))]
        found[setting] = float(np.mean(values))
    winner = max(found, key=lambda setting: found[setting])
    return winner, found[winner]


def played(experiment: str, seed: int, folder: Path, overrides: list[str]) -> dict[str, object]:
    """Both kinds of noise at each epsilon, for one seed."""
    words = [f"experiment={experiment}", "tracking=none", "evaluation.arms=[]", f"output_dir={folder}", f"seed={seed}"]
    study = load.load([*words, *overrides])
    task, hospitals = tasks.get(study.task.name), linear_rounds.hospitals(study, folder / f"{experiment}-{seed}")
    rows: dict[str, object] = {}
    for epsilon in (8.0,) if experiment == "rare_disease" else EPSILONS:
        for shared in (False, True):
            setting, found = best(task, hospitals, shared, epsilon, study.privacy.delta)
            heads = linear_rounds.play(task, hospitals, setting.terms(epsilon, study.privacy.delta), _MANY, seed=2)
            rows[f"{epsilon:g} {'shared' if shared else 'own'}"] = {
                "setting": vars(setting),
                "cross_validation": found,
                "aucs": pooled_aucs(hospitals, heads),
                **judged(hospitals, [heads] * len(hospitals)),
            }
    return rows


def table_of(rows: dict[str, dict[str, dict[str, object]]]) -> Table:
    """One line for each epsilon and kind of noise."""
    table = Table(title=f"{len(rows)} seeds, {_MANY} trainings each")
    for heading in ("epsilon, noise", "pooled AUC", "over draws", "mean AUC of hospitals", "sensitivity", "settings"):
        table.add_column(heading)
    for name in next(iter(rows.values())):
        of_seeds = [each[name] for each in rows.values()]
        aucs = np.array([each["aucs"] for each in of_seeds], dtype=float)
        found = [Setting(**each["setting"]) for each in of_seeds]  # type: ignore[arg-type]
        chosen = "; ".join(f"{s.rounds}x{s.steps} q{s.sample_rate} r{s.rate} c{s.clip_norm}" for s in found)
        table.add_row(
            name,
            studies.level(list(aucs.mean(axis=1))) or f"{aucs.mean():.4f}",
            f"{aucs.std(axis=1, ddof=1).mean():.4f}",
            f"{np.mean([float(each['AUC']) for each in of_seeds]):.4f}",  # type: ignore[arg-type]
            f"{np.mean([float(each['sensitivity']) for each in of_seeds]):.4f}",  # type: ignore[arg-type]
            chosen,
        )
    return table


def main() -> None:
    """Measure what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", choices=("busi", "rare_disease"), default="busi")
    parser.add_argument("--model", default="", help="features other than the experiment's, such as encoder_breast_7")
    parser.add_argument("--output", type=Path, help="benchmarks/shared-EXPERIMENT.json")
    parser.add_argument("--seed", type=int, action="append", help="instead of all")
    parser.add_argument("--folder", type=Path, help="keeps images and features for the next call")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    output = asked.output or Path(f"benchmarks/shared-{asked.experiment}.json")
    root = studies.data_root()
    if asked.experiment == "busi" and root is None:
        raise SystemExit("CONSILIUM_DATA names no folder of real images, which busi needs")
    rows = json.loads(output.read_text())["rows"] if output.exists() else {}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in asked.seed or SEEDS:
            if str(seed) not in rows:
                data = str(root / REAL[asked.experiment]) if root is not None and asked.experiment in REAL else ""
                overrides = [
                    *([f"data_root={data}"] if data else []),
                    *([f"model={asked.model}"] if asked.model else []),
                ]
                rows[str(seed)] = played(asked.experiment, seed, asked.folder or Path(scratch), overrides)
                output.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    Console(width=200).print(table_of(rows))


if __name__ == "__main__":
    main()
