"""How far a model can be relied on, as its study has measured it: for the reading room's list, in the language spoken,
and for reports in DICOM, which are English.
"""

from __future__ import annotations

from collections.abc import Iterator

from tasks.machine.language import number, say
from tasks.metrics.interval import Interval
from tasks.models.model_file import ModelHead


def sentences(head: ModelHead, *, measured: bool = False) -> Iterator[str]:
    """What the operating threshold found and spared among the study's validation patients, and how far probabilities
    were off.

    Args:
        measured: whether the score is a measured value and no probability.
    """
    if head.threshold is not None and head.sensitivity is not None and head.specificity is not None:
        yield say(
            "At the operating threshold the study measured a sensitivity of {sensitivity} and a specificity of "
            "{specificity}, on all its validation patients together.",
            sensitivity=in_words(head.sensitivity),
            specificity=in_words(head.specificity),
        )
    elif head.threshold is not None:
        yield say("Sensitivity and specificity at the operating threshold are not known: the model's file has none.")
    if measured or head.calibration is None:
        return
    if head.calibration_error is None:
        yield say("How far probabilities are off is not known: nobody else's patients were there to judge them.")
    else:
        yield say(
            "Probabilities were off by {error} on average (calibration error; each hospital calibrated by the others).",
            error=in_words(head.calibration_error),
        )


def in_words(rate: Interval) -> str:
    """In per cent, with its 95 % limits; the limits alone where noise leaves no point.

    >>> in_words(Interval(0.52, 0.4, 0.64))
    '52 % (40 to 64)'
    """
    limits = say("{least} to {most}", least=number(100 * rate.low, ".0f"), most=number(100 * rate.high, ".0f"))
    return f"{number(100 * rate.value, '.0f')} % ({limits})" if rate.firm else f"{limits} %"
