"""Classes, grades and measurements on the page and in the model card: charts, tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.pages.charts import forest_of, in_words, short
from server.pages.svg import COLOURS, WIDTH, Chart, Scale, area, axis_y, ink_on, line, mixed, text
from server.results.answers import (
    FIGURES,
    AnswerArm,
    AnswerFigures,
    ClassFigures,
    GradeFigures,
    MeasureFigures,
    told_figures,
)
from server.results.console import UNITS, WORDS, called, in_unit
from server.results.results import Results
from tasks.machine.language import later, number, say
from tasks.metrics.interval import Interval
from tasks.task import QUESTION

SECTIONS = {"classes": "classes", "grade": "grades", "measure": "measures"}
"""By kind, the section of ``server/STATISTICS.md`` that says how its figures are computed."""
_WITH_LIMITS, _WITH_NUMBERS = 6, 14
"""So many classes leave room for limits, and for numbers, in the cells of a table."""
_PLOT = (64.0, 330.0)
_MOST_BARS = 32


@dataclass(frozen=True)
class Answered:
    """One question on the page.

    Attributes:
        name: for a person.
        section: of ``server/STATISTICS.md``.
        heads: of the table: hospital, then figures.
        rows: of the federated model, the last of all patients.
        classes: of all patients: each class or grade, with its patients, AUC and sensitivity; none for measurements.
        size_noise: standard deviation of the estimated patients of each.
    """

    name: str
    kind: str
    section: str
    heads: list[str]
    rows: list[list[str]]
    classes: list[tuple[str, float, str, str]]
    size_noise: float


def answered(results: Results) -> dict[str, Answered]:
    """By question, what the page says of it besides its charts."""
    found = {}
    for question, arms in results.answers.items():
        if (federated := arms.get("federated")) is None:
            continue
        of_all = federated.everybody
        figures = FIGURES[of_all.kind]
        rows = {**dict(sorted(federated.hospitals.items())), say("all patients"): of_all}
        found[question] = Answered(
            name=called(question),
            kind=of_all.kind,
            section=SECTIONS[of_all.kind],
            heads=[say("hospital"), *(heading(figure, of_all) for figure in figures)],
            rows=[[name, *(shown(told_figures(each)[f], f) for f in figures)] for name, each in rows.items()],
            classes=_classes(of_all),
            size_noise=of_all.size_noise,
        )
    return found


def sections(results: Results) -> set[str]:
    """Of ``server/STATISTICS.md``, those of kinds that the study asks for."""
    return {SECTIONS[arm.everybody.kind] for arms in results.answers.values() for arm in arms.values()}


def is_measured(results: Results) -> bool:
    """Whether the question's own answer is a value, so that its score is no probability."""
    return any(arm.everybody.kind == "measure" for arm in results.answers.get(QUESTION, {}).values())


def heading(figure: str, of: AnswerFigures) -> str:
    """What a figure is called, with its unit."""
    unit = _unit(figure, of).strip()
    name = say(WORDS.get(figure, figure))
    return f"{name} [{unit}]" if unit else name


def _unit(figure: str, of: AnswerFigures) -> str:
    if figure not in UNITS or isinstance(of, ClassFigures):
        return ""
    return f" {of.unit}" if isinstance(of, MeasureFigures) else say(" grades")


def shown(interval: Interval | None, figure: str) -> str:
    """A figure with its limits: two decimals, in a unit three digits."""
    if interval is None:
        return "–"
    ends = (interval.value, interval.low, interval.high)
    in_words = in_unit(interval) if figure in UNITS else (number(end, ".2f").replace("-", "−") for end in ends)
    value, low, high = in_words
    limits = say("{least} to {most}", least=low, most=high)
    return f"{value} ({limits})" if interval.firm else say("{limits}, no point", limits=limits)


def sentences(results: Results) -> Iterator[str]:
    """One of each question, with the federated model's figures on all patients."""
    for question, arms in results.answers.items():
        if (federated := arms.get("federated")) is not None:
            of_all = federated.everybody
            told = told_figures(of_all)
            each = [
                f"{say(WORDS.get(figure, figure))} {shown(told[figure], figure)}{_unit(figure, of_all)}"
                for figure in FIGURES[of_all.kind]
            ]
            name = say("What it tells") if question == QUESTION else say(called(question)).capitalize()
            yield say("{question}, all patients: {figures}.", question=name, figures="; ".join(each))


