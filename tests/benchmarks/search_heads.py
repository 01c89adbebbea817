"""Which head, and which settings of it, at which epsilon: `python -m tests.benchmarks.search_heads SETTING...`

Cross-validation over all patients of an experiment's simulated hospitals, with its own features: nothing is looked at
but open patients, and every figure is of patients that a training has not seen. Each fold is trained anew with each
draw of the noise. What is compared:

    steps        full steps of logistic regression: each patient's gradient clipped, everybody in each step
    covariance   least squares from a noised covariance of the features and a noised sum (H. Mehta et al., Large scale
                 transfer learning for differentially private image classification, 2022, DP-FC); a patient with vectors
                 of norm 1 moves the covariance by 1 at most (Frobenius) and the sum by 1/2, and both share the budget
    prototypes   one step from zero: the noised difference of the classes' sums (R. Wahdany et al., AAAI 2025)

``own`` noise is that of each hospital, ``shared`` noise is added once to the sum over all. The guarantee is of
patients, of one study, by the ledger's own accounting. Settings that are chosen here were chosen on these patients:
figures of the best of many are a little too good, by less than the deviation that stands beside them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score

from client.ledger.accounting import noise_at, plan_scale
from conf import load
from tests.benchmarks import linear_rounds, machine
from tests.benchmarks.linear_rounds import Hospital

Floats = NDArray[np.float64]
EPSILONS, MODES, DELTA = (8.0, 3.0, 1.0), ("own", "shared"), 1e-4
FOLDS, SPLITS, FEW, MANY = 4, (1, 2, 3), 2, 4
"""Draws of the noise in each fold while settings are searched, and for the best: 12 folds of four trainings each."""
STEPS, RATES, CLIPS = (5, 12, 25, 50), (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), (0.15, 0.3)
RIDGES, SHARES = (5.0, 20.0, 80.0, 320.0), (0.3, 0.6)
_SEED = 7


@dataclass(frozen=True)
class Images:
    """Everybody's images.

    Attributes:
        features: (images, features), of norm 1, and a column of ones.
        labels: (images,), 0 or 1.
        patient, hospital: (images,), numbers.
    """

    features: Floats
    labels: Floats
    patient: NDArray[np.int64]
    hospital: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Images:
        """Some of them."""
        return Images(self.features[chosen], self.labels[chosen], self.patient[chosen], self.hospital[chosen])


@dataclass(frozen=True)
class Head:
    """A head and its settings; ``conf.schema.training`` explains rate and clip, which only steps have."""

    kind: str = "steps"
    steps: int = 25
    rate: float = 8.0
    clip: float = 0.3
    ridge: float = 20.0
    share: float = 0.5


def pooled(hospitals: list[Hospital]) -> Images:
    """All images of both sides of all hospitals."""
    parts = []
    patients = 0
    for number, hospital in enumerate(hospitals):
        for cohort in (hospital.train, hospital.validation):
            of = np.zeros(len(cohort.inputs), np.int64)
            for index, rows in enumerate(cohort.rows):
                of[rows.numpy()] = patients + index
            patients += len(cohort.rows)
            features = np.c_[cohort.inputs.numpy().astype(np.float64), np.ones(len(of))]
            parts.append(
                Images(features, cohort.targets[:, 0].numpy().astype(np.float64), of, np.full(len(of), number))
            )
    told = Images(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))
    return told.of(~np.isnan(told.labels))


def folds(images: Images, caps: list[int | None]) -> Iterator[tuple[Images, Images]]:
    """Training and test images, by patients; a hospital that is kept small trains with so many of its patients."""
    everybody = np.unique(images.patient)
    for split in SPLITS:
        draw = np.random.default_rng(split)
        fold = dict(zip(draw.permutation(everybody).tolist(), np.arange(len(everybody)) % FOLDS, strict=True))
        of = np.array([fold[patient] for patient in images.patient])
        for number in range(FOLDS):
            kept = of != number
            for hospital, cap in enumerate(caps):
                own = np.unique(images.patient[kept & (images.hospital == hospital)])
                if cap is not None:
                    kept &= ~np.isin(images.patient, draw.permutation(own)[cap:])
            yield images.of(kept), images.of(of == number)


def noise_of(steps: int, epsilon: float | None, hospitals: int, mode: str) -> float:
    """Standard deviation of the noise of the sum over hospitals, in units of what one patient can change."""
    if epsilon is None:
        return 0.0
    scale = plan_scale([], 1.0, [(1.0, steps)], epsilon, DELTA)
    return noise_at(scale, 1.0) * (hospitals**0.5 if mode == "own" else 1.0)


def trained(images: Images, head: Head, epsilon: float | None, mode: str, draws: int, seed: int) -> Floats:
    """Heads of several draws of the noise: (draws, features + 1)."""
    noise = np.random.default_rng(seed)
    hospitals = len(np.unique(images.hospital))
    if head.kind == "covariance":
        return _least_squares(images, head, epsilon, draws=draws, hospitals=hospitals, mode=mode, noise=noise)
    steps = 1 if head.kind == "prototypes" else head.steps
    deviation = noise_of(steps, epsilon, hospitals, mode) * head.clip
    _, of = np.unique(images.patient, return_inverse=True)
    share = (1 / np.bincount(of))[of]
    patients = int(of.max()) + 1
    heads = np.zeros((draws, images.features.shape[1]))
    for _ in range(steps):
        slopes = (1 / (1 + np.exp(-images.features @ heads.T)) - images.labels[:, None]) * share[:, None]
        if epsilon is not None:
            slopes = slopes * np.minimum(1, head.clip / _norms(images.features, slopes, of, patients))[of]
        total = slopes.T @ images.features + deviation * noise.standard_normal(heads.shape)
        heads = heads - head.rate * total / patients
    return heads


def _norms(features: Floats, slopes: Floats, of: NDArray[np.int64], patients: int) -> Floats:
    """Norm of each patient's gradient for each draw: (patients, draws)."""
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.abs(slopes)
    norms = np.zeros((patients, slopes.shape[1]))
    np.maximum.at(norms, of, lengths)
    several = np.flatnonzero(np.bincount(of) > 1)
    for patient in several:
        own = of == patient
        norms[patient] = np.linalg.norm(slopes[own].T @ features[own], axis=1)
    return np.maximum(norms, 1e-12)


