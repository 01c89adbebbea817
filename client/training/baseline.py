"""Train on a hospital's own images, for the hospital itself. Nothing leaves, so nothing is charged to the ledger.

It trains without noise on the training patients and scores the validation patients, as a study would. Figures and
weights are exact and therefore confidential: they are shown to hospital staff and not stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from client.cohort.dataset import open_cohort
from client.cohort.enough import require_enough
from client.ledger.accounting import Mechanism
from client.site import SiteSettings
from client.training.noise import entropy
from client.training.scoring import score_patients
from client.training.train import train_locally
from conf.schema.model import ScatterLinear
from conf.schema.privacy import Privacy
from conf.schema.training import TrainingSettings
from tasks.input_spec import InputSpec
from tasks.machine.device import placement
from tasks.metrics.histogram import ScoreHistogram, score_histogram
from tasks.metrics.interval import Interval
from tasks.metrics.ranking import roc_auc
from tasks.models import registry
from tasks.models.network import Network
from tasks.protocol.study import TrainingTerms
from tasks.task import Task

_BINS = 4096
MODELS = (
    ScatterLinear(),
    ScatterLinear(resolution=32, J=3, L=3, pool=3),
    ScatterLinear(resolution=16, J=2, L=3, pool=4),
    ScatterLinear(resolution=0, J=2, pool=2),
    ScatterLinear(resolution=0, J=2, L=3, pool=2),
)
"""Linear models for images, for volumes (``conf/model/scatter_linear_3d.yaml``, ``scatter_linear_3d_16.yaml``), and for
small ones of either kind."""


@dataclass(frozen=True)
class Baseline:
    """Figures of a model trained on this hospital's patients only.

    Attributes:
        trained_on, scored: patients of the two sides.
        auc: area under the ROC curve on the validation patients with its 95 % interval; ``None`` when one class is
            missing among them.
    """

    trained_on: int
    scored: int
    auc: Interval | None


def fitting(form: InputSpec) -> tuple[dict[str, Any], Network]:
    """The first of ``MODELS`` that can be built for examples of this shape, as a study would name it, and built.

    Raises:
        UnknownModel: none fits; what the last one lacks.
    """
    refused: registry.UnknownModel | None = None
    for settings in MODELS:
        model = asdict(settings)
        try:
            return model, registry.build(model, form)
        except registry.UnknownModel as error:
            refused = error
    assert refused is not None  # there are models
    raise refused


def train_alone(site: SiteSettings, task: Task, rounds: int, generator: torch.Generator | None = None) -> Baseline:
    """Train the first of ``MODELS`` that fits the task's examples for this many rounds of the default study, without
    noise and without releasing anything.

    Raises:
        NoCohort: see ``open_cohort``.
        UpdateNotFinite: training diverged.
    """
    training = asdict(TrainingSettings())
    model, network = fitting(task.form)
    require_enough(site, task)
    cohort = open_cohort(site, task, "train", model, network)
    validation = open_cohort(site, task, "validation", model, network)
    terms = TrainingTerms(**training | {"steps": training["steps"] * rounds})
    patients, on = len(cohort.rows), placement(site.trainer.device, site.trainer.precision)
    train_locally(
        network.trainable,
        task,
        cohort,
        terms,
        mechanism=Mechanism(0.0, terms.sample_rate, terms.steps),
        clip_norm=Privacy().clip_norm,
        public_size=patients,
        generator=entropy() if generator is None else generator,
        max_memory_mb=site.max_memory_mb,
        on=on,
    )
    scores = score_patients(network.trainable, validation, on)
    histogram = score_histogram(scores, validation.patient_labels().numpy(), _BINS)
    return Baseline(patients, len(validation.rows), roc_auc(ScoreHistogram(histogram)))
