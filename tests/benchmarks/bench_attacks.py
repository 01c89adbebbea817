"""What attackers do to a study, by strategy: `python -m tests.benchmarks.bench_attacks`.

Ten hospitals with label skew train a logistic regression on invented patients; some hospitals are attackers. Updates go
through the real admission check and the real strategies; there is no wire and no noise in the first table. The second
table is with patient-level privacy: the same poisoned hospitals with and without clipping, and norm bounding with the
length that no honest private update exceeds. The third (alone with `--studies`) plays whole studies with default
settings, real hospitals' code and real messages, in which one hospital of five is hostile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata

from conf.schema.privacy import Privacy
from conf.schema.strategy import (
    FedAvg,
    GeometricMedian,
    Krum,
    Median,
    MultiKrum,
    NormBounding,
    StrategySettings,
    TrimmedMean,
)
from conf.schema.training import TrainingSettings
from server.errors import CannotCombine
from server.strategy.admission import unusable
from server.strategy.local_sgd import expected_patients, honest_lengths
from server.strategy.registry import build
from server.strategy.strategy import norm
from tasks.protocol.wire import Arrays

HOSPITALS, PATIENTS, FEATURES, ROUNDS, SEEDS = 10, 100, 20, 30, 5
STUDY_SEEDS = 3
FRACTIONS = (0.1, 0.2, 0.3, 0.4)
TRAINING = TrainingSettings(steps=5, learning_rate=0.5, sample_rate=0.5)
PRIVACY = Privacy(clip_norm=1.0)
STRATEGIES: dict[str, StrategySettings] = {
    "fedavg": FedAvg(weighting="uniform"),
    "norm_bounding 0.5": NormBounding(norm_bound=0.5, weighting="uniform"),
    "median": Median(),
    "trimmed_mean 0.4": TrimmedMean(trim=0.4),
    "krum f=3": Krum(attackers=3),
    "multi_krum f=3 m=5": MultiKrum(attackers=3, selected=5),
    "geometric_median": GeometricMedian(),
}
STOCK = "Flower's mean"

Update = NDArray[np.float64]
Send = Callable[[Update], Update]


@dataclass(frozen=True)
class Attack:
    """What an attacker does to its patients' labels and features, and to the update that it then sends."""

    send: Send = field(default=lambda update: update)
    flips_labels: bool = False
    stretches_images: float = 1.0


ATTACKS = {
    "label flipping": Attack(flips_labels=True),
    "sign flipping": Attack(lambda update: -update),
    "scaled": Attack(lambda update: 50 * update, flips_labels=True),
    "free rider": Attack(np.zeros_like),
    "NaN": Attack(lambda update: np.full_like(update, np.nan)),
}


@dataclass(frozen=True)
class Patients:
    features: NDArray[np.float64]
    labels: NDArray[np.float64]


def draw(rng: np.random.Generator, count: int, prevalence: float, shift: float) -> Patients:
    """Two Gaussian classes whose centres are 2 apart; the last feature is constant."""
    labels = (rng.random(count) < prevalence).astype(float)
    features = rng.normal(size=(count, FEATURES)) + shift * rng.normal(size=FEATURES)
    features[:, 0] += 2 * (labels - 0.5)
    features[:, -1] = 1.0
    return Patients(features, labels)


@dataclass(frozen=True)
class Privately:
    """Clipping and noise of a hospital; ``noise_multiplier`` 0 with a finite ``clip_norm`` clips without noise."""

    clip_norm: float = np.inf
    noise_multiplier: float = 0.0


def train(rng: np.random.Generator, patients: Patients, weights: Update, private: Privately) -> Update:
    """What the hospitals' own code computes, all at once: DP-SGD on Poisson samples, as ``client/privacy.py``.

    Args:
        patients: of all hospitals, shapes (hospitals, patients, features) and (hospitals, patients).

    Returns:
        The updates, shape (hospitals, features).
    """
    x = np.repeat(weights[None], HOSPITALS, axis=0)
    lengths = np.linalg.norm(patients.features, axis=2)
    for _ in range(TRAINING.steps):
        sampled = rng.random(lengths.shape) < TRAINING.sample_rate
        slopes = sampled * (sigmoid(np.einsum("hpf,hf->hp", patients.features, x)) - patients.labels)
        slopes *= np.minimum(1, private.clip_norm / np.maximum(np.abs(slopes) * lengths, 1e-12))
        total = np.einsum("hp,hpf->hf", slopes, patients.features)
        if private.noise_multiplier:
            total += private.noise_multiplier * private.clip_norm * rng.normal(size=total.shape)
        x -= TRAINING.learning_rate * total / expected_patients(TRAINING, PATIENTS)
    return x - weights


