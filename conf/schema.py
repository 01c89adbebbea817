"""What a study's configuration may say, field by field.

The YAML files of this folder are merged onto these dataclasses by Hydra, so a misspelt key or a wrong type is refused
while the command line is read; ``conf/checks.py`` then refuses values that have the right type and make no sense, all
of them at once. A field without a default must be given by a YAML file or on the command line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class TaskSettings:
    """Which clinical question."""

    name: str = MISSING
    """A folder of ``tasks/``."""


@dataclass
class ModelSettings:
    """Which network."""

    name: str = MISSING
    """A name that ``tasks/models/registry.py`` knows; the file of the choice sets it."""


@dataclass
class ScatterLinear(ModelSettings):
    """A linear head on fixed wavelet-scattering features: the model for small private cohorts."""

    name: str = "scatter_linear"
    """Set by the choice."""
    resolution: int = 64
    """Images are averaged down to this many rows and columns (and slices) first; 0 leaves them as the task gives
    them."""
    J: int = 4
    """Scale of the scattering: averages over 2**J pixels along each axis."""
    L: int = 4
    """Number of wavelet orientations; in volumes 3 (axes), 7 (and space diagonals) or 13 (and face diagonals)."""
    pool: int = 4
    """Each scattering map is averaged to so many cells along each axis."""


@dataclass
class ScatterOutline(ScatterLinear):
    """``scatter_linear``, and a second linear head that outlines structures from fixed features of places."""

    name: str = "scatter_outline"
    """Set by the choice."""


@dataclass
class Deep(ModelSettings):
    """What all networks of layers have."""

    weights: str = ""
    """Safetensors file that the network starts from; "" for none. Orders carry its SHA-256 only, so every hospital must
    have the same file, in the folder that its ``site.yaml`` names as ``weights``, and so must a server that conducts
    the study, in its own ``weights/``. The last layer is always new."""
    freeze: str = "nothing"
    """``nothing`` trains all of it; ``encoder`` trains the last layer alone: the rest is computed once for each image,
    kept, and never travels. Needs ``weights``; for networks that classify."""


@dataclass
class DenseNet(Deep):
    """MONAI's DenseNet121 with group normalisation. Images below 32 pixels along an axis get a frame of zeros."""

    name: str = "densenet121"
    """Set by the choice."""
    groups: int = 8
    """Number of groups of every normalisation layer; batch normalisation mixes patients and is never trained. 0 keeps
    it, for a frozen encoder whose file has its statistics."""


@dataclass
class ResNet(Deep):
    """MONAI's ResNet18 with group normalisation."""

    name: str = "resnet18"
    """Set by the choice."""
    groups: int = 8
    """Number of groups of every normalisation layer; 0 keeps batch normalisation, for a frozen encoder whose file has
    its statistics."""


@dataclass
class EfficientNet(Deep):
    """MONAI's EfficientNet-B0 with group normalisation and nothing random. Images below 32 pixels along an axis get a
    frame of zeros."""

    name: str = "efficientnet"
    """Set by the choice."""
    groups: int = 8
    """Number of groups of every normalisation layer; 0 keeps batch normalisation, for a frozen encoder whose file has
    its statistics."""


@dataclass
class ViT(Deep):
    """MONAI's vision transformer, small: it needs more patients than the others."""

    name: str = "vit"
    """Set by the choice."""
    patch: int = 16
    """Pixels along each side of a patch; images are framed with zeros to a multiple of it."""
    width: int = 192
    """Values that describe a patch; a multiple of ``heads``."""
    layers: int = 6
    """Number of transformer blocks."""
    heads: int = 3
    """Attention heads of each."""


@dataclass
class UNet(Deep):
    """MONAI's residual U-Net with group normalisation: outlines structures, and reads the findings from its deepest
    features."""

    name: str = "unet"
    """Set by the choice."""
    width: int = 16
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    levels: int = 4
    """Resolutions, 3 to 6; images are framed with zeros so that they can be halved so often."""
    groups: int = 8
    """Number of groups of every normalisation layer."""


@dataclass
class SegResNet(Deep):
    """MONAI's SegResNet, of four levels: outlines structures, and reads the findings from its deepest features."""

    name: str = "segresnet"
    """Set by the choice."""
    width: int = 8
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    groups: int = 8
    """Number of groups of every normalisation layer."""


