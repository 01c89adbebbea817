"""What a study's configuration may say, field by field.

The YAML files of this folder are merged onto these dataclasses by Hydra, so a misspelt key or a wrong type is refused
while the command line is read; ``problems`` then refuses values that have the right type and make no sense, all of
them at once. A field without a default must be given by a YAML file or on the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class Task:
    """Which clinical question, by the name of a folder in ``tasks/``."""

    name: str = MISSING


@dataclass
class Model:
    """Which network, by a name that ``tasks/models/registry.py`` knows."""

    name: str = MISSING


@dataclass
class ScatterLinear(Model):
    """A linear head on fixed wavelet-scattering features: the model for small private cohorts."""

    name: str = "scatter_linear"
    resolution: int = 64
    """Images are averaged down to this many rows and columns first; 0 leaves them as the task gives them."""
    J: int = 4
    """Scale of the scattering: averages over 2**J pixels."""
    L: int = 4
    """Number of wavelet orientations."""
    pool: int = 4
    """Each scattering map is averaged to pool x pool cells."""


@dataclass
class DenseNet(Model):
    """MONAI's DenseNet121 with group normalisation."""

    name: str = "densenet121"
    groups: int = 8
    """Number of groups of every normalisation layer; batch normalisation mixes patients and is never used."""


@dataclass
class ResNet(Model):
    """MONAI's ResNet18 with group normalisation."""

    name: str = "resnet18"
    groups: int = 8
    """Number of groups of every normalisation layer."""


@dataclass
class Strategy:
    """How the server combines the hospitals' updates."""

    name: str = "fedavg"
    server_learning_rate: float = 1.0
    """The combined update is multiplied by this before it is added to the model."""
    weighting: str = "public_size"
    """``public_size`` (each hospital's declared, rounded size) or ``uniform``."""


@dataclass
class Training:
    """What a hospital does within one round."""

    steps: int = 3
    """Optimiser steps a round."""
    learning_rate: float = 8.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    sample_rate: float = 0.8
    """Probability with which each training patient joins a step (Poisson sampling)."""
    images_per_patient: int = 4
    """How many images of a sampled patient are drawn; the patient's loss is their mean."""


@dataclass
class Privacy:
    """What the researcher asks for; each hospital's own caps win where they are stricter."""

    epsilon: float | None = 8.0
    """Privacy loss of a training patient over the whole study; ``null`` asks for none, which a site must allow."""
    delta: float = 1e-4
    clip_norm: float = 0.5
    """Bound on the L2 norm of one patient's gradient."""


@dataclass
class Federation:
    """Who takes part, and when a round counts."""

    kind: str = MISSING
    """``phantom``, ``manifest`` or ``medmnist``: where the simulated hospitals get their patients."""
    rounds: int = 10
    quorum: float = 0.5
    """Smallest fraction of the invited hospitals whose updates make a round."""
    deadline_s: float = 600.0
    """Seconds after which a round closes without those who have not answered."""
    validation_fraction: float = 0.4
    """Fraction of each hospital's patients that is never trained on."""


@dataclass
class Phantom:
    """An invented hospital, as ``tasks.task.PhantomHospital`` explains."""

    patients: int = MISSING
    prevalence: float = 0.35
    gain: float = 1.0
    frequency_mhz: float = 10.0
    images_per_patient: tuple[int, int] = (1, 4)


@dataclass
class PhantomFederation(Federation):
    """Hospitals drawn by the task's own phantom: no real patient is involved."""

    kind: str = "phantom"
    hospitals: dict[str, Phantom] = MISSING
    """One phantom for each hospital's name."""


@dataclass
class ManifestFederation(Federation):
    """One simulated hospital for each value of a column in ``data_root/manifest.csv``."""

    kind: str = "manifest"
    site_column: str = "site"
    patient_column: str = "patient_id"
    label_column: str = "label"
    where: dict[str, list[str]] = field(default_factory=dict)
    """Keep only rows whose column has one of these values."""
    max_training_patients: dict[str, int] = field(default_factory=dict)
    """Makes a hospital small: at most so many of its patients are trained on; its validation patients all stay."""


@dataclass
class MedmnistFederation(Federation):
    """Simulated hospitals cut from one MedMNIST archive in ``data_root``; every image counts as a patient."""

    kind: str = "medmnist"
    archive: str = MISSING
    """File name of the ``.npz``."""
    sizes: dict[str, int] = MISSING
    """Number of patients for each hospital's name."""
    label_skew: float = 1.0
    """Concentration of the Dirichlet draw of class balance; small is skewed, large is even."""


@dataclass
class Evaluation:
    """What is measured, and against what."""

    every: int = 1
    """Evaluate the shared model every so many rounds, and always after the last."""
    epsilon: float | None = None
    """Privacy loss of a validation patient over the study; ``null`` asks for exact figures, which a real hospital
    refuses and a simulated one allows."""
    bins: int = 1024
    """Bins of a score histogram; a noised one wants few (10 to 20), an exact one many."""
    arms: list[str] = field(default_factory=lambda: ["local", "pooled"])
    """What the federated model is compared with. ``local``: each hospital alone; ``pooled``: all patients in one
    place. Both train without noise, and only in simulation."""
    arm_learning_rate: float | None = None
    """Learning rate of these arms, which have no noise to fear; ``null`` means the federated one."""


