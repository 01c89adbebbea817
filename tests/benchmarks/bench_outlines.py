"""Which training of ``scatter_outline`` wins within a privacy budget: `python -m tests.benchmarks.bench_outlines`.

One change at a time from an experiment with outlines. Hospitals' own training without
messages, on phantoms of seeds that no reported table uses. An outline's gradient has no closed form, so that a
configuration takes minutes where ``bench_search`` takes seconds: a handful of them is tried, with one draw of the noise
a seed. What has ended is written down at once, and the next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from client.books.accounting import Mechanism
from client.training.noise import entropy
from client.training.scoring import score_outlines, score_patients
from client.training.train import load_weights, train_locally
from conf import load, schema
from tasks import task as tasks
from tasks.models import registry
from tasks.study import TrainingTerms
from tests.benchmarks import linear_rounds, machine
from tests.benchmarks.bench_tasks import PHANTOMS
from tests.benchmarks.linear_rounds import Hospital, Terms

SEEDS, EPSILONS = (11, 12), (8.0, 3.0)
CHANGES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "rate 2": ("training.learning_rate=2",),
    "all": ("training.sample_rate=1",),
    "rate 2, all": ("training.learning_rate=2", "training.sample_rate=1"),
    "rate 0.5, all": ("training.learning_rate=0.5", "training.sample_rate=1"),
    "rate 2 falling to 0.2, all": (
        "training.learning_rate=2",
        "training.final_rate=0.1",
        "training.sample_rate=1",
    ),
    "four images": ("training.images_per_patient=4",),
    "four images, rate 2": ("training.images_per_patient=4", "training.learning_rate=2"),
    "four images, rate 4": ("training.images_per_patient=4", "training.learning_rate=4"),
    "four images, rate 2, half the steps": (
        "training.images_per_patient=4",
        "training.learning_rate=2",
        "training.steps=10",
    ),
    "four images, rate 2, twice the steps": (
        "training.images_per_patient=4",
        "training.learning_rate=2",
        "training.steps=40",
    ),
}
"""The experiment has rate 1, one image a patient, 40 % of the patients in each of 20 steps a round."""
Figures = dict[str, float]


def play(study: schema.Study, each: list[Hospital]) -> Figures:
    """Train and outline: mean AUC over hospitals, mean Dice over all their patients who have the structure."""
    task = tasks.get(study.task.name)
    module = registry.build(dict(vars(study.model)), task.form, study.seed).trainable
    privacy, training = study.privacy, TrainingTerms(**asdict(study.training))
    terms = Terms(training, study.federation.rounds, privacy.epsilon, privacy.delta, privacy.clip_norm)
    weights = registry.arrays_of(module)
    shares = np.array([hospital.public_size for hospital in each], dtype=float)
    for number, noise in enumerate(linear_rounds.noises(terms), start=1):
        rate = training.rate_in(number, terms.rounds)
        now = replace(training, learning_rate=rate)
        update = {name: np.zeros_like(value) for name, value in weights.items()}
        for hospital, share in zip(each, (shares / shares.sum()).tolist(), strict=True):
            load_weights(module, weights)
            mechanism = Mechanism(noise, now.sample_rate, now.steps)
            moved = train_locally(
                module, task, hospital.train, now, mechanism, terms.clip_norm, hospital.public_size, entropy()
            )
            update = {name: value + (share * moved[name]).astype(np.float32) for name, value in update.items()}
        weights = {name: value + update[name] for name, value in weights.items()}
    load_weights(module, weights)
    areas = [
        roc_auc_score(hospital.validation.patient_labels(), score_patients(module, hospital.validation))
        for hospital in each
    ]
    outlined = [score_outlines(module, hospital.validation, task.form) for hospital in each]
    by_structure = [np.concatenate([told[n].dice for told in outlined]) for n in range(task.form.structures)]
    return {"AUC": float(np.mean(areas)), "Dice": float(np.mean([np.nanmean(dice) for dice in by_structure]))}


def main() -> None:
    """Play what is not yet written down; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", choices=[name for name in PHANTOMS if name.endswith("_outlined")])
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--folder", type=Path, help="keeps phantoms and features for the next call")
    parser.add_argument("--change", choices=CHANGES, action="append", help="instead of all")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    file = asked.output / f"outlines-{asked.experiment}.json"
    rows: dict[str, Figures] = json.loads(file.read_text())["rows"] if file.exists() else {}
    asked.output.mkdir(parents=True, exist_ok=True)
    wanted = [(seed, epsilon, change) for seed in SEEDS for epsilon in EPSILONS for change in asked.change or CHANGES]
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        fixed = [f"experiment={asked.experiment}", "tracking=none", "evaluation.arms=[]", f"output_dir={folder}"]
        known: dict[int, list[Hospital]] = {}
        for seed, epsilon, change in track(wanted, asked.experiment):
            study = load.load([*fixed, f"seed={seed}", f"privacy.epsilon={epsilon}", *CHANGES[change]])
            key = f"{change} {epsilon:g} {seed}"
            if key not in rows:
                if seed not in known:
                    known[seed] = linear_rounds.hospitals(study, folder / f"books-outlines-{seed}")
                rows[key] = play(study, known[seed])
                file.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    table = Table(title=f"{asked.experiment}: mean of {len(SEEDS)} seeds, AUC of the question and Dice")
    for heading in ("change", *(f"epsilon {epsilon:g}" for epsilon in EPSILONS)):
        table.add_column(heading)
    for change in CHANGES:
        cells = []
        for epsilon in EPSILONS:
            told = [rows[key] for seed in SEEDS if (key := f"{change} {epsilon:g} {seed}") in rows]
            cells.append(
                ", ".join(f"{what} {np.mean([t[what] for t in told]):.3f}" for what in told[0]) if told else ""
            )
        table.add_row(change, *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
