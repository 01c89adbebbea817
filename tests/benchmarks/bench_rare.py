"""A finding that each hospital sees a few times: what consultation is worth: `python -m tests.benchmarks.bench_rare`.

The hospitals of ``experiment=rare_disease``, of which each has none to three patients with the finding. A hospital
calls a patient positive whose score is above those of all but a tenth of its own negative validation patients. How many
of the patients with the finding are called so by each hospital's own model, by one of all patients in one place, and by
the federated one without noise and at epsilon 8 and 3, each of the latter two trained several times. Few patients have
the finding, so there are many seeds; intervals are of the difference from the hospitals' own models on the same
patients (Student over seeds).
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from client.cohort.dataset import Cohort
from conf import load
from conf.schema.study import Study
from tasks import task as tasks
from tasks.protocol.study import TrainingTerms
from tests.benchmarks import linear_rounds, machine, studies
from tests.benchmarks.linear_rounds import Hospital, Terms

SEEDS, DRAWS = tuple(range(1, 11)), 8
EPSILONS: dict[str, float | None] = {"no noise": None, "epsilon 8": 8.0, "epsilon 3": 3.0}
SPECIFICITY = 0.9
Figures = dict[str, float]


def sensitivity(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[float, float, int]:
    """At the lowest threshold that calls at most a tenth of the negatives: how many of the positives it calls, which
    fraction of the negatives it does not call, and how many positives there are."""
    negatives = np.sort(scores[labels == 0])[::-1]
    threshold = negatives[math.floor((1 - SPECIFICITY) * len(negatives))]
    called = scores > threshold
    return float(called[labels == 1].sum()), float(1 - called[labels == 0].mean()), int((labels == 1).sum())


def judged(hospitals: list[Hospital], heads: list[Tensor]) -> Figures:
    """What the hospitals' validation patients say of one model for each of them, of shape (draws, findings, features +
    1): sensitivity over all who have the finding, mean specificity, and mean AUC where there is one; means over
    draws."""
    found, specific, positives = 0.0, [], 0
    for hospital, head in zip(hospitals, heads, strict=True):
        labels = hospital.validation.patient_labels().double().numpy()
        scores = linear_rounds.scores(hospital.validation, head)[:, :, 0]
        told = [sensitivity(of_draw, labels) for of_draw in scores.T]
        found += float(np.mean([called for called, _, _ in told]))
        specific.append(np.mean([right for _, right, _ in told]))
        positives += told[0][2]
    areas = [linear_rounds.aucs([hospital], head)[:, 0].mean() for hospital, head in zip(hospitals, heads, strict=True)]
    return {
        "sensitivity": found / positives,
        "specificity": float(np.mean(specific)),
        "AUC": float(np.nanmean(areas)),
        "positives": positives,
    }


def together(hospitals: list[Hospital]) -> Hospital:
    """One hospital with everybody's training patients."""
    starts = np.cumsum([0, *(len(hospital.train.inputs) for hospital in hospitals)])
    cohorts = [hospital.train for hospital in hospitals]
    rows = [one + int(start) for cohort, start in zip(cohorts, starts[:-1], strict=True) for one in cohort.rows]
    names = tuple(f"{n}-{patient}" for n, cohort in enumerate(cohorts) for patient in cohort.patients)
    inputs, targets = (torch.cat([getattr(cohort, part) for cohort in cohorts]) for part in ("inputs", "targets"))
    everybody = Cohort(inputs, targets, rows, names)
    return Hospital(everybody, everybody, sum(hospital.public_size for hospital in hospitals))


def played(study: Study, folder: Path) -> dict[str, Figures]:
    """All models of one seed."""
    task, hospitals = tasks.get(study.task.name), linear_rounds.hospitals(study, folder)
    training = TrainingTerms(**vars(study.training))

    def head(of: list[Hospital], epsilon: float | None) -> Tensor:
        terms = Terms(training, study.federation.rounds, epsilon, study.privacy.delta, study.privacy.clip_norm)
        return linear_rounds.play(task, of, terms, 1 if epsilon is None else DRAWS, study.seed)

    alone = [head([hospital], None) for hospital in hospitals]
    found = {
        "each alone": judged(hospitals, alone),
        "all in one place": judged(hospitals, [head([together(hospitals)], None)] * len(hospitals)),
    }
    for name, epsilon in EPSILONS.items():
        found[f"federated, {name}"] = judged(hospitals, [head(hospitals, epsilon)] * len(hospitals))
    return found


def table_of(rows: dict[str, dict[str, Figures]]) -> Table:
    """One line a model."""
    told = list(rows.values())
    positives = sum(int(next(iter(each.values()))["positives"]) for each in told)
    table = Table(title=f"{len(told)} seeds, {positives} validation patients with the finding")
    for heading in ("model", "sensitivity", "more than alone", "specificity", "AUC", "more than alone"):
        table.add_column(heading)
    for name in told[0]:
        cells = []
        for figure in ("sensitivity", "specificity", "AUC"):
            values = [each[name][figure] for each in told]
            cells.append(studies.level(values))
            if figure != "specificity":
                more = [each[name][figure] - each["each alone"][figure] for each in told]
                cells.append("" if name == "each alone" else studies.difference(more))
        table.add_row(name, *cells)
    return table


def main() -> None:
    """Measure what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/rare.json"))
    parser.add_argument("--seed", type=int, action="append", help="instead of all")
    parser.add_argument("--set", action="append", default=[], help="an override of the configuration")
    parser.add_argument("--folder", type=Path, help="keeps phantoms and features for the next call")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Figures]] = json.loads(asked.output.read_text())["rows"] if asked.output.exists() else {}
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        for seed in track(asked.seed or SEEDS, "seeds"):
            if str(seed) not in rows:
                fixed = ["experiment=rare_disease", "tracking=none", "evaluation.arms=[]", f"output_dir={folder}"]
                rows[str(seed)] = played(load.load([*fixed, *asked.set, f"seed={seed}"]), folder / f"rare-{seed}")
                asked.output.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    Console(width=160).print(table_of(rows))


if __name__ == "__main__":
    main()
