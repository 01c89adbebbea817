"""What a model does badly, in sentences for "Read this first": probabilities that are worse than one number for
everybody, a threshold that misses most, an AUC that has fallen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from server.results.figures import Arm, Figures
from server.results.recalibrated import Recalibrated
from server.rounds.state import RoundRecord
from tasks.metrics.interval import Interval

_HALF = 0.5
_FEW = 10
_FAR = 0.1
"""From this calibration error on, a score is not read as a probability."""
_EVERYBODY = "all patients"


def weaknesses(federated: Arm, calibrated: Recalibrated | None, probabilities: bool = True) -> Iterator[str]:
    """Of the federated model, as scores come from it and as calibrated probabilities.

    Args:
        probabilities: whether scores are meant to be such; where a value is measured they are not.
    """
    yield from _not_better_than_chance(federated.everybody.auc)
    yield from _few_patients(federated)
    if probabilities:
        yield from _worse_than_a_constant(federated, calibrated)
        yield from _off(federated, calibrated)
    each: dict[str, Figures] = {_EVERYBODY: federated.everybody, **federated.hospitals}
    at = f"At the operating threshold, a score of {federated.everybody.specific.threshold:.2f}, the model"
    if few := _below_half({name: figures.specific.sensitivity for name, figures in each.items()}):
        yield f"{at} misses most patients with the finding. Sensitivity: {few}."
    if few := _below_half({name: figures.specific.specificity for name, figures in each.items()}):
        yield f"{at} calls most patients without the finding positive. Specificity: {few}."


def fall(best: RoundRecord, last: RoundRecord, delivered: int) -> str:
    """An AUC that has fallen by more than chance explains."""
    high, low = (np.mean([f.auc for f in record.hospitals.values() if f.auc is not None]) for record in (best, last))
    remedy = " evaluation.deliver=better would deliver the best one." if delivered == last.number else ""
    return (
        f"The mean AUC fell from {high:.2f} after round {best.number} to {low:.2f} after round {last.number}, by "
        "more than chance explains: training diverges, or its noise is too large. The model of round "
        f"{delivered} is delivered.{remedy}"
    )


def in_words(interval: Interval) -> str:
    """An estimate with its limits; the limits alone where noise leaves no point."""
    limits = f"{interval.low:.2f} to {interval.high:.2f}"
    return f"{interval.value:.2f} ({limits})" if interval.firm else limits


def _worse_than_a_constant(federated: Arm, calibrated: Recalibrated | None) -> Iterator[str]:
    judged = None if calibrated is None else calibrated.everybody
    raw, after = federated.everybody.above_constant, None if judged is None else judged.above_constant
    constant = "giving every patient the prevalence"
    if raw is not None and _is_worse(raw):
        then = "no other patients are left to show whether calibrated probabilities are better"
        if after is not None:
            better = "are" if after.high < 0 else "are not shown to be"
            then = f"calibrated probabilities {better} better than that, by the same measure {in_words(after)}"
        yield f"Scores {_worse(raw)} than {constant}: their Brier score is higher by {in_words(raw)}; {then}."
    elif after is not None and _is_worse(after):
        yield (f"Calibrated probabilities {_worse(after)} than {constant}: a Brier score higher by {in_words(after)}.")
    delivered = {} if calibrated is None else calibrated.hospitals
    for name, figures in delivered.items():
        if figures.above_constant is not None and figures.above_constant.low > 0:
            yield (
                f"At {name}, calibrated probabilities are worse than {constant} there: a Brier score higher by "
                f"{in_words(figures.above_constant)}."
            )


def _not_better_than_chance(auc: Interval | None) -> Iterator[str]:
    if auc is not None and auc.low <= _HALF:
        yield (
            f"The model is not shown to be better than chance: its AUC on all patients is {in_words(auc)}. There are "
            "too few patients, or the noise of training or of scores is too large."
        )


def _few_patients(federated: Arm) -> Iterator[str]:
    few = [n for n, f in federated.hospitals.items() if 0 < min(f.negatives, f.positives) < _FEW]
    if few:
        yield (
            f"Few validation patients of a class at {', '.join(sorted(few))}: fewer than {_FEW}, as far as is known. "
            "Single patients move those figures."
        )


def _off(federated: Arm, calibrated: Recalibrated | None) -> Iterator[str]:
    """Probabilities that are far from what happens: those that are delivered, where somebody could judge them."""
    judged = None if calibrated is None else calibrated.everybody
    error = (judged or federated.everybody).calibration_error
    if error is not None and error.firm and error.value >= _FAR:
        what = "Scores" if judged is None else "Calibrated probabilities"
        yield f"{what} are off by {in_words(error)} on average (calibration error): 30 % does not mean 30 in 100."


def _worse(above_constant: Interval) -> str:
    return "are worse" if above_constant.low > 0 else "look worse (chance explains it as well)"


def _is_worse(above_constant: Interval) -> bool:
    """Whether it looks so and noise leaves a point, or it is so."""
    return above_constant.low > 0 or (above_constant.firm and above_constant.value > 0)


def _below_half(rates: Mapping[str, Interval | None]) -> str:
    """Those below one half, as far as they can be known, in per cent."""
    few = {name: rate for name, rate in rates.items() if rate is not None and _is_below_half(rate)}
    return "; ".join(f"{name} {_per_cent(rate)}" for name, rate in few.items())


def _is_below_half(rate: Interval) -> bool:
    return rate.value < _HALF if rate.firm else rate.high < _HALF


def _per_cent(rate: Interval) -> str:
    limits = f"{100 * rate.low:.0f} to {100 * rate.high:.0f}"
    return f"{100 * rate.value:.0f} % ({limits})" if rate.firm else f"{limits} %"
