"""The charts of a study, each from its results.

Tested in ``tests/server/pages/test_report.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from server.pages.svg import (
    COLOURS,
    MARKS,
    WIDTH,
    Chart,
    Scale,
    area,
    axis_x,
    axis_y,
    ink_on,
    legend,
    line,
    mark,
    mixed,
    numbered,
    path,
    text,
)
from server.results.figures import Arm, Figures, Subgroup
from server.results.recalibrated import Recalibrated
from server.results.results import Results
from server.results.secondary_endpoints import OutlineArm
from server.results.verdicts import decisions
from server.rounds.state import RoundRecord
from tasks.machine.language import later, number, say
from tasks.metrics.interval import Interval
from tasks.protocol.survey import WORDS

NAMES = {
    "local": later("each hospital alone"),
    "federated": later("federated"),
    "pooled": later("all patients pooled"),
    "shuffled": later("permuted labels"),
}
_LEFT, _RIGHT = 92.0, 366.0
_ROW = 15.0
_FEWEST_FOR_A_LINE = 2


def forest(results: Results) -> Chart:
    """AUC of each arm at each hospital, with intervals; and the mean over hospitals."""
    arms = [arm for arm in results.arms if arm != "shuffled"]
    rows = {h: {arm: results.auc(arm, h) for arm in arms} for h in results.epsilon}
    if not results.absent():
        rows["mean"] = {arm: results.mean_auc(arm) for arm in arms}
    return forest_of(say("AUC of each arm at each hospital"), "AUC", rows, arms, 0.5)


def findings(results: Results) -> Chart | None:
    """AUC of each secondary finding by arm, on all patients."""
    arms = [arm for arm in NAMES if any(arm in each for each in results.findings.values())]
    rows = {
        say(name.replace("_", " ")): {arm: description.everybody.auc for arm, description in each.items()}
        for name, each in results.findings.items()
    }
    return forest_of(say("AUC of secondary findings"), "AUC", rows, arms, 0.5) if rows else None


def outlines(structure: str, by_arm: Mapping[str, OutlineArm]) -> Chart:
    """Mean Dice of a structure at each hospital, and on all patients, by arm."""
    hospitals = sorted({hospital for description in by_arm.values() for hospital in description.hospitals})
    rows = {h: {arm: t.hospitals[h].dice if h in t.hospitals else None for arm, t in by_arm.items()} for h in hospitals}
    rows["all patients"] = {arm: description.everybody.dice for arm, description in by_arm.items()}
    title = say("Dice of {structure} at each hospital", structure=say(structure.replace("_", " ")))
    return forest_of(title, say("mean Dice"), rows, list(by_arm), 0.0)


def forest_of(
    title: str,
    figure: str,
    rows: Mapping[str, Mapping[str, Interval | None]],
    arms: Sequence[str],
    least: float,
    most: float = 1.0,
) -> Chart:
    """One block per row, one whisker per arm; a last row that sums up the others is highlighted. The axis starts at
    ``least``, or lower where an interval does, and ends at ``most``."""
    words = {name: ", ".join(f"{arm} {in_words(i)}" for arm, i in each.items()) for name, each in rows.items()}
    description = "; ".join(f"{name}: {each}" for name, each in words.items())
    block = _ROW * len(arms) + 14
    chart = Chart(title, description, 0)
    lows = [i.low for each in rows.values() for i in each.values() if i is not None]
    scale = Scale(min([least, *(int(low * 10) / 10 for low in lows)]), most, _LEFT, _RIGHT)
    height = legend(chart, 12, [(say(NAMES[arm]), partial(mark, MARKS[arm], colour=COLOURS[arm])) for arm in arms])
    top = height + 8
    bottom = top + block * len(rows)
    axis_x(chart, scale, bottom, say("{figure} with 95 % interval", figure=figure), top)
    if least > 0:
        chart.add(line(scale(least), top, scale(least), bottom, "#8a97a5", width=1.2, dash="4 3"))
    for n, (name, each) in enumerate(rows.items()):
        y, sums_up = top + block * n, name in ("mean", "all patients")
        if sums_up:
            chart.add(
                f'<rect x="0" y="{y + 2:g}" width="{WIDTH}" height="{block - 3:g}" fill="#0072b2" opacity="0.06"/>'
            )
        shown = say(name) if sums_up else name
        label = text(_LEFT - 10, y + block / 2 + 4, short(shown, _LEFT), "end", font_weight="700" if sums_up else "500")
        chart.add(label)
        for k, arm in enumerate(arms):
            _whisker(chart, scale, y + 14 + k * _ROW, each.get(arm), arm, absent=say("no figure"))
    return Chart(chart.title, chart.description, bottom + 44, chart.pieces)


def _whisker(chart: Chart, scale: Scale, y: float, interval: Interval | None, arm: str, absent: str) -> None:
    if interval is None:
        chart.add(text(_RIGHT + 10, y + 4, absent, fill="#5b6773", font_size="11"))
        return
    chart.add(line(scale(interval.low), y, scale(interval.high), y, COLOURS[arm], width=2))
    value, low, high = (number(end, ".2f") for end in (interval.value, interval.low, interval.high))
    figure = f"{low}–{high}"
    if interval.firm:
        chart.add(mark(MARKS[arm], scale(interval.value), y, COLOURS[arm]))
        figure = f"{value} ({low}–{high})"
    chart.add(text(_RIGHT + 10, y + 4, figure, font_size="11", fill=COLOURS[arm]))


def convergence(rounds: Sequence[RoundRecord]) -> Chart | None:
    """The shared model's AUC, round by round, at each hospital; their mean in black."""
    hospitals = sorted({h for record in rounds for h, f in record.hospitals.items() if f.shown_auc is not None})
    evaluated = sum(any(f.auc is not None for f in r.hospitals.values()) for r in rounds)
    if not hospitals or evaluated < _FEWEST_FOR_A_LINE:
        return None
    lines = {h: [(r.number, r.hospitals[h].shown_auc) for r in rounds if h in r.hospitals] for h in hospitals}
    means = [(r.number, r.mean_auc()) for r in rounds]
    last = next((auc for _, auc in reversed(means) if auc is not None), None)
    ends = say("No mean: noise hides a class of some hospital.")
    if last is not None:
        ends = say("The mean ends at {auc}.", auc=number(last, ".3f"))
    return _lines(
        Chart(say("AUC round by round"), ends, 0),
        {**lines, "mean": means} if last is not None else lines,
        "AUC",
        (min([0.5, *(auc for each in lines.values() for _, auc in each if auc is not None)]), 1.0),
    )


