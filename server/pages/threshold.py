"""What calling patients positive from a score on means: the ROC curve, and 1,000 patients sorted by it."""

from __future__ import annotations

from dataclasses import dataclass

from server.pages.svg import COLOURS, Chart, Scale, axis_x, axis_y, line, mark, path
from server.results.figures import Figures
from tasks.machine.language import number, say
from tasks.metrics.interval import Interval
from tasks.metrics.predictive_values import negative_predictive_value, positive_predictive_value

_OF = 1000
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 330.0, 26.0, 296.0


@dataclass(frozen=True)
class Called:
    """1,000 patients like those of the study, sorted by the operating threshold.

    Attributes:
        prevalence: of the finding, estimated.
        counts: with the finding and called positive, with it and negative; without it and positive, without and
            negative. They are rates times the prevalence, and no numbers of anybody's patients.
    """

    prevalence: Interval
    counts: tuple[tuple[int, int], tuple[int, int]]
    positive: Interval | None
    negative: Interval | None


def called(figures: Figures) -> Called | None:
    """At the operating threshold of all patients; ``None`` where noise hides a class, or there is none."""
    rate, point = figures.prevalence, figures.specific
    if rate is None or not rate.firm or point.sensitivity is None or point.specificity is None:
        return None
    if not (point.sensitivity.firm and point.specificity.firm and 0 < rate.value < 1):
        return None
    with_it = round(_OF * rate.value)
    found, spared = round(with_it * point.sensitivity.value), round((_OF - with_it) * point.specificity.value)
    return Called(
        rate,
        ((found, with_it - found), (_OF - with_it - spared, spared)),
        positive_predictive_value(point, rate.value),
        negative_predictive_value(point, rate.value),
    )


def roc(figures: Figures) -> Chart | None:
    """Sensitivity against false alarms for every threshold, with the operating one marked."""
    if not figures.roc:
        return None
    chart = Chart(say("ROC curve of all validation patients"), _in_words(figures), 0)
    across, up = Scale(0, 1, _LEFT, _RIGHT), Scale(0, 1, _BOTTOM, _TOP)
    axis_x(chart, across, _BOTTOM, say("1 − specificity"), _TOP)
    axis_y(chart, up, _LEFT, say("sensitivity"), _RIGHT)
    chart.add(line(across(0), up(0), across(1), up(1), "#8a97a5", dash="4 3"))
    chart.add(path([(across(alarms), up(found)) for alarms, found in figures.roc], COLOURS["federated"], width=2.2))
    point = figures.specific
    if point.sensitivity is not None and point.specificity is not None and point.sensitivity.firm:
        x, y = across(1 - point.specificity.value), up(point.sensitivity.value)
        chart.add(mark("circle", x, y, "#1c2733", 5))
    return Chart(chart.title, chart.description, _BOTTOM + 44, chart.pieces)


def _in_words(figures: Figures) -> str:
    some = figures.roc[:: max(len(figures.roc) // 10, 1)]
    return "; ".join(say("{found} at {alarms}", found=number(f, ".2f"), alarms=number(a, ".2f")) for a, f in some)