@dataclass
class Outcome:
    """Figures of the final model, and the longest update before the strategy saw it.

    Attributes:
        auc: ``None`` where the model is not finite, or the strategy refused a round because so many updates were
            dropped that it would have withstood fewer attackers than it promises.
    """

    auc: float | None
    loss: float | None
    longest_honest: float
    longest_attack: float


def play(
    settings: StrategySettings | None,
    attack: Attack,
    attackers: int,
    seed: int,
    private: Privately | None = None,
) -> Outcome:
    """A whole study. Without settings Flower's own mean takes the place of admission and strategy."""
    rng = np.random.default_rng(seed)
    prevalences, private = rng.uniform(0.25, 0.75, HOSPITALS), private or Privately()
    hospitals = [draw(rng, PATIENTS, p, shift=0.3) for p in prevalences]
    test = draw(rng, 5000, 0.5, shift=0.0)
    hospitals[:attackers] = [poisoned(patients, attack) for patients in hospitals[:attackers]]
    everyone = Patients(np.stack([p.features for p in hospitals]), np.stack([p.labels for p in hospitals]))
    strategy = build(settings or FedAvg())
    weights: Arrays = {"w": np.zeros(FEATURES)}
    memory, longest = strategy.start(weights), [0.0, 0.0]
    for _ in range(ROUNDS):
        updates: list[Arrays] = []
        for index, update in enumerate(train(rng, everyone, weights["w"], private)):
            updates.append({"w": attack.send(update) if index < attackers else update})
            longest[index < attackers] = max(longest[index < attackers], norm(updates[-1]))
        if settings is None:
            weights = {"w": weights["w"] + stock_mean(updates)["w"]}
            continue
        combiner = strategy.combiner(weights, HOSPITALS)
        usable = [(i, u) for i, u in enumerate(updates) if not unusable(u, weights)]
        for index, sent in usable:
            combiner.add(str(index), sent, strategy.weight(PATIENTS, None))
        try:
            weights, memory = strategy.step(weights, memory, combiner.combined(), len(usable) / HOSPITALS)
        except CannotCombine:
            return Outcome(None, None, *longest)
    if not np.isfinite(weights["w"]).all():
        return Outcome(None, None, *longest)
    return Outcome(auc(test, weights["w"]), loss(test, weights["w"]), *longest)


def poisoned(patients: Patients, attack: Attack) -> Patients:
    """An attacker's patients."""
    labels = 1 - patients.labels if attack.flips_labels else patients.labels
    return Patients(patients.features * attack.stretches_images, labels)


def stock_mean(updates: list[Arrays]) -> Arrays:
    """What flwr.serverapp.strategy.FedAvg computes of the same updates, each with the same number of examples."""
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({name: Array(value) for name, value in update.items()}),
                "metrics": MetricRecord({"num-examples": PATIENTS}),
            }
        )
        for update in updates
    ]
    return {name: array.numpy() for name, array in aggregate_arrayrecords(records, "num-examples").items()}


def auc(patients: Patients, weights: Update) -> float:
    """Area under the ROC curve by ranks."""
    scores = patients.features @ weights
    positive = patients.labels == 1
    ranks, count = rankdata(scores), int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(ranks) - count)))


def loss(patients: Patients, weights: Update) -> float:
    """Mean cross-entropy in nats."""
    logits = patients.features @ weights
    return float(np.mean(np.logaddexp(0, logits) - patients.labels * logits))


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


Figures = dict[str, float | None]


def over_seeds(
    settings: StrategySettings | None, attack: Attack, attackers: int, private: Privately | None = None
) -> Figures:
    """Mean and standard deviation of the final AUC, mean loss, longest updates that are finite."""
    outcomes = [play(settings, attack, attackers, seed, private) for seed in range(SEEDS)]
    aucs, losses = [o.auc for o in outcomes if o.auc is not None], [o.loss for o in outcomes if o.loss is not None]
    whole = len(aucs) == SEEDS
    longest = max(o.longest_attack for o in outcomes)
    return {
        "auc": float(np.mean(aucs)) if whole else None,
        "auc_std": float(np.std(aucs, ddof=1)) if whole else None,
        "loss": float(np.mean(losses)) if whole else None,
        "longest_honest": max(o.longest_honest for o in outcomes),
        "longest_attack": longest if np.isfinite(longest) else None,
    }


def shown(cell: Figures, settings: StrategySettings | None) -> str:
    """The AUC, or why there is none."""
    if cell["auc"] is not None:
        return f"{cell['auc']:.3f}"
    return "NaN" if settings is None else "refused"


