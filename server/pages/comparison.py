"""Several studies side by side, from their folders; and what privacy costs, where they differ in epsilon."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pydantic import TypeAdapter
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from server.errors import StudyError
from server.pages import charts
from server.pages.answers import summaries
from server.pages.provenance import flat
from server.pages.report import PAGES, interval, point
from server.results.answers import AnswerArm
from tasks import faults
from tasks.metrics.interval import Interval, mean, repeated

_MAY_DIFFER = ("privacy.", "seed")
"""Studies that differ in nothing but this lie on one curve of AUC against epsilon."""
_WIDE = 10_000
_ANSWERS = TypeAdapter(dict[str, dict[str, AnswerArm]])
_NOT_SHOWN = ("output_dir", "data_root", "tracking", "report", "runtime", "propose", "resume")


class NotComparable(StudyError):
    """These studies have no figures that can be compared."""


@dataclass(frozen=True)
class Ended:
    """A study that has ended, from its folder.

    Attributes:
        config: settings by dotted keys, without paths.
        hospitals: AUC of the federated model by hospital, and ``pooled`` that of the arm without noise.
        told: where answers are more than yes or no, the figures of the federated model on all patients, by what they
            are called.
    """

    name: str
    question: str
    config: dict[str, Any]
    hospitals: dict[str, Interval]
    pooled: dict[str, Interval]
    told: dict[str, str] = field(default_factory=dict)

    @property
    def epsilon(self) -> float:
        """Infinite without noise."""
        asked = self.config["privacy.epsilon"]
        return math.inf if asked is None else float(asked)


def read(folder: Path) -> Ended:
    """A study's folder.

    Raises:
        NotComparable: it holds no ended study.
    """
    try:
        facts = json.loads((folder / "study.json").read_text("utf-8"))
        numbers = json.loads((folder / "results.json").read_text("utf-8"))
        config = {key: value for key, value in facts["config"].items() if key not in _NOT_SHOWN}
        arms = {arm: _intervals(each) for arm, each in numbers["arms"].items()}
        return Ended(
            name=facts["study"],
            question=config["task"]["name"],
            config=flat(config),
            hospitals=arms["federated"],
            pooled=arms.get("pooled", {}),
            told=summaries(_ANSWERS.validate_python(numbers.get("answers", {}))),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotComparable(
            f"{folder} holds no study that has ended ({_reason(error)}); name folders in outputs/studies"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there, or lacks a file"
    return faults.of_system(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def _intervals(arm: dict[str, Any]) -> dict[str, Interval]:
    known = {h: f for h, f in arm.items() if f["auc"] is not None}
    return {
        h: Interval(f["auc"], f["auc_low"], f["auc_high"], f["auc_firm"], f["auc_hidden"]) for h, f in known.items()
    }


def shared(studies: Sequence[Ended]) -> list[str]:
    """Hospitals that have a figure in every study.

    Raises:
        NotComparable: they ask different questions, or there is no such hospital.
    """
    questions = {study.question for study in studies}
    if len(questions) > 1:
        raise NotComparable(
            f"the studies ask different questions: {', '.join(sorted(questions))}; name studies of one task"
        )
    common = sorted(set.intersection(*(set(study.hospitals) for study in studies))) if studies else []
    if not common:
        raise NotComparable("no hospital has an AUC in all of these studies; name studies of the same hospitals")
    return common


def differing(studies: Sequence[Ended]) -> list[str]:
    """Keys of the configuration in which they differ."""
    keys = sorted({key for study in studies for key in study.config})
    return [key for key in keys if len({repr(study.config.get(key)) for study in studies}) > 1]


def told_by(studies: Sequence[Ended]) -> list[str]:
    """Figures of answers that are more than yes or no, as they are called, of whichever study has them."""
    return list(dict.fromkeys(figure for study in studies for figure in study.told))


def table(studies: Sequence[Ended], width: int = 80) -> Table:
    """For the terminal: what differs, and the mean AUC over the hospitals that all studies share.

    Args:
        width: of the terminal. In a narrow one studies have numbers, and single hospitals are left to the page.

    Raises:
        NotComparable: see ``shared``.
    """
    common, keys, told = shared(studies), differing(studies), told_by(studies)
    drawn = Table(title=f"AUC over {', '.join(common)}, with 95 % intervals", title_style="bold")
    for heading in ("study", *keys, "mean AUC", *common, *told):
        drawn.add_column(heading)
    for study in studies:
        figures = [_text(study.hospitals[hospital]) for hospital in common]
        answers = (study.told.get(figure, "–") for figure in told)
        drawn.add_row(study.name, *_settings(study, keys), _text(_mean(study, common)), *figures, *answers)
    fits = Measurement.get(wide := Console(width=_WIDE), wide.options, drawn).maximum <= width
    return drawn if fits else _narrow(studies, common, keys)


def _narrow(studies: Sequence[Ended], common: Sequence[str], keys: Sequence[str]) -> Table:
    names = "\n".join(f"{number}: {study.name}" for number, study in enumerate(studies, start=1))
    drawn = Table(title=f"Mean AUC over {', '.join(common)}, with 95 % intervals", title_style="bold",
                  caption=f"{names}\nSingle hospitals are on the page.", caption_justify="left")  # fmt: skip
    drawn.add_column("study", no_wrap=True)
    for key in keys:
        drawn.add_column(key, overflow="fold")
    drawn.add_column("mean AUC", overflow="fold")
    for number, study in enumerate(studies, start=1):
        drawn.add_row(str(number), *_settings(study, keys), _text(_mean(study, common)))
    return drawn


def _settings(study: Ended, keys: Sequence[str]) -> Iterator[str]:
    for value in map(study.config.get, keys):
        yield f"{value:.4g}" if isinstance(value, float) else str(value)


def points(studies: Sequence[Ended]) -> list[tuple[str, Interval]]:
    """Mean AUC by epsilon, strictest first. Studies with the same epsilon, such as several seeds, become one point: the
    mean, with the scatter of their trainings in its interval."""
    common = shared(studies)
    by_epsilon: dict[float, list[Interval]] = {}
    for study in studies:
        by_epsilon.setdefault(study.epsilon, []).append(_mean(study, common))
    return [
        (f"{epsilon:g}" if epsilon < math.inf else "none", _average(each))
        for epsilon, each in sorted(by_epsilon.items())
    ]


def page(studies: Sequence[Ended]) -> str:
    """The comparison as HTML that loads nothing.

    Raises:
        NotComparable: see ``shared``.
    """
    common, by_epsilon = shared(studies), points(studies)
    pooled = [mean([study.pooled[h] for h in common]) for study in studies if set(common) <= set(study.pooled)]
    baseline = [interval for interval in pooled if interval is not None]
    others = [key for key in differing(studies) if not key.startswith(_MAY_DIFFER)]
    one_curve = len(by_epsilon) > 1 and not others
    drawn = charts.frontier(by_epsilon, _average(baseline) if baseline else None) if one_curve else None
    return PAGES.get_template("many.html.j2").render(
        studies=studies,
        common=common,
        keys=differing(studies),
        others=others if len(by_epsilon) > 1 else [],
        told=told_by(studies),
        frontier="" if drawn is None else Markup(drawn.svg()),
        mean=lambda study: _mean(study, common),
        show=interval,
        point=point,
    )


def _mean(study: Ended, common: Sequence[str]) -> Interval:
    average = mean([study.hospitals[hospital] for hospital in common])
    if average is None:
        raise NotComparable(f"{study.name} has no figure")
    return average


def _average(each: Sequence[Interval]) -> Interval:
    """Of the same patients, so the limits are averaged as they are; and the scatter of their trainings is added."""
    average = repeated(each)
    if average is None:
        raise NotComparable("there is no figure")
    return average


def _text(auc: Interval) -> str:
    return point(auc, 3) if not auc.firm else f"{auc.value:.3f} ({interval(auc)})"
