"""What is said of the mean over hospitals: a verdict, and the warning that the federated model is worse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from server.results.verdicts import decisions, gain_in_words
from tasks.machine.language import later, number, say
from tasks.metrics.interval import Interval, mean

_MUCH = 0.05
"""An AUC that is lower by so much on average is told whether chance explains it or not."""


def mean_gain(gains: Mapping[str, Interval]) -> Interval | None:
    """By how much the federated model's AUC is above those of the hospitals alone, on average over hospitals; ``None``
    for fewer than two."""
    return mean(list(gains.values())) if len(gains) > 1 else None


def on_average(gains: Mapping[str, Interval]) -> list[str]:
    """The verdict of the mean, as one sentence; none where there are fewer than two hospitals."""
    gain = mean_gain(gains)
    if gain is None:
        return []
    (found,) = decisions({"mean": gain}).values()
    message = {
        "open": later("On average over {number} hospitals, no evidence either way: {figures}."),
        "helps": later("On average over {number} hospitals, federation helps: {figures}."),
        "harms": later("On average over {number} hospitals, federation harms: {figures}."),
    }[found]
    return [say(message, number=len(gains), figures=gain_in_words(gain))]


def worse_on_average(gains: Mapping[str, Interval]) -> Iterator[str]:
    """That the federated model is worse than each hospital alone: shown, or so much that a reader must know."""
    gain = mean_gain(gains)
    if gain is None or not gain.firm or (gain.high >= 0 and gain.value > -_MUCH):
        return
    lower, least, most = (number(-end, ".2f").replace("-", "−") for end in (gain.value, gain.high, gain.low))
    told = say(
        "On average over {number} hospitals, the federated model is worse than each hospital's own: its AUC is lower "
        "by {lower} ({least} to {most}).",
        number=len(gains),
        lower=lower,
        least=least,
        most=most,
    )
    yield told + ("" if gain.high < 0 else say(" Chance may explain it; do not read it as neutral."))