@dataclass
class DynUNet(Deep):
    """MONAI's DynUNet, the network of nnU-Net: outlines structures, and reads the findings from its deepest
    features."""

    name: str = "dynunet"
    """Set by the choice."""
    width: int = 16
    """Channels at full resolution; each level below has twice as many. A multiple of ``groups``."""
    levels: int = 4
    """Resolutions, 3 to 6; images are framed with zeros so that they can be halved so often."""
    groups: int = 8
    """Number of groups of every normalisation layer."""


@dataclass
class StrategySettings:
    """How the server combines the hospitals' updates; the files of ``server/strategy/`` cite the papers."""

    name: str = MISSING
    """Set by the choice."""
    server_learning_rate: float = 1.0
    """The combined update is multiplied by this before it is added to the model."""
    weighting: str = "public_size"
    """``public_size`` (each hospital's declared, rounded size), ``uniform``, or ``inverse_noise_variance`` (the mean
    with the least noise; only with privacy)."""
    ema: float = 0.0
    """Decay of an exponential moving average of the model over rounds, which is then what is evaluated and handed over;
    0 is none."""


@dataclass
class FedAvg(StrategySettings):
    """The weighted mean of the updates."""

    name: str = "fedavg"
    """Set by the choice."""


@dataclass
class FedAvgM(StrategySettings):
    """FedAvg and momentum at the server."""

    name: str = "fedavgm"
    """Set by the choice."""
    server_momentum: float = 0.9
    """Fraction of the last move that is made again."""


@dataclass
class FedAdagrad(StrategySettings):
    """A step size for each weight, from all its updates so far."""

    name: str = "fedadagrad"
    """Set by the choice."""
    server_learning_rate: float = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: float = 0.0
    """Decay of the mean of the updates over rounds."""
    tau: float = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedAdam(StrategySettings):
    """A step size for each weight, from its recent updates."""

    name: str = "fedadam"
    """Set by the choice."""
    server_learning_rate: float = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: float = 0.9
    """Decay of the mean of the updates over rounds."""
    beta_2: float = 0.99
    """Decay of the mean of their squares over rounds."""
    tau: float = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedYogi(StrategySettings):
    """FedAdam whose step sizes recover slowly after a burst."""

    name: str = "fedyogi"
    """Set by the choice."""
    server_learning_rate: float = 0.1
    """How far a weight moves in a round at most, about; it has another meaning than FedAvg's."""
    beta_1: float = 0.9
    """Decay of the mean of the updates over rounds."""
    beta_2: float = 0.99
    """How fast the second moment follows the squares; nearer to 1 is slower."""
    tau: float = 1e-3
    """Added to the root of the second moment: larger adapts less."""


@dataclass
class FedProx(StrategySettings):
    """FedAvg whose hospitals are drawn towards the model that they were given."""

    name: str = "fedprox"
    """Set by the choice."""
    mu: float = 0.1
    """Strength of that pull; times the learning rate it should stay below one."""


@dataclass
class Scaffold(StrategySettings):
    """FedAvg whose hospitals are told how they drift apart. For little noise: the correction carries it on."""

    name: str = "scaffold"
    """Set by the choice."""


@dataclass
class FedBN(StrategySettings):
    """FedAvg; each hospital has normalisation layers of its own. For deep models."""

    name: str = "fedbn"
    """Set by the choice."""


@dataclass
class FedPer(StrategySettings):
    """FedAvg; each hospital has a last layer of its own. For deep models."""

    name: str = "fedper"
    """Set by the choice."""


@dataclass
class FedRep(StrategySettings):
    """FedPer that trains the last layer first, alone, and then the rest, alone."""

    name: str = "fedrep"
    """Set by the choice."""
    head_steps: int = 5
    """Of the steps of a round, how many train the last layer."""


@dataclass
class Ditto(StrategySettings):
    """FedAvg, and a second model at each hospital that is its own; it takes as many steps again, which cost privacy."""

    name: str = "ditto"
    """Set by the choice."""
    pull: float = 0.1
    """How strongly the hospital's own model is drawn towards the shared one (lambda)."""


@dataclass
class Cyclic(StrategySettings):
    """Cyclical weight transfer: one hospital a round, in turn."""

    name: str = "cyclic"
    """Set by the choice."""


@dataclass
class NormBounding(StrategySettings):
    """The weighted mean of updates that were shortened to a bound."""

    name: str = "norm_bounding"
    """Set by the choice."""
    norm_bound: float = 1.0
    """Longest L2 norm that an update keeps. ``server.strategy.local_sgd.honest_norm`` computes the length that no
    honest private update exceeds; a bound near the usual length (``update_norm`` of past rounds) withstands more."""