@dataclass
class Runtime:
    """Where the hospitals' code runs."""

    name: str = "local"
    workers: int = 0
    """Processes that play the hospitals; 0 plays them all in this one."""


@dataclass
class Tracking:
    """Where results are recorded."""

    name: str = "mlflow"
    """``mlflow`` or ``none``."""
    uri: str = ""
    """MLflow tracking server or store; empty means ``sqlite`` in ``output_dir``."""


@dataclass
class Study:
    """One study: everything that its results depend on."""

    experiment: str = "study"
    """The experiment's name; names the study's folder."""
    task: Task = field(default_factory=Task)
    model: Model = field(default_factory=Model)
    strategy: Strategy = field(default_factory=Strategy)
    training: Training = field(default_factory=Training)
    privacy: Privacy = field(default_factory=Privacy)
    federation: Federation = field(default_factory=Federation)
    evaluation: Evaluation = field(default_factory=Evaluation)
    runtime: Runtime = field(default_factory=Runtime)
    tracking: Tracking = field(default_factory=Tracking)
    seed: int = 1
    """Draws splits, phantoms and initial weights. Never the privacy noise."""
    data_root: str = ""
    """Folder of the real images for experiments that use some."""
    output_dir: str = "outputs"
    resume: str = "auto"
    """``auto`` continues the newest unfinished study of this very configuration; ``never`` starts a new one."""


STRATEGIES = ("fedavg",)
WEIGHTINGS = ("public_size", "uniform")
ARMS = ("local", "pooled")


def problems(study: Study) -> list[str]:
    """Every value in the configuration that cannot be meant, each with its key and the remedy."""
    return [
        *_choices(study),
        *_positive(study),
        *_fractions(study),
        *_combinations(study),
    ]


def _choices(study: Study) -> Iterator[str]:
    allowed: list[tuple[str, str, tuple[str, ...]]] = [
        ("strategy.name", study.strategy.name, STRATEGIES),
        ("strategy.weighting", study.strategy.weighting, WEIGHTINGS),
        ("runtime.name", study.runtime.name, ("local",)),
        ("tracking.name", study.tracking.name, ("mlflow", "none")),
        ("resume", study.resume, ("auto", "never")),
        *(("evaluation.arms", arm, ARMS) for arm in study.evaluation.arms),
    ]
    for key, value, choices in allowed:
        if value not in choices:
            yield f"{key}={value}: must be one of {', '.join(choices)}"


def _positive(study: Study) -> Iterator[str]:
    values: dict[str, float | None] = {
        "training.steps": study.training.steps,
        "training.learning_rate": study.training.learning_rate,
        "training.images_per_patient": study.training.images_per_patient,
        "privacy.epsilon": study.privacy.epsilon,
        "privacy.clip_norm": study.privacy.clip_norm,
        "federation.rounds": study.federation.rounds,
        "federation.deadline_s": study.federation.deadline_s,
        "evaluation.every": study.evaluation.every,
        "evaluation.epsilon": study.evaluation.epsilon,
        "evaluation.arm_learning_rate": study.evaluation.arm_learning_rate,
        "strategy.server_learning_rate": study.strategy.server_learning_rate,
    }
    for key, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            yield f"{key}={value}: must be a positive number"
    non_negative = {
        "training.momentum": study.training.momentum,
        "training.weight_decay": study.training.weight_decay,
        "runtime.workers": study.runtime.workers,
        "seed": study.seed,
    }
    for key, number in non_negative.items():
        if not number >= 0:
            yield f"{key}={number}: must not be negative"
    if not 2 <= study.evaluation.bins <= 65536:
        yield f"evaluation.bins={study.evaluation.bins}: must lie between 2 and 65536"


def _fractions(study: Study) -> Iterator[str]:
    values = {
        "training.sample_rate": study.training.sample_rate,
        "privacy.delta": study.privacy.delta,
        "federation.quorum": study.federation.quorum,
        "federation.validation_fraction": study.federation.validation_fraction,
    }
    for key, value in values.items():
        top_is_fine = key in ("training.sample_rate", "federation.quorum")
        if not (0 < value < 1 or (top_is_fine and value == 1)):
            yield f"{key}={value}: must lie between 0 and 1"


def _combinations(study: Study) -> Iterator[str]:
    if isinstance(study.federation, ManifestFederation | MedmnistFederation) and not study.data_root:
        yield f"data_root is empty: this experiment reads real images; say data_root=FOLDER ({study.federation.kind})"
    if study.training.momentum >= 1:
        yield f"training.momentum={study.training.momentum}: must be below 1"
    if study.evaluation.epsilon is not None and study.evaluation.bins > 64:
        yield (
            f"evaluation.bins={study.evaluation.bins}: a noised histogram of so many bins is nothing but noise; "
            "say evaluation.bins=16"
        )
