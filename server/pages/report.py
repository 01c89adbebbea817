"""The study report: one HTML file that loads nothing, for screen and paper, in the language of ``report.language``.

It is written for a radiologist with two minutes: warnings first, then one sentence, then the figures, then what an
auditor needs. It contains no patient, no path and no exact small number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from scipy.special import ndtri

from server.pages import answers, charts, threshold
from server.pages.provenance import code_digest, command, versions
from server.pages.reporting import reference, tripod
from server.pages.svg import Chart
from server.results.average import on_average
from server.results.figures import SPECIFICITY, Figures
from server.results.results import Results
from server.results.verdicts import how_compared, verdicts
from server.rounds.model_selection import fallen, is_evaluated
from server.rounds.state import RoundRecord
from tasks import contract as contracts
from tasks import task as tasks
from tasks.exclusion import sentences
from tasks.machine.language import moment, number, say, say_many, spoken, tag
from tasks.metrics.interval import Interval, Z
from tasks.protocol.subgroups import LEAST
from tasks.protocol.survey import WORDS
from tasks.task import QUESTION, Task

NOT_SHOWN = ("data_root", "output_dir", "tracking", "report", "runtime", "propose", "resume")
"""Parts of the configuration that are paths, may hold a password, or do not change what is computed."""
_UNKNOWN = 0.9
_FEWEST_CHOSEN_FROM = 2
EXPLAINED = {
    "auc": "AUC: Mann-Whitney statistic; score interval (Newcombe 2006, DeLong 1988, Fieller 1954) with the noise's "
    "own variance; what bins hide by a grouped binormal model (Dorfman and Alf 1969).",
    "rates": "Sensitivity and specificity: Wilson's interval with the noise's variance, less the optimism of choosing "
    "the threshold on the same patients (Efron 1983). Predictive values: MOVER (Zou and Donner 2008), at a known "
    "prevalence.",
    "brier": "Brier score: Fieller's interval with Student's t.",
    "calibration": "Calibration error: root mean square, variance taken off (Broecker 2012, Kumar 2019). Slope and "
    "intercept: logistic recalibration (Cox 1958) with score intervals.",
    "recalibration": "Calibrated probabilities: a line on the logit scale (Platt 1999), shrunk; judged by the line of "
    "the other hospitals.",
    "precision": "Average precision: logit interval (Boyd 2013).",
    "gains": "Gains: paired comparison (DeLong 1988); verdicts by Holm (1979).",
    "hospital": "What the hospital alone predicts: Cochran's Q (1954); AUC without optimism (Efron 1983).",
    "outlines": "Dice and Hausdorff distance: Fieller's interval; zeros and missed structures have their own cells.",
    "classes": "Classes: AUC of each against all others; accuracy and sensitivity by Wilson's interval with the "
    "noise's variance; macro AUC with errors correlated by 1/2.",
    "grades": "Weighted kappa (Cohen 1968): a ratio of products of sums, their common noise taken off; Fieller's "
    "interval.",
    "measures": "Limits of agreement (Bland and Altman 1986; intervals by Zou 2013), R² and slope from three "
    "histograms; what their cells hide is in the limits.",
}
"""By its section in ``server/STATISTICS.md``: how each figure is computed, in a line."""
PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


def _said(message: str, **values: object) -> Markup:
    """``say`` for pages: values that are markup stay so, all other text is escaped."""
    return Markup(escape(say(message))).format(**values)


PAGES.globals |= {"say": _said, "say_many": say_many, "number": number, "language": tag}


@dataclass(frozen=True)
class Story:
    """A study that has ended, with everything in its report.

    Attributes:
        config: the configuration as plain values.
        words: the words on the command line, if the study came from one.
        conformance: by hospital, how many images meet the contract and how many were checked; simulated hospitals only.
        sizes: by hospital, the training patients that it declares in public.
    """

    results: Results
    rounds: list[RoundRecord]
    config: Mapping[str, Any]
    words: list[str]
    conformance: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, int] = field(default_factory=dict)


def pictures(story: Story) -> dict[str, Chart]:
    """The charts by file name without extension; those that have nothing to show are absent."""
    results, asked = story.results, story.config["privacy"]["epsilon"]
    drawn = {
        "comparison": charts.forest(results),
        "gains": charts.gains(results),
        "matrix": charts.matrix(results.matrix),
        "reliability": charts.reliability(results.details["federated"], results.recalibrated)
        if "federated" in results.details and not answers.is_measured(results)
        else None,
        "roc": threshold.roc(results.details["federated"].everybody) if "federated" in results.details else None,
        "subgroups": charts.groups(results.groups),
        "findings": charts.findings(results),
        **answers.pictures(results),
        **{f"outlines-{structure}": charts.outlines(structure, arms) for structure, arms in results.outlines.items()},
        "convergence": charts.convergence(story.rounds),
        "privacy": charts.privacy(story.rounds, asked),
    }
    return {name: chart for name, chart in drawn.items() if chart is not None}


def page(story: Story) -> str:
    """The report as HTML."""
    with spoken(story.results.language):
        return _page(story)


def _page(story: Story) -> str:
    results, task = story.results, tasks.get(story.config["task"]["name"])
    negative, positive = (say(name.replace("_", " ")) for name in task.classes)
    federated = results.details.get("federated")
    shown = {key: value for key, value in story.config.items() if key not in NOT_SHOWN}
    return PAGES.get_template("report.html.j2").render(
        results=results,
        task=task,
        config=story.config,
        negative=negative,
        positive=positive,
        warnings=results.translated.get("warnings", results.warnings),
        gate=None if results.gate is None else results.translated.get("gate", results.gate),
        written=f"{moment(datetime.now(UTC))} UTC",
        pictures={name: Markup(chart.svg()) for name, chart in pictures(story).items()},
        summary=summary(results),
        told=list(answers.sentences(results)),
        answered=answers.answered(results),
        measured=answers.is_measured(results),
        verdicts=[*verdicts(results.gains), *on_average(results.gains)],
        called=threshold.called(federated.everybody) if federated else None,
        sizes=story.sizes,
        reference=reference(task),
        tripod=tripod(results),
        selected=selected(story),
        explained=(explained := _explained(results)),
        numbers={name: number for number, name in enumerate(explained, start=1)},
        compared=compared(results),
        federated=federated,
        calibrated=results.recalibrated,
        hospitals=sorted(results.epsilon),
        contract=contracts.digest_of_task(task.name),
        conformance=story.conformance,
        groups_hidden=hidden(results),
        least=LEAST,
        distance=partial(distance, task),
        excluding=sentences,
        specificity=SPECIFICITY,
        code=code_digest(),
        versions=versions(),
        yaml=yaml.safe_dump(shown, sort_keys=False, allow_unicode=True),
        command=command(story.words) if story.words else "",
        show=interval,
        point=point,
        about=about,
        per_cent=per_cent,
        megabytes=lambda count: f"{number(count / 1e6, ',.2f')} MB",
    )


def _explained(results: Results) -> dict[str, str]:
    """The lines about figures that the page has."""
    absent = set(answers.SECTIONS.values()) - answers.sections(results)
    absent |= set() if results.outlines else {"outlines"}
    return {name: text for name, text in EXPLAINED.items() if name not in absent}


def compared(results: Results) -> str:
    """How the gains were measured."""
    noised = any(epsilon is not None for epsilon in results.validation_epsilon.values())
    return how_compared(
        results.gains,
        results.paired,
        noised,
        repeated=bool(results.spread),
        event_alone=QUESTION in results.answers,
    )


def selected(story: Story) -> str:
    """What choosing a round by its own figures does to them; "" where none was chosen."""
    terms = story.config["evaluation"]
    instead = terms["deliver"] == "better" and fallen(story.rounds) is not None
    if terms["deliver"] != "best" and not instead and not terms["patience"]:
        return ""
    evaluated = [record for record in story.rounds if is_evaluated(record)]
    pooled = [record.pooled_auc for record in evaluated if record.pooled_auc is not None]
    if len(pooled) < _FEWEST_CHOSEN_FROM:
        return ""
    error = sum(high - low for _, low, high in pooled) / len(pooled) / 2 / Z
    most = error * largest_of(len(pooled))
    said = {"rounds": len(pooled), "most": number(most, ".2f")}
    if terms["deliver"] == "best" or instead:
        return say(
            "The model is the best round's of {rounds} that were evaluated on these very patients, so its AUC is too "
            "high: by at most about {most} on all patients, were all rounds equally good and their errors independent. "
            "What is right at other patients only they can tell.",
            **said,
        )
    return say(
        "When to stop was decided of {rounds} rounds that were evaluated on these very patients, so its AUC is too "
        "high: by at most about {most} on all patients, were all rounds equally good and their errors independent. "
        "What is right at other patients only they can tell.",
        **said,
    )


def largest_of(count: int) -> float:
    """Mean of the largest of so many independent standard normal numbers (Blom, "Statistical Estimates and Transformed
    Beta-Variables", 1958)."""
    return float(ndtri((count - 0.375) / (count + 0.25)))


def hidden(results: Results) -> list[str]:
    """A sentence for each attribute of which some levels are not shown."""
    sentences = []
    for attribute in dict.fromkeys(group.attribute for group in results.groups):
        levels = [group for group in results.groups if group.attribute == attribute]
        absent = [group.level for group in levels if group.figures is None]
        if levels[-1].share > _UNKNOWN:
            share, name = number(levels[-1].share, ".0%"), say(WORDS[attribute])
            sentences.append(
                say(
                    "Most files do not state {attribute}: it is missing for {share} of patients.",
                    attribute=name,
                    share=share,
                )
            )
        elif absent:
            name, levels_absent = say(WORDS[attribute]), ", ".join(absent)
            sentences.append(say("Not shown for {attribute}: {levels}.", attribute=name, levels=levels_absent))
    return sentences


def summary(results: Results) -> str:
    """The study in one sentence."""
    hospitals, absent = results.comparable(), results.absent()
    federated = results.mean_auc("federated")
    if federated is None:
        return say("No hospital has an AUC in every arm, so nothing can be compared.")
    others = [(arm, results.mean_auc(arm)) for arm in ("local", "pooled") if arm in results.arms]
    texts = [f"{say(charts.NAMES[arm])} {point(mean)}" for arm, mean in others if mean is not None]
    compared = "; ".join([f"{say(charts.NAMES['federated'])} {point(federated)}", *texts])
    if absent:
        return say(
            "AUC at {hospitals} only ({absent} cannot have one in every arm), mean: {compared}.",
            hospitals=", ".join(hospitals),
            absent=", ".join(absent),
            compared=compared,
        )
    return say_many(
        "Mean AUC over {n} hospital: {compared}.",
        "Mean AUC over {n} hospitals: {compared}.",
        len(hospitals),
        compared=compared,
    )


def point(figure: Interval | None, digits: int = 2) -> str:
    """An estimate with its limits; the limits alone where noise leaves no point."""
    if figure is None:
        return "–"
    if not figure.firm:
        return say("{limits}, no point", limits=interval(figure, digits))
    return f"{number(figure.value, f'.{digits}f')} ({interval(figure, digits)})"


def interval(figure: Interval | None, digits: int = 2) -> str:
    """The limits of an interval."""
    if figure is None:
        return "–"
    least, most = (number(end, f".{digits}f") for end in (figure.low, figure.high))
    return say("{least} to {most}", least=least, most=most)


def about(patients: float, noise: float) -> str:
    """A number of patients that reveals none of them: rounded, and small numbers not at all."""
    if patients < LEAST:
        return say("fewer than {least}", least=LEAST)
    return say("about {patients}", patients=round(patients / 10) * 10) + (f" ± {2 * noise:.0f}" if noise else "")


def distance(task: Task, figure: Interval | None) -> str:
    """A distance with its limits: in millimetres where the task's examples have a size, otherwise as a fraction of the
    image's diagonal."""
    if figure is None:
        return "–"
    size = diagonal_mm(task)
    factor, unit = (100.0, say("% of the diagonal")) if size is None else (size, "mm")
    value, low, high = (number(factor * end, ".1f") for end in (figure.value, figure.low, figure.high))
    return f"{value} ({low}–{high}) {unit}" if figure.firm else say("{limits}, no point", limits=f"{low}–{high} {unit}")


def diagonal_mm(task: Task) -> float | None:
    """The diagonal of an example of the task; ``None`` where examples have no common size."""
    if task.example_spacing_mm is None:
        return None
    return math.hypot(*(n * mm for n, mm in zip(task.example_shape[1:], task.example_spacing_mm, strict=True)))


def per_cent(figure: Interval | None) -> str:
    """A proportion with its limits, in per cent."""
    if figure is None:
        return "–"
    limits = f"{100 * figure.low:.0f}–{100 * figure.high:.0f}"
    return f"{100 * figure.value:.0f} % ({limits})" if figure.firm else say("{limits}, no point", limits=f"{limits} %")


def figures_of(story: Story, hospital: str) -> Figures | None:
    """The federated model's figures at a hospital."""
    federated = story.results.details.get("federated")
    return None if federated is None else federated.hospitals.get(hospital)
