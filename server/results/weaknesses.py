"""What a model does badly, in sentences for "Read this first": probabilities that are worse than one number for
everybody, a threshold that misses most, an AUC that has fallen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from server.results.figures import Arm, Figures
from server.results.recalibrated import Recalibrated
from server.rounds.state import RoundRecord
from tasks.machine.language import later, number, say
from tasks.metrics.interval import Interval

_HALF = 0.5
_FEW = 10
_FAR = 0.1
"""From this calibration error on, a score is not read as a probability."""
_EVERYBODY = later("all patients")


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
    at = number(federated.everybody.specific.threshold, ".2f")
    if few := _below_half({name: figures.specific.sensitivity for name, figures in each.items()}):
        yield say(
            "At the operating threshold, a score of {at}, the model misses most patients with the finding. "
            "Sensitivity: {rates}.",
            at=at,
            rates=few,
        )
    if few := _below_half({name: figures.specific.specificity for name, figures in each.items()}):
        yield say(
            "At the operating threshold, a score of {at}, the model calls most patients without the finding positive. "
            "Specificity: {rates}.",
            at=at,
            rates=few,
        )


def fall(best: RoundRecord, last: RoundRecord, delivered: int) -> str:
    """An AUC that has fallen by more than chance explains."""
    high, low = (np.mean([f.auc for f in record.hospitals.values() if f.auc is not None]) for record in (best, last))
    told = say(
        "The mean AUC fell from {high} after round {best} to {low} after round {last}, by more than chance explains: "
        "training diverges, or its noise is too large. The model of round {delivered} is delivered.",
        high=number(float(high), ".2f"),
        best=best.number,
        low=number(float(low), ".2f"),
        last=last.number,
        delivered=delivered,
    )
    return told + (say(" evaluation.deliver=better would deliver the best one.") if delivered == last.number else "")


def in_words(interval: Interval) -> str:
    """An estimate with its limits; the limits alone where noise leaves no point."""
    limits = say("{least} to {most}", least=number(interval.low, ".2f"), most=number(interval.high, ".2f"))
    return f"{number(interval.value, '.2f')} ({limits})" if interval.firm else limits


def _worse_than_a_constant(federated: Arm, calibrated: Recalibrated | None) -> Iterator[str]:
    judged = None if calibrated is None else calibrated.everybody
    raw, after = federated.everybody.above_constant, None if judged is None else judged.above_constant
    if raw is not None and _is_worse(raw):
        then = say("no other patients are left to show whether calibrated probabilities are better")
        if after is not None and after.high < 0:
            figure = in_words(after)
            then = say("calibrated probabilities are better than that, by the same measure {figure}", figure=figure)
        elif after is not None:
            then = say(
                "calibrated probabilities are not shown to be better than that, by the same measure {figure}",
                figure=in_words(after),
            )
        yield say(
            "Scores {worse} than giving every patient the prevalence: their Brier score is higher by {figure}; {then}.",
            worse=_worse(raw),
            figure=in_words(raw),
            then=then,
        )
    elif after is not None and _is_worse(after):
        yield say(
            "Calibrated probabilities {worse} than giving every patient the prevalence: a Brier score higher by "
            "{figure}.",
            worse=_worse(after),
            figure=in_words(after),
        )
    delivered = {} if calibrated is None else calibrated.hospitals
    for name, figures in delivered.items():
        if figures.above_constant is not None and figures.above_constant.low > 0:
            yield say(
                "At {hospital}, calibrated probabilities are worse than giving every patient the prevalence there: a "
                "Brier score higher by {figure}.",
                hospital=name,
                figure=in_words(figures.above_constant),
            )


def _not_better_than_chance(auc: Interval | None) -> Iterator[str]:
    if auc is not None and auc.low <= _HALF:
        yield say(
            "The model is not shown to be better than chance: its AUC on all patients is {auc}. There are too few "
            "patients, or the noise of training or of scores is too large.",
            auc=in_words(auc),
        )


def _few_patients(federated: Arm) -> Iterator[str]:
    few = [n for n, f in federated.hospitals.items() if 0 < min(f.negatives, f.positives) < _FEW]
    if few:
        yield say(
            "Few validation patients of a class at {hospitals}: fewer than {few}, as far as is known. Single patients "
            "move those figures.",
            hospitals=", ".join(sorted(few)),
            few=_FEW,
        )


def _off(federated: Arm, calibrated: Recalibrated | None) -> Iterator[str]:
    """Probabilities that are far from what happens: those that are delivered, where somebody could judge them."""
    judged = None if calibrated is None else calibrated.everybody
    error = (judged or federated.everybody).calibration_error
    if error is not None and error.firm and error.value >= _FAR:
        off = in_words(error)
        if judged is None:
            yield say(
                "Scores are off by {error} on average (calibration error): 30 % does not mean 30 in 100.", error=off
            )
        else:
            yield say(
                "Calibrated probabilities are off by {error} on average (calibration error): 30 % does not mean 30 in "
                "100.",
                error=off,
            )


def _worse(above_constant: Interval) -> str:
    return say("are worse") if above_constant.low > 0 else say("look worse (chance explains it as well)")


def _is_worse(above_constant: Interval) -> bool:
    """Whether it looks so and noise leaves a point, or it is so."""
    return above_constant.low > 0 or (above_constant.firm and above_constant.value > 0)


def _below_half(rates: Mapping[str, Interval | None]) -> str:
    """Those below one half, as far as they can be known, in per cent."""
    few = {name: rate for name, rate in rates.items() if rate is not None and _is_below_half(rate)}
    told = {say(name) if name == _EVERYBODY else name: rate for name, rate in few.items()}
    return "; ".join(f"{name} {_per_cent(rate)}" for name, rate in told.items())


def _is_below_half(rate: Interval) -> bool:
    return rate.value < _HALF if rate.firm else rate.high < _HALF


def _per_cent(rate: Interval) -> str:
    limits = say("{least} to {most}", least=f"{100 * rate.low:.0f}", most=f"{100 * rate.high:.0f}")
    return f"{100 * rate.value:.0f} % ({limits})" if rate.firm else f"{limits} %"
