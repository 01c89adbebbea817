"""The only exit: every byte that leaves the hospital is built here.

What each number is:

    study, round, code      repeat the order, or come from a fixed list
    public_size             declared in public by the hospital
    epsilon, delta          follow from the noise, the sampling rate and the number of steps; no patient enters them
    update arrays           a release of the training cohort, entered in the ledger
    histogram               a release of the validation cohort, entered in the ledger

A simulated hospital may release without noise; then epsilon is absent.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from client.accounting import Mechanism
from client.dataset import Cohort
from client.errors import SiteError
from client.site import SiteSettings
from tasks.metrics import score_histogram
from tasks.wire import Arrays, ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport


def train_report(order: TrainOrder, update: Arrays, public_size: int, epsilon: float, delta: float) -> TrainReport:
    """What leaves after training."""
    return TrainReport(order.study, order.round, public_size, _finite(epsilon), delta, update)


def evaluate_report(
    order: EvaluateOrder,
    cohort: Cohort,
    scores: NDArray[np.float64],
    mechanism: Mechanism,
    epsilon: float,
    delta: float,
    generator: torch.Generator,
) -> EvaluateReport:
    """What leaves after scoring: one count for each patient, in one cell, and noise on every cell.

    Adding or removing a patient changes one cell by one, so the L2 sensitivity of the histogram is 1.
    """
    histogram = score_histogram(scores, cohort.patient_labels().numpy(), order.bins)
    if mechanism.noise_multiplier > 0:
        noise = torch.randn(histogram.shape, generator=generator, dtype=torch.float64)
        histogram = histogram + mechanism.noise_multiplier * noise.numpy()
    return EvaluateReport(order.study, order.round, _finite(epsilon), delta, {"histogram": histogram})


def refusal(study: str, round: int, error: Exception) -> Refusal:
    """What leaves when something went wrong: a code. The error's text may name patients and paths, so it stays."""
    code = error.code if isinstance(error, SiteError) else ErrorCode.INTERNAL
    return Refusal(study, round, code)


def public_size(site: SiteSettings, patients: int) -> int:
    """The hospital's declared size; without a declaration, its training patients to one significant digit."""
    if site.public_size is not None:
        return site.public_size
    unit = 10 ** int(math.log10(patients))
    return max(1, round(patients / unit)) * unit


def _finite(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