def summaries(answers: Mapping[str, Mapping[str, AnswerArm]]) -> dict[str, str]:
    """The federated model's figures on all patients, by the question and what they are called."""
    told: dict[str, str] = {}
    for question, arms in answers.items():
        if (federated := arms.get("federated")) is not None:
            figures, of_all = told_figures(federated.everybody), federated.everybody
            about = "" if question == QUESTION else f"{called(question)}: "
            told |= {f"{about}{heading(name, of_all)}": shown(figures[name], name) for name in FIGURES[of_all.kind]}
    return told


def pictures(results: Results) -> dict[str, Chart]:
    """Two charts a question: its first figure at each hospital, and what was told of whom."""
    drawn: dict[str, Chart] = {}
    for question, arms in results.answers.items():
        drawn[f"answers-{question}"] = _forest(question, arms)
        if (federated := arms.get("federated")) is not None:
            drawn[f"told-{question}"] = _told(federated.everybody)
    return drawn


def _forest(question: str, arms: Mapping[str, AnswerArm]) -> Chart:
    some = next(iter(arms.values())).everybody
    figure = FIGURES[some.kind][0]
    hospitals = sorted({hospital for arm in arms.values() for hospital in arm.hospitals})
    rows: dict[str, dict[str, Interval | None]] = {
        h: {arm: told_figures(each.hospitals[h])[figure] if h in each.hospitals else None for arm, each in arms.items()}
        for h in hospitals
    }
    rows["all patients"] = {arm: told_figures(each.everybody)[figure] for arm, each in arms.items()}
    highs = [interval.high for each in rows.values() for interval in each.values() if interval is not None]
    most = max(highs, default=1.0) * 1.05 if isinstance(some, MeasureFigures) else 1.0
    least = 0.5 if isinstance(some, ClassFigures) else 0.0
    title = say("{figure} of {question} at each hospital", figure=heading(figure, some), question=say(called(question)))
    return forest_of(title, heading(figure, some), rows, list(arms), least=least, most=most)


def _told(figures: AnswerFigures) -> Chart:
    return agreement(figures) if isinstance(figures, MeasureFigures) else confusion(figures)


def _classes(figures: AnswerFigures) -> list[tuple[str, float, str, str]]:
    if isinstance(figures, MeasureFigures):
        return []
    aucs = figures.aucs if isinstance(figures, ClassFigures) else [None] * len(figures.names)
    return [
        (_plain(name), size, shown(auc, "auc"), shown(figures.shares[n][n], "sensitivity"))
        for n, (name, size, auc) in enumerate(zip(figures.names, figures.sizes, aucs, strict=True))
    ]


def confusion(figures: ClassFigures | GradeFigures) -> Chart:
    """Of the patients of each class, how many per cent are told each: rows are the reader's, columns the model's."""
    names, count = [_plain(name) for name in figures.names], len(figures.names)
    rows = [", ".join(f"{names[k]} {in_words(each[k])}" for k in range(count)) for each in figures.shares]
    description = "; ".join(
        say("reader {name}: told {row}", name=name, row=row) for name, row in zip(names, rows, strict=True)
    )
    left, top = 104.0, 46.0
    wide = min((WIDTH - left - 6) / count, 92.0)
    high = min(44.0, max(wide, 20.0))
    chart = Chart(say("What was told of the patients of each class, in per cent"), description, top + high * count + 8)
    chart.add(text(left + wide * count / 2, 14, say("told"), "middle", fill="#5b6773"))
    chart.add(text(left - 12, top - 8, say("reader"), "end", fill="#5b6773"))
    for k, name in enumerate(names):
        chart.add(text(left + wide * (k + 0.5), top - 8, short(name, wide), "middle", font_weight="600"))
        chart.add(text(left - 12, top + high * (k + 0.5) + 4, short(name, left - 12), "end", font_weight="600"))
    for row, each in enumerate(figures.shares):
        for column, share in enumerate(each):
            at = left + wide * column, top + high * row
            chart.add(*_cell(*at, (wide, high), share, agrees=row == column, classes=count))
    return chart


