"""What a study found, as tables for the terminal.

Tested in ``tests/server/results/test_answers.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group
from rich.table import Table

from conf.schema.study import Study
from server.results.answers import FIGURES, MeasureFigures, told_figures
from server.results.results import Results
from tasks.metrics.interval import Interval
from tasks.task import QUESTION

WORDS = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "weighted kappa",
    "mean_error": "mean absolute error",
    "below": "lower limit of agreement",
    "above": "upper limit of agreement",
    "r_squared": "R²",
}
"""What figures are called where a person reads; the others have their own names."""
UNITS = {"mean_error", "bias", "below", "above"}
"""Figures in the unit of the answer, or in grades."""


def tables(results: Results, study: Study) -> Group:
    """The AUC of the task's question, and the figures of every question with another answer than yes or no."""
    return Group(table(results, study), *answer_tables(results))


def answer_tables(results: Results) -> Iterator[Table]:
    """One a question: the federated model's figures at each hospital, and other arms' on all patients."""
    for question, arms in results.answers.items():
        federated = arms.get("federated")
        if federated is None:
            continue
        figures = FIGURES[federated.everybody.kind]
        unit = f" [{federated.everybody.unit}]" if isinstance(federated.everybody, MeasureFigures) else ""
        title = f"{results.study}: {called(question)}, with 95 % intervals"
        drawn = Table(title=title, title_style="bold")
        drawn.add_column("hospital")
        for name in figures:
            drawn.add_column(
                f"{WORDS.get(name, name).removesuffix(' of agreement')}{unit if name in UNITS else ''}", justify="right"
            )
        rows = {**federated.hospitals, "all patients": federated.everybody}
        rows |= {f"all patients, {arm}": each.everybody for arm, each in arms.items() if arm != "federated"}
        for name, told in rows.items():
            if name == "all patients":
                drawn.add_section()
            known = told_figures(told)
            drawn.add_row(name, *(_figure(known[each], each) for each in figures))
        yield drawn


def _figure(interval: Interval | None, name: str) -> str:
    if interval is None:
        return "-"
    if name not in UNITS:
        return _three(interval).replace("-", "−")
    value, low, high = in_unit(interval)
    return f"{value if interval.firm else 'no point'}\n{low} to {high}"


def in_unit(interval: Interval) -> tuple[str, str, str]:
    """An estimate and its limits with equally many decimals, the largest of them with three digits.

    >>> in_unit(Interval(8.276, 5.8, 12.41))
    ('8.3', '5.8', '12.4')
    """
    ends = (interval.value, interval.low, interval.high)
    decimals = min(max(2 - math.floor(math.log10(max(*map(abs, ends), 1e-9))), 0), 6)
    value, low, high = (f"{end:.{decimals}f}".replace("-", "−") for end in ends)
    return value, low, high


def called(question: str) -> str:
    """A question's name for a person."""
    return "the question's own answer" if question == QUESTION else question.replace("_", " ")


def table(results: Results, study: Study) -> Table:
    """The results as a table for the terminal."""
    asked = f"epsilon {study.privacy.epsilon:g}" if study.privacy.epsilon is not None else "no noise"
    drawn = Table(title=f"{results.study}: AUC on validation patients, with 95 % intervals", title_style="bold")
    drawn.add_column("hospital")
    for arm in results.arms:
        how = asked if arm == "federated" else "no noise"
        drawn.add_column(f"{arm}\n{how}", justify="right")
    for heading in ("epsilon\nspent", "kB\nin", "kB\nout"):
        drawn.add_column(heading, justify="right")
    for hospital in results.epsilon:
        spent = results.epsilon[hospital]
        drawn.add_row(
            hospital,
            *(_interval(results, arm, hospital) for arm in results.arms),
            "-" if spent is None else f"{spent:.2f}",
            f"{results.bytes_down[hospital] / 1000:,.0f}",
            f"{results.bytes_up[hospital] / 1000:,.0f}",
        )
    means = [results.mean_auc(arm) for arm in results.arms]
    drawn.add_section()
    whole = not results.absent()
    of = "mean" if whole else f"mean of {', '.join(results.comparable()) or 'none'}"
    drawn.add_row(of, *("-" if one is None else _three(one) for one in means), style="bold" if whole else None)
    return drawn


def _interval(results: Results, arm: str, hospital: str) -> str:
    auc = results.auc(arm, hospital)
    if auc is None:
        return "no AUC" if hospital in results.arms[arm] else "-"
    return _three(auc)


def _three(interval: Interval) -> str:
    point = f"{interval.value:.3f}" if interval.firm else "no point"
    return f"{point}\n{interval.low:.2f} to {interval.high:.2f}"