def by_strategy(console: Console) -> dict[str, dict[str, dict[str, Figures]]]:
    """First table. result[attack][strategy][fraction]."""
    console.print(f"{HOSPITALS} hospitals of {PATIENTS} patients, {ROUNDS} rounds, mean of {SEEDS} seeds")
    rows: dict[str, StrategySettings | None] = {STOCK: None, **STRATEGIES}
    none = {name: over_seeds(settings, Attack(), 0) for name, settings in rows.items()}
    found: dict[str, dict[str, dict[str, Figures]]] = {}
    for title, attack in ATTACKS.items():
        table = Table(title=f"{title}: final AUC by fraction of attackers")
        table.add_column("strategy")
        for fraction in (0.0, *FRACTIONS):
            table.add_column(f"{fraction:.0%}", justify="right")
        found[title] = {}
        for name, settings in rows.items():
            by_fraction = {"0.0": none[name]}
            for fraction in FRACTIONS:
                by_fraction[str(fraction)] = over_seeds(settings, attack, round(fraction * HOSPITALS))
            found[title][name] = by_fraction
            table.add_row(name, *(shown(cell, settings) for cell in by_fraction.values()))
        console.print(table)
    return found


def with_clipping(console: Console) -> dict[str, dict[str, Figures]]:
    """Second table. result[attack][arm]."""
    noise_multiplier, attackers = 1.0, 3
    bound = honest_lengths(TRAINING, PRIVACY.clip_norm, noise_multiplier, PATIENTS, FEATURES).longest
    private = Privately(PRIVACY.clip_norm, noise_multiplier)
    arms: dict[str, tuple[StrategySettings, Privately]] = {
        "fedavg, not clipped": (FedAvg(weighting="uniform"), Privately()),
        "fedavg, clipped": (FedAvg(weighting="uniform"), private),
        f"norm_bounding {bound:.2f}, clipped": (NormBounding(norm_bound=bound, weighting="uniform"), private),
        "norm_bounding 0.5, clipped": (NormBounding(norm_bound=0.5, weighting="uniform"), private),
    }
    attacks = {
        "none": Attack(),
        "images x 30, labels flipped": Attack(flips_labels=True, stretches_images=30.0),
        "update x 50, labels flipped": ATTACKS["scaled"],
    }
    table = Table(
        title=f"{attackers} attackers of {HOSPITALS}, {SEEDS} seeds; clip {PRIVACY.clip_norm:g}, noise multiplier "
        f"{noise_multiplier:g}: no honest update is longer than {bound:.2f}"
    )
    for heading in ("attack", "arm", "final AUC", "longest honest", "longest attack"):
        table.add_column(heading, justify="left" if heading in ("attack", "arm") else "right")
    found: dict[str, dict[str, Figures]] = {}
    for title, attack in attacks.items():
        found[title] = {}
        for arm, (settings, privately) in arms.items():
            cell = over_seeds(settings, attack, 0 if title == "none" else attackers, privately)
            found[title][arm] = cell | {"bound": bound}
            figures = (shown(cell, settings), f"{cell['longest_honest']:.2f}", f"{cell['longest_attack']:.2f}")
            table.add_row(title, arm, *figures)
    console.print(table)
    return found


def whole_studies(console: Console) -> dict[str, list[dict[str, object]]]:
    """Third table. result[attack] has one study a seed."""
    from tests.benchmarks import attacked_study as studies  # takes seconds, and threads that are set before

    played: dict[str, list[studies.Played]] = {attack: [] for attack in studies.ATTACKS}
    with tempfile.TemporaryDirectory() as output:
        for seed in range(1, STUDY_SEEDS + 1):
            for number, (title, attack) in enumerate(studies.ATTACKS.items()):
                played[title].append(studies.play(Path(output), f"attack-{number}", attack, seed))
                console.print(f"seed {seed}, {title}: {played[title][-1]}", markup=False)
    console.print(studies.table(played), markup=False)
    return {title: [asdict(one) for one in each] for title, each in played.items()}


def main() -> None:
    """Print the tables and write their numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/attacks.json"))
    parser.add_argument("--studies", action="store_true", help="the third table alone")
    given = parser.parse_args()
    output, console, started = given.output, Console(width=120), time.perf_counter()
    found: dict[str, object] = {}
    if not given.studies:
        with np.errstate(all="ignore"):
            found = {"by_strategy": by_strategy(console), "with_clipping": with_clipping(console)}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found["studies"] = whole_studies(console)
    seconds = time.perf_counter() - started
    output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"platform": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    output.write_text(json.dumps({"machine": machine, "seconds": seconds, **found}, indent=1, allow_nan=False))
    console.print(f"{seconds:.0f} s; numbers: {output}")


if __name__ == "__main__":
    main()