@dataclass
class Robust(StrategySettings):
    """What withstands some hospitals that send anything they like; it holds all updates of a round in memory."""

    weighting: str = "uniform"
    """``uniform``: a declared size is a lever that an attacker could pull."""
    memory_limit_gb: float = 8.0
    """Rounds whose updates need more memory at the server (10**9 bytes) are refused before they begin."""


@dataclass
class Median(Robust):
    """The median of every weight by itself."""

    name: str = "median"
    """Set by the choice."""


@dataclass
class TrimmedMean(Robust):
    """The mean of every weight by itself without the extremes."""

    name: str = "trimmed_mean"
    """Set by the choice."""
    trim: float = 0.34
    """Fraction of the updates that is dropped at either end, rounded down to whole updates."""


@dataclass
class Krum(Robust):
    """The one update with the closest neighbours."""

    name: str = "krum"
    """Set by the choice."""
    attackers: int = 1
    """How many hospitals may be attackers; at least twice as many and three must answer."""


@dataclass
class MultiKrum(Robust):
    """The mean of the updates with the closest neighbours."""

    name: str = "multi_krum"
    """Set by the choice."""
    attackers: int = 1
    """How many hospitals may be attackers; at least twice as many and three must answer."""
    selected: int = 4
    """Of how many updates the mean is taken; with the attackers no more than answer."""


@dataclass
class GeometricMedian(Robust):
    """The point with the least sum of distances to all updates."""

    name: str = "geometric_median"
    """Set by the choice."""


@dataclass
class TrainingSettings:
    """What a hospital does within one round."""

    steps: int = 10
    """Optimiser steps a round."""
    learning_rate: float = 8.0
    """Step size of SGD. Clipped patient gradients are short, so a linear head wants a large one."""
    momentum: float = 0.0
    """Momentum of SGD within one round; the next round starts without any."""
    weight_decay: float = 0.0
    """L2 penalty of SGD, applied to the noised gradient."""
    sample_rate: float = 0.4
    """Probability with which each training patient joins a step (Poisson sampling)."""
    final_rate: float = 1.0
    """Fraction of the learning rate that is left in the last round; in between it falls geometrically."""
    final_noise: float = 1.0
    """Noise of a hospital's last turn as a multiple of that of its first; in between it changes geometrically, in five
    steps at most. The study's epsilon is the same: below 1 more of it is spent late, above 1 early."""
    images_per_patient: int = 4
    """How many images of a sampled patient are drawn; the patient's loss is their mean."""


@dataclass
class Privacy:
    """What the researcher asks for; each hospital's own caps win where they are stricter."""

    epsilon: float | None = 8.0
    """Privacy loss of a training patient over the whole study; ``null`` asks for none, which a site must allow."""
    delta: float = 1e-4
    """Probability with which the promise of ``epsilon`` may fail; keep it below one over the number of patients."""
    clip_norm: float = 0.25
    """Bound on the L2 norm of one patient's gradient."""


@dataclass
class Federation:
    """Who takes part, and when a round counts."""

    kind: str = MISSING
    """``phantom``, ``manifest`` or ``medmnist``: where the simulated hospitals get their patients; ``enrolled``: the
    hospitals are real."""
    rounds: int = 10
    """Rounds of training; the privacy of the whole study is planned over them."""
    quorum: float = 0.5
    """Smallest fraction of the invited hospitals whose updates make a round."""
    deadline_s: float = 600.0
    """Seconds after which a round closes without those who have not answered."""
    participation: float = 1.0
    """Fraction of the hospitals, rounded down, whose updates a round wants. They take turns, and each plans its noise
    for its own turns only."""
    over_selection: float = 0.0
    """So many more are invited, as a fraction of those that are wanted; the round closes when enough have answered.
    Whoever is invited spends privacy, in time or late, and plans its noise for that."""
    late_rounds: int = 0
    """For how many rounds after its own a late update is still taken: it is folded into the round that it comes in, at
    a discount that grows with its age. 0 drops what is late. Not for ``scaffold``, ``cyclic`` and robust strategies."""
    validation_fraction: float = 0.4
    """Fraction of each hospital's patients that is never trained on."""