def _least_squares(
    images: Images,
    head: Head,
    epsilon: float | None,
    *,
    draws: int,
    hospitals: int,
    mode: str,
    noise: np.random.Generator,
) -> Floats:
    _, of = np.unique(images.patient, return_inverse=True)
    share = (1 / np.bincount(of))[of, None]
    x = images.features[:, :-1]
    covariance, total = (x * share).T @ x, ((images.labels[:, None] - 0.5) * share * x).sum(axis=0)
    one = noise_of(1, epsilon, hospitals, mode)
    found = []
    for _ in range(draws):
        half = np.triu(noise.standard_normal(covariance.shape)) * one / head.share**0.5
        widths, axes = np.linalg.eigh(covariance + half + np.triu(half, 1).T)
        aim = total + noise.standard_normal(len(total)) * 0.5 * one / (1 - head.share) ** 0.5
        found.append(np.append(axes @ ((axes.T @ aim) / (np.maximum(widths, 0) + head.ridge)), 0.0))
    return np.array(found)


def aucs(images: Images, heads: Floats) -> Floats:
    """AUC over patients of each draw; a patient's score is the mean over its images, its label their maximum."""
    scores = 1 / (1 + np.exp(-images.features @ heads.T))
    _, of = np.unique(images.patient, return_inverse=True)
    number = np.bincount(of)
    labels = np.zeros(len(number))
    np.maximum.at(labels, of, images.labels)
    return np.array([roc_auc_score(labels, np.bincount(of, column) / number) for column in scores.T])


class Comparison:
    """All that was tried on one experiment's patients."""

    def __init__(self, images: Images, caps: list[int | None]) -> None:
        self._folds = list(folds(images, caps))
        self.tried: list[dict[str, object]] = []

    def figures(self, head: Head, epsilon: float | None, mode: str, draws: int) -> Floats:
        """AUC by fold and draw."""
        told = np.array(
            [
                aucs(test, trained(train, head, epsilon, mode, draws, _SEED + number))
                for number, (train, test) in enumerate(self._folds)
            ]
        )
        self.tried.append(asdict(head) | {"epsilon": epsilon, "mode": mode, "auc": told.tolist()})
        return told

    def best(self, kind: str, epsilon: float | None, mode: str) -> tuple[Head, Floats]:
        """The best settings of a kind of head, and what they gave with more draws."""
        found = max(settings_of(kind), key=lambda head: float(self.figures(head, epsilon, mode, FEW).mean()))
        return found, self.figures(found, epsilon, mode, 1 if epsilon is None else MANY)


def settings_of(kind: str) -> list[Head]:
    """What is tried of a kind of head."""
    if kind == "steps":
        return [
            Head(steps=steps, rate=rate, clip=clip)
            for steps in STEPS
            for clip in CLIPS
            for rate in RATES
            if 10 <= rate * steps * clip / 0.3 <= 900
        ]
    if kind == "prototypes":
        return [Head(kind, clip=clip) for clip in (*CLIPS, 0.6)]
    return [Head(kind, ridge=ridge, share=share) for ridge in RIDGES for share in SHARES]


def main() -> None:
    """Search; print the best of each head at each epsilon, write down everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", nargs="+", help="such as experiment=busi data_root=FOLDER")
    parser.add_argument("--heads", nargs="+", default=["steps", "prototypes"])
    parser.add_argument("--epsilon", nargs="+", type=float, default=list(EPSILONS))
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--folder", type=Path, help="keeps images and features for the next call")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        study = load.load([*asked.settings, "tracking=none", "evaluation.arms=[]", f"output_dir={folder}"])
        hospitals = linear_rounds.hospitals(study, folder / "books")
    capped = getattr(study.federation, "max_training_patients", {})
    images = pooled(hospitals)
    comparison = Comparison(images, [capped.get(hospital.name) for hospital in hospitals])
    sizes = f"{len(np.unique(images.patient))} patients, {images.features.shape[1] - 1} features"
    table = Table(title=f"{study.experiment}: {sizes}; AUC, deviation over trainings and over splits")
    for heading in ("epsilon", "noise", "head", "AUC", "settings"):
        table.add_column(heading)
    for epsilon in asked.epsilon:
        for mode in MODES:
            for kind in asked.heads:
                head, told = comparison.best(kind, epsilon, mode)
                by_split = told.reshape(len(SPLITS), FOLDS, -1).mean(axis=1)
                over = (by_split.std(axis=1, ddof=1).mean(), by_split.mean(axis=1).std(ddof=1))
                spread = f"{told.mean():.3f} ± {over[0]:.3f} ± {over[1]:.3f}"
                shown = " ".join(f"{name}={value:g}" for name, value in asdict(head).items() if name != "kind")
                table.add_row(f"{epsilon:g}", mode, kind, spread, shown)
    asked.output.mkdir(parents=True, exist_ok=True)
    written = {"machine": machine.facts(), "settings": asked.settings, "tried": comparison.tried}
    (asked.output / f"heads-{study.experiment}.json").write_text(json.dumps(written, indent=1))
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
