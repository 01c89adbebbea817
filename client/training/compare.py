"""Two models on the same validation patients: for an order to compare, and for the hospital's own comparison.

A real hospital's own model never leaves it, so whether federation helps that hospital is measured there: exactly, from
raw scores, shown to its staff and not stored. It costs no privacy, because nothing is released.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from client import policy
from client.cohort.dataset import Cohort, open_cohort
from client.cohort.enough import require_enough
from client.errors import BadOrder, ModelRefused, OtherRelease
from client.ledger.accounting import Mechanism
from client.site import SiteSettings
from client.training.noise import entropy
from client.training.scoring import score_patients
from client.training.train import load_weights, require_fit, train_locally
from tasks import task as tasks
from tasks.machine.device import PROCESSOR, Placement, placement
from tasks.metrics.histogram import ScoreHistogram, are_edges
from tasks.metrics.interval import Interval
from tasks.metrics.paired import JointHistogram, auc_difference, joint_histogram
from tasks.metrics.ranking import roc_auc
from tasks.models import registry
from tasks.models.weights import in_folder
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import EDGES, OTHER, Arrays, EvaluateOrder

_FINEST = 512


@dataclass(frozen=True)
class SecondModel:
    """An order's second model, complete, and the edges of both models' bins, float64 of shape (2, bins - 1)."""

    weights: Arrays
    edges: NDArray[np.float64]

    def require_fit(self, module: nn.Module) -> None:
        """Pass if its tensors fit the network.

        Raises:
            BadOrder: they are not.
        """
        require_fit(module, self.weights)

    def scores(self, module: nn.Module, cohort: Cohort, on: Placement = PROCESSOR) -> NDArray[np.float64]:
        """Its score for each patient; ``module`` holds its weights afterwards."""
        load_weights(module, self.weights)
        return score_patients(module, cohort, on)


def split(order: EvaluateOrder) -> tuple[EvaluateOrder, SecondModel | None]:
    """The order with only its first model, and the second model if there is one.

    Raises:
        BadOrder: the edges are missing or are none of the study's bins.
    """
    if order.asks != "paired":
        return order, None
    edges = order.arrays.get(EDGES)
    shape = (2, order.study.evaluation.paired - 1)
    if edges is None or edges.dtype != np.float64 or edges.shape != shape or not are_edges(edges):
        raise BadOrder(f"{EDGES} must be float64 of shape {shape}, between 0 and 1 and not decreasing in a row")
    second = {name.removeprefix(OTHER): value for name, value in order.arrays.items() if name.startswith(OTHER)}
    first = {name: value for name, value in order.arrays.items() if name != EDGES and not name.startswith(OTHER)}
    return replace(order, arrays=first), SecondModel(second, edges)


@dataclass(frozen=True)
class OwnModelComparison:
    """A study's model and one trained on this hospital's patients only, on its validation patients.

    Attributes:
        trained_on, scored: patients of the two sides.
        federated, own: AUC of the two models.
        gain: AUC of the study's model less that of its own, by a paired comparison. All three are ``None`` when one
            class is missing among those scored.
    """

    trained_on: int
    scored: int
    federated: Interval | None
    own: Interval | None
    gain: Interval | None


def with_own(
    site: SiteSettings, study: StudyDocument, weights: Arrays, generator: torch.Generator | None = None
) -> OwnModelComparison:
    """Train a model here as the study would, but alone and without noise, and score both.

    Args:
        weights: of the study's model, whole.

    Raises:
        OtherRelease: this installation would compute something else than the study did.
        BadOrder: the weights do not fit the study's network.
        ModelRefused: the study's file of weights, or the package of its network, is not here.
        NoCohort: see ``client.cohort.enough.require_enough``.
        UpdateNotFinite: training diverged.
    """
    if other := policy.other_release(study):
        raise OtherRelease("; ".join(other))
    task = tasks.get(study.task)
    try:
        network = registry.build(study.model, task.form, find=in_folder(site.weights))
    except (registry.WeightsMissing, registry.EntryRefused) as error:
        raise ModelRefused(str(error)) from error
    except registry.UnknownModel as error:
        raise BadOrder(str(error)) from error
    module, first = network.trainable, registry.arrays_of(network.trainable)
    require_enough(site, task)
    training = open_cohort(site, task, "train", study.model, network)
    validation = open_cohort(site, task, "validation", study.model, network)
    load_weights(module, weights)
    on = placement(site.trainer.device, site.trainer.precision)
    of_study = score_patients(module, validation, on)
    load_weights(module, first)
    terms = replace(study.training, steps=study.training.steps * study.rounds)
    patients = len(training.rows)
    train_locally(
        module,
        task,
        training,
        terms,
        mechanism=Mechanism(0.0, terms.sample_rate, terms.steps),
        clip_norm=study.privacy.clip_norm,
        public_size=patients,
        generator=entropy() if generator is None else generator,
        max_memory_mb=site.max_memory_mb,
        on=on,
    )
    of_own = score_patients(module, validation, on)
    labels = validation.patient_labels().numpy()
    joint = joint_histogram(of_study, of_own, labels, np.stack([_between(of_study), _between(of_own)]))
    federated, own = (roc_auc(ScoreHistogram(joint.sum(axis=axis))) for axis in (2, 1))
    return OwnModelComparison(patients, len(labels), federated, own, auc_difference(JointHistogram(joint)))


def _between(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Edges that separate all patients, or as many quantiles as bins allow."""
    distinct = np.unique(scores)
    if len(distinct) <= _FINEST:
        middle = (distinct[1:] + distinct[:-1]) / 2
        return np.pad(middle, (0, _FINEST - 1 - len(middle)), constant_values=1.0)
    return np.quantile(scores, np.arange(1, _FINEST) / _FINEST)