@dataclass
class Phantom:
    """An invented hospital, as ``tasks.task.PhantomHospital`` explains."""

    patients: int = MISSING
    """How many patients are drawn."""
    prevalence: float = 0.35
    """Expected fraction of patients with the positive class."""
    gain: float = 1.0
    """Overall brightness of the scanner; 1 is neutral."""
    frequency_mhz: float = 10.0
    """Centre frequency of the transducer; higher means finer speckle and less depth."""
    images_per_patient: tuple[int, int] = (1, 4)
    """The least and the most images of one patient."""
    positives: int | None = None
    """Exactly so many patients have the positive class, whatever ``prevalence`` says; for rare findings."""


@dataclass
class PhantomFederation(Federation):
    """Hospitals drawn by the task's own phantom: no real patient is involved."""

    kind: str = "phantom"
    """Set by the choice."""
    hospitals: dict[str, Phantom] = MISSING
    """One phantom for each hospital's name."""


@dataclass
class ManifestFederation(Federation):
    """One simulated hospital for each value of a column in ``data_root/manifest.csv``."""

    kind: str = "manifest"
    """Set by the choice."""
    site_column: str = "site"
    """Column whose values become the hospitals."""
    patient_column: str = "patient_id"
    """Column that names the patient: rows with one value are one patient."""
    blocks: int = 0
    """Instead of by a column, patients are dealt out to so many hospitals, by a digest of their names; 0 does not."""
    label_column: str = "label"
    """Column with 0 or 1."""
    finding_columns: dict[str, str] = field(default_factory=dict)
    """Of a further finding of the task the column with 0, 1 or nothing."""
    mask_columns: dict[str, str] = field(default_factory=dict)
    """Of each structure of the task the column that names its mask files, ``;`` between several."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Keep only rows whose column has one of these values."""
    max_training_patients: dict[str, int] = field(default_factory=dict)
    """Makes a hospital small: at most so many of its patients are trained on; its validation patients all stay."""
    min_patients: int = 5
    """With fewer patients to train on a simulated hospital refuses, as its policy says."""


@dataclass
class MedmnistFederation(Federation):
    """Simulated hospitals cut from one MedMNIST archive in ``data_root``; every image counts as a patient."""

    kind: str = "medmnist"
    """Set by the choice."""
    archive: str = MISSING
    """File name of the ``.npz``."""
    sizes: dict[str, int] = MISSING
    """Number of patients for each hospital's name."""
    label_skew: float = 1.0
    """Concentration of the Dirichlet draw of class balance; small is skewed, large is even."""


@dataclass
class EnrolledFederation(Federation):
    """Hospitals that were admitted to a server: real ones, which approve the study before they answer."""

    kind: str = "enrolled"
    """Set by the choice."""
    hospitals: list[str] = field(default_factory=list)
    """Names of those who are invited; empty invites all who were admitted when the study is first started."""
    patience_s: float = 180.0
    """Seconds that an order waits for hospitals that are away before it goes out without them."""
    attempts: int = 3
    """How often a round is played in all when too few have answered. Whoever has answered it sends the stored answer
    again, which costs no privacy."""


EXACT_BINS = 1024
"""Bins of a histogram without noise, fine enough to keep patients apart. The comparison arms use as many."""
EXACT_PAIRED_BINS, NOISED_PAIRED_BINS = 32, 4
"""Bins a model of a joint histogram of two models' scores, without noise and with it; ``tasks/metrics/paired.py`` says
why so few."""


@dataclass
class Gate:
    """What every hospital's figures must reach before a model is called accepted in the registry. It is the lower limit
    of the 95 % interval that must reach it, and a hospital without a figure has not. ``null`` asks for nothing."""

    auc: float | None = None
    """Area under the ROC curve."""
    sensitivity: float | None = None
    """At the threshold with 90 % specificity on all validation patients together."""
    specificity: float | None = None
    """At the same threshold."""