def _cell(
    x: float, y: float, size: tuple[float, float], share: Interval | None, *, agrees: bool, classes: int
) -> list[str]:
    """White for none, the darkest blue for all; framed where reader and model agree."""
    wide, high = size
    fill = mixed("#ffffff", "#00507d", min(max(share.value, 0.0), 1.0) if share is not None else 0.0)
    inset, frame = (3, 'stroke="#1c2733" stroke-width="2.5"') if agrees else (1, 'stroke="#c3ccd5"')
    box = f'width="{wide - 2 * inset:g}" height="{high - 2 * inset:g}"'
    pieces = [f'<rect x="{x + inset:g}" y="{y + inset:g}" {box} fill="{fill}" {frame}/>']
    if share is None or classes > _WITH_NUMBERS:
        return pieces
    limits = classes <= _WITH_LIMITS
    number = f"{100 * share.value:.0f}" if share.firm else "–"
    middle, ink = x + wide / 2, ink_on(fill)
    pieces.append(text(middle, y + high / 2 + (0 if limits else 4), number, "middle", fill=ink, font_weight="600"))
    if limits:
        ends = f"{100 * share.low:.0f}–{100 * share.high:.0f}"
        pieces.append(text(middle, y + high / 2 + 14, ends, "middle", fill=ink, font_size="10"))
    return pieces


def agreement(figures: MeasureFigures) -> Chart:
    """Differences of all patients, after Bland and Altman: how many in each bin, their mean and the limits of agreement
    with bands for their intervals. No patient is a point: nothing of one patient leaves a hospital."""
    marked = {
        later("mean"): figures.bias,
        later("upper limit"): figures.above,
        later("lower limit"): figures.below,
    }
    known = {name: interval for name, interval in marked.items() if interval is not None}
    description = "; ".join(f"{say(name)} {in_words(each)} {figures.unit}" for name, each in known.items())
    ends = [abs(end) for each in known.values() for end in (each.value, *((each.low, each.high) if each.firm else ()))]
    most = min(max([*ends, 1e-9]) * 1.15, max(figures.limits, default=1.0))
    chart = Chart(say("Differences between model and reader"), description or say("none"), 0)
    top, bottom = 34.0, 254.0
    y = Scale(-most, most, bottom, top)
    axis_y(chart, y, _PLOT[0], say("model less reader [{unit}]", unit=figures.unit), _PLOT[1])
    chart.add(*_bars(figures, y, most))
    chart.add(line(_PLOT[0], y(0), _PLOT[1], y(0), "#1c2733", width=1.2))
    last = 0.0
    for name, each in sorted(known.items(), key=lambda named: -named[1].value):
        last = _level(chart, name, each, y, least=last + 32)
    chart.add(text((_PLOT[0] + _PLOT[1]) / 2, bottom + 20, say("patients, as far as noise allows to tell"), "middle"))
    return Chart(chart.title, chart.description, max(bottom, last) + 34, chart.pieces)


def _level(chart: Chart, name: str, each: Interval, y: Scale, least: float) -> float:
    """A line with the band of its interval, and its name beside it, not above ``least``; returns where that stands."""
    colour, dash = (COLOURS["federated"], "") if name == "mean" else (COLOURS["local"], "6 3")
    left, right = _PLOT
    band = [(left, y(each.low)), (right, y(each.low)), (right, y(each.high)), (left, y(each.high))]
    chart.add(area(band, colour))
    if each.firm:
        chart.add(line(left, y(each.value), right, y(each.value), colour, width=1.8, dash=dash))
    at = max(y(each.value), least)
    chart.add(text(right + 8, at, say(name), fill=colour, font_weight="600"))
    chart.add(text(right + 8, at + 14, shown(each, "bias"), fill=colour, font_size="11"))
    return at


def _bars(figures: MeasureFigures, y: Scale, most: float) -> Iterator[str]:
    """A bar a bin, as long as its patients are dense; what noise has made negative is none."""
    each = max(len(figures.differences) // _MOST_BARS, 1)
    limits = figures.limits[::each]
    counts = [sum(figures.differences[n : n + each]) for n in range(0, len(figures.differences), each)]
    bins = [
        (max(low, -most), min(high, most), max(count, 0.0) / (high - low))
        for low, high, count in zip(limits, limits[1:], counts, strict=False)
        if high > -most and low < most
    ]
    densest = max((density for *_, density in bins), default=0.0)
    for low, high, density in bins:
        if densest > 0 and density > 0 and not math.isclose(low, high):
            length = (_PLOT[1] - _PLOT[0]) * 0.9 * density / densest
            above, height = y(high), y(low) - y(high)
            yield (
                f'<rect x="{_PLOT[0]:g}" y="{above:g}" width="{length:.1f}" height="{height:.1f}" fill="#9db4c6" '
                'stroke="#ffffff" stroke-width="0.6"/>'
            )


def _plain(name: str) -> str:
    return say(name.replace("_", " "))