def privacy(rounds: Sequence[RoundRecord], asked: float | None) -> Chart | None:
    """Privacy loss of a training patient, round by round, beside what was requested."""
    hospitals = sorted({h for record in rounds for h, f in record.hospitals.items() if f.epsilon is not None})
    if not hospitals or asked is None:
        return None
    lines = {h: [(r.number, r.hospitals[h].epsilon) for r in rounds if h in r.hospitals] for h in hospitals}
    most = max(epsilon for each in lines.values() for _, epsilon in each if epsilon is not None)
    words = say(
        "At most epsilon {most} of {asked} was spent at a hospital.", most=number(most, ".2f"), asked=number(asked)
    )
    chart = Chart(say("Privacy spent"), words, 0)
    return _lines(chart, lines, say("epsilon spent"), (0.0, max(asked, most) * 1.08), asked)


def _stroke(colour: str, dash: str, width: float) -> Callable[[float, float], str]:
    """What stands in a legend for a line."""
    return lambda x, y: line(x - 9, y, x + 9, y, colour, width=width, dash=dash)


def _lines(
    chart: Chart,
    lines: Mapping[str, Sequence[tuple[int, float | None]]],
    label: str,
    span: tuple[float, float],
    limit: float | None = None,
) -> Chart:
    """One line a name over the rounds."""
    styles = {name: (colour, dash, 1.6) for name, colour, dash in numbered([n for n in lines if n != "mean"])}
    styles |= {"mean": ("#111111", "", 3.0)} if "mean" in lines else {}
    entries = [(say(name) if name == "mean" else name, _stroke(*styles[name])) for name in lines]
    if limit is not None:
        entries.append((say("requested"), lambda x, y: line(x - 9, y, x + 9, y, "#b00020", width=1.5, dash="4 3")))
    top = legend(chart, 12, entries) + 26
    bottom, last = top + 190, max(at for each in lines.values() for at, _ in each)
    x, y = Scale(min(1, last - 1), last, 46, WIDTH - 12), Scale(*span, bottom, top)
    axis_y(chart, y, 46, label, WIDTH - 12)
    step = max(1, -(-last // 10))
    numbers = [1, *range(step, last + 1, step)] if step > 1 else range(1, last + 1)
    axis_x(chart, x, bottom, say("round"), bottom, values=numbers)
    if limit is not None:
        chart.add(line(46, y(limit), WIDTH - 12, y(limit), "#b00020", width=1.5, dash="4 3"))
    for name, each in lines.items():
        colour, dash, width = styles[name]
        points = [(x(at), y(value)) for at, value in each if value is not None]
        chart.add(path(points, colour, width, dash), *(mark("circle", *point, colour, width + 0.8) for point in points))
    return Chart(chart.title, chart.description, bottom + 44, chart.pieces)


def reliability(federated: Arm, calibrated: Recalibrated | None = None) -> Chart:
    """Predicted against observed, all validation patients, before and after calibration: on the diagonal, scores are
    probabilities."""
    judged = None if calibrated is None else calibrated.everybody
    before, after = federated.everybody.reliability, [] if judged is None else judged.reliability
    size, left = 300.0, 110.0
    chart = Chart(say("Predicted and observed"), "", 0)
    kinds = [
        (say("scores of the model"), "local", before),
        (say("calibrated by the other hospitals"), "federated", after),
    ]
    kinds = [kind for kind in kinds if kind[2]]
    top = legend(chart, 12, [(name, partial(mark, MARKS[k], colour=COLOURS[k])) for name, k, _ in kinds]) + 26
    x, y = Scale(0, 1, left, left + size), Scale(0, 1, top + size, top)
    axis_y(chart, y, left, say("observed"), left + size)
    axis_x(chart, x, top + size, say("predicted probability"), top)
    chart.add(line(x(0), y(0), x(1), y(1), "#8a97a5", width=1.2, dash="4 3"))
    for _, kind, groups in kinds:
        colour, most = COLOURS[kind], max(g.patients for g in groups)
        for group in groups:
            at, radius = x(group.predicted), 3 + 5 * (max(group.patients, 0) / most) ** 0.5
            chart.add(line(at, y(group.observed.low), at, y(group.observed.high), colour, width=1.6))
            chart.add(mark(MARKS[kind], at, y(group.observed.value), colour, radius))
        if len(groups) > 1:
            chart.add(path([(x(g.predicted), y(g.observed.value)) for g in groups], colour, 1))
    said = [
        f"{name}: " + "; ".join(_predicted(group.predicted, group.observed) for group in groups)
        for name, _, groups in kinds
    ]
    return Chart(chart.title, ". ".join(said) or say("Too few for any group."), size + top + 44, chart.pieces)


def _predicted(predicted: float, observed: Interval) -> str:
    return say("{predicted}, observed {observed}", predicted=number(predicted, ".2f"), observed=in_words(observed))


def groups(subgroups: Sequence[Subgroup]) -> Chart | None:
    """AUC by subgroup."""
    shown: list[tuple[Subgroup, Figures]] = [(g, g.figures) for g in subgroups if g.figures is not None]
    if not shown:
        return None
    description = "; ".join(f"{g.attribute} {g.level}: {in_words(f.auc)}" for g, f in shown)
    top, bottom = 10.0, 10.0 + 26 * len(shown)
    chart = Chart(say("AUC by subgroup"), description, bottom + 44)
    lows = [f.auc.low for _, f in shown if f.auc is not None]
    left = 140.0
    scale = Scale(min([0.5, *(int(low * 10) / 10 for low in lows)]), 1.0, left, _RIGHT)
    axis_x(chart, scale, bottom, say("{figure} with 95 % interval", figure="AUC"), top)
    for n, (group, figures) in enumerate(shown):
        y = top + 26 * n + 14
        chart.add(text(left - 10, y + 4, f"{say(WORDS[group.attribute])}: {group.level}", "end"))
        _whisker(chart, scale, y, figures.auc, "federated", absent=say("no figure"))
    return chart


def gains(results: Results) -> Chart | None:
    """AUC of the federated model minus that of the hospital alone; right of zero, federation helps."""
    if not results.gains:
        return None
    description = "; ".join(f"{hospital}: {signed(gain)}" for hospital, gain in results.gains.items())
    chart = Chart(say("What federation adds at each hospital"), description, 0)
    kinds = [(say("same patients"), "circle", True), (say("as if on different patients"), "diamond", False)]
    shown = [
        (name, kind) for name, kind, paired in kinds if any((h in results.paired) == paired for h in results.gains)
    ]
    top = legend(chart, 12, [(name, partial(mark, kind, colour=COLOURS["federated"])) for name, kind in shown]) + 8
    bottom = top + 24 * len(results.gains)
    widest = max(0.05, *(abs(end) for gain in results.gains.values() for end in (gain.low, gain.high)))
    scale = Scale(-widest, widest, _LEFT, _RIGHT - 48)
    axis_x(chart, scale, bottom, say("AUC of the federated model minus that of the hospital alone"), top)
    chart.add(line(scale(0), top, scale(0), bottom, "#1c2733", width=1.4))
    colours, found = {"helps": "federated", "harms": "local", "open": "pooled"}, decisions(results.gains)
    for n, (hospital, gain) in enumerate(results.gains.items()):
        y = top + 24 * n + 13
        colour = COLOURS[colours[found[hospital]]]
        chart.add(text(_LEFT - 10, y + 4, hospital, "end"))
        chart.add(line(scale(gain.low), y, scale(gain.high), y, colour, width=2))
        if gain.firm:
            chart.add(mark("circle" if hospital in results.paired else "diamond", scale(gain.value), y, colour))
        chart.add(text(_RIGHT - 36, y + 4, signed(gain), font_size="11", fill=colour))
    return Chart(chart.title, chart.description, bottom + 44, chart.pieces)


def signed(gain: Interval) -> str:
    """A difference with its limits, each with its sign."""
    value, low, high = (number(end, "+.2f").replace("-", "−") for end in (gain.value, gain.low, gain.high))
    limits = say("{least} to {most}", least=low, most=high)
    return f"{value} ({limits})" if gain.firm else limits


def matrix(by_model: Mapping[str, Mapping[str, Interval | None]]) -> Chart | None:
    """AUC of every hospital's model at every hospital, darker where it is higher, with the numbers in the cells."""
    if not by_model:
        return None
    columns = sorted({hospital for each in by_model.values() for hospital in each})
    description = "; ".join(
        say("trained at {hospital}:", hospital=row) + " " + ", ".join(f"{h} {in_words(each.get(h))}" for h in columns)
        for row, each in by_model.items()
    )
    left, top, height = 104.0, 44.0, 44.0
    wide = min((WIDTH - left - 6) / len(columns), 92.0)
    chart = Chart(say("AUC of every model at every hospital"), description, top + height * len(by_model) + 8)
    chart.add(text(left + wide * len(columns) / 2, 14, say("scored at"), "middle", fill="#5b6773"))
    chart.add(text(left - 12, top - 8, say("trained at"), "end", fill="#5b6773"))
    for n, hospital in enumerate(columns):
        chart.add(text(left + wide * (n + 0.5), top - 8, short(hospital, wide), "middle", font_weight="600"))
    for m, (row, each) in enumerate(by_model.items()):
        y = top + height * m
        name = say(NAMES[row]) if row in NAMES else row
        chart.add(text(left - 12, y + height / 2 + 4, short(name, left - 12), "end", font_weight="600"))
        for n, hospital in enumerate(columns):
            chart.add(*_cell(left + wide * n, y, wide, height, each.get(hospital), home=hospital == row))
    return chart


def _cell(x: float, y: float, wide: float, high: float, interval: Interval | None, home: bool) -> list[str]:
    """White at an AUC of 0.5 and below, the darkest blue at 1."""
    strength = 0.0 if interval is None else min(max((interval.value - 0.5) / 0.5, 0.0), 1.0)
    fill = mixed("#ffffff", "#00507d", strength)
    ink = ink_on(fill)
    frame = '" stroke="#1c2733" stroke-width="2.5' if home else '" stroke="#c3ccd5'
    inset = 3 if home else 1
    size = f'width="{wide - 2 * inset:g}" height="{high - 2 * inset:g}"'
    pieces = [f'<rect x="{x + inset:g}" y="{y + inset:g}" {size} fill="{fill}{frame}"/>']
    middle = x + wide / 2
    if interval is None:
        return [*pieces, text(middle, y + high / 2 + 4, say("no figure"), "middle", font_size="11", fill="#5b6773")]
    figure = number(interval.value, ".2f") if interval.firm else "–"
    pieces.append(text(middle, y + high / 2, figure, "middle", fill=ink, font_weight="600"))
    low, high_ = number(interval.low, ".2f"), number(interval.high, ".2f")
    limits, type_size = f"{low}–{high_}", "10" if wide > 54 else "7.5"
    return [*pieces, text(middle, y + high / 2 + 14, limits, "middle", fill=ink, font_size=type_size)]


def short(name: str, room: float) -> str:
    """A name that fits into so many pixels."""
    most = max(3, int(room / 7.2))
    return name if len(name) <= most else f"{name[: most - 1]}…"


def frontier(points: Sequence[tuple[str, Interval]], baseline: Interval | None) -> Chart:
    """Mean AUC against epsilon, from strict to none; a band shows the model without noise, if there is one."""
    description = "; ".join(f"epsilon {name}: {in_words(interval)}" for name, interval in points)
    chart = Chart("What privacy costs", description, 0)
    left, right, top, bottom = 46.0, WIDTH - 12.0, 30.0, 240.0
    low = min([i.low for _, i in points] + ([] if baseline is None else [baseline.low]))
    y = Scale(min(0.5, int(low * 10) / 10), 1.0, bottom, top)
    axis_y(chart, y, left, "mean AUC over hospitals", right)
    if baseline is not None:
        band = [(left, y(baseline.low)), (right, y(baseline.low)), (right, y(baseline.high)), (left, y(baseline.high))]
        chart.add(
            area(band, COLOURS["pooled"]),
            line(left, y(baseline.value), right, y(baseline.value), "#666666", width=1.2, dash="4 3"),
        )
        chart.add(text(right, top - 12, "dashed: all patients pooled, no noise", "end", font_size="11"))
    step = (right - left) / max(1, len(points))
    at = [left + step * (n + 0.5) for n in range(len(points))]
    chart.add(path([(x, y(i.value)) for x, (_, i) in zip(at, points, strict=True)], COLOURS["federated"], 1.6))
    for x, (name, interval) in zip(at, points, strict=True):
        chart.add(line(x, y(interval.low), x, y(interval.high), COLOURS["federated"], width=2))
        chart.add(mark("circle", x, y(interval.value), COLOURS["federated"], 5), text(x, bottom + 18, name, "middle"))
        chart.add(text(x + 8, y(interval.value) - 7, f"{interval.value:.3f}", font_size="11"))
    chart.add(line(left, bottom, right, bottom, "#8a97a5"))
    chart.add(text((left + right) / 2, bottom + 38, "epsilon of a training patient (smaller: more private)", "middle"))
    return Chart(chart.title, chart.description, bottom + 48, chart.pieces)


def in_words(interval: Interval | None) -> str:
    """An estimate with its limits, for a description."""
    if interval is None:
        return say("none")
    limits = say("{least} to {most}", least=number(interval.low, ".2f"), most=number(interval.high, ".2f"))
    if not interval.firm:
        return say("{limits}, no point", limits=limits)
    return f"{number(interval.value, '.2f')} ({limits})"