@dataclass
class Evaluation:
    """What is measured, and against what."""

    every: int = 1
    """Evaluate the shared model every so many rounds, and always after the last."""
    epsilon: float | None = None
    """Privacy loss of a validation patient over the study; ``null`` asks for exact figures, which a real hospital
    refuses and a simulated one allows."""
    bins: int = EXACT_BINS
    """Bins of a score histogram; a noised one wants few (10 to 20), an exact one many."""
    subgroups: list[str] = field(default_factory=list)
    """Attributes by which the last evaluation is told apart as well: ``sex``, ``age``, ``vendor``. Each is one more
    histogram, and so one more share of ``epsilon``."""
    arms: list[str] = field(default_factory=lambda: ["local", "pooled", "shuffled"])
    """What the federated model is compared with. ``local``: each hospital alone; ``pooled``: all patients in one
    place; ``shuffled``: the same with labels that were dealt out at random, which should learn nothing. All train
    without noise, and only in simulation."""
    paired: bool = True
    """With the arm ``local``: compare each hospital's own model with the federated one on the same patients, which
    tells a difference much more sharply than two figures apart. It is one more histogram, and with ``epsilon`` one more
    share of it; a hospital too small for that to pay is not asked."""
    matrix: int = 0
    """With the arm ``local``: score every hospital's own model at every hospital. Say how many hospitals there are, for
    each of them is one more histogram at every hospital, and one more share of ``epsilon``; 0 asks for none."""
    shufflings: int = 5
    """How often the arm ``shuffled`` deals labels out and trains; its figures are the means, since one model alone
    strays far from 0.5 by chance."""
    patience: int = 0
    """End the study after so many evaluations without a better mean AUC; 0 plays all rounds."""
    least_gain: float = 0.0
    """How much better than the best so far a mean AUC must be to count as better: at least what noise can feign."""
    deliver: str = "last"
    """``last`` or ``best``: which round's model is handed over. The best of many noisy figures looks better than it
    is."""
    gate: Gate = field(default_factory=Gate)
    """Chosen before the study begins: it is part of what makes this study this one."""
    arm_learning_rate: float | None = None
    """Learning rate of these arms, which have no noise to fear; ``null`` means the federated one."""
    arm_final_rate: float | None = None
    """As ``training.final_rate``, for these arms; ``null`` means the federated one. At a high constant rate it is
    chance where the last step ends."""


def paired_bins(evaluation: Evaluation) -> int:
    """Bins a model of the joint histogram that leaves each hospital; 0 for none."""
    if not evaluation.paired or "local" not in evaluation.arms:
        return 0
    return EXACT_PAIRED_BINS if evaluation.epsilon is None else NOISED_PAIRED_BINS


@dataclass
class Wire:
    """In what form tensors travel; ``tasks/protocol/encoding.py`` explains the forms."""

    up: str = "float32"
    """Of updates: ``float32``, ``float16`` or ``int8``."""
    down: str = "float32"
    """Of models; other than ``float32`` they travel as changes, and not at all when a hospital has them already."""


@dataclass
class Runtime:
    """Where the hospitals' code runs."""

    name: str = "local"
    """``local``: the hospitals are played on this machine. ``superlink``: they are elsewhere, behind a server."""
    workers: int = 0
    """Processes that play the hospitals; 0 plays them all in this one."""


@dataclass
class SuperlinkRuntime(Runtime):
    """A server with hospitals that are enrolled there; ``consilium-server`` runs it."""

    name: str = "superlink"
    """Set by the choice."""
    address: str = MISSING
    """``host:port`` of the server's door for researchers."""
    authority: str = MISSING
    """File with the certificate of the server's authority (PEM)."""
    certificate: str = MISSING
    """File with the researcher's own key and certificate (PEM), from ``consilium-server researcher``."""
    follow: bool = True
    """Wait for the study and show how far it is; ``false`` leaves once the server has it."""


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
    task: TaskSettings = field(default_factory=TaskSettings)
    """The clinical question."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """The network."""
    strategy: StrategySettings = field(default_factory=StrategySettings)
    """How updates are combined."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """What a hospital does within one round."""
    privacy: Privacy = field(default_factory=Privacy)
    """What patients are promised."""
    federation: Federation = field(default_factory=Federation)
    """Who takes part."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """What is measured."""
    wire: Wire = field(default_factory=Wire)
    """In what form tensors travel."""
    runtime: Runtime = field(default_factory=Runtime)
    """Where hospitals run."""
    tracking: Tracking = field(default_factory=Tracking)
    """Where results are recorded."""
    seed: int = 1
    """Draws splits, phantoms and initial weights. Never the privacy noise."""
    data_root: str = ""
    """Folder of the real images for experiments that use some."""
    output_dir: str = "outputs"
    """Folder of studies, phantoms, simulated hospitals and the MLflow store."""
    propose: str = ""
    """Write the document that the hospitals are asked to approve to this file, and run nothing."""
    resume: str = "auto"
    """``auto`` continues the newest unfinished study of this very configuration; ``never`` starts a new one;
    a study's name continues or follows that study with its own configuration, of which only ``runtime``, ``tracking``
    and ``output_dir`` are taken from here."""
