"""Before a study spends anything: what its figures will be able to tell of each hospital, and a refusal if nothing.

The server knows a hospital's declared size, its own document, and nothing else; what it has to assume is said in the
table. A hospital's ``review`` says the same with the hospital's own settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from rich.table import Table

from server.errors import UninformativeStudy
from server.study.gaussian_privacy import mu_of
from tasks.metrics.foresight import (
    ASSUMED_ANSWERS,
    ASSUMED_AUC,
    ASSUMED_POSITIVES,
    FORESEEN,
    Foresight,
    foresee,
    foresee_answer,
    validation_patients,
)
from tasks.protocol.study import RANGE_NOISE, EvaluationTerms, StudyDocument

ASSUMED_VALIDATION = 0.3
"""Share of a hospital's patients in its validation cohort: the default of ``site.yaml``."""
_FEWEST_BINS = 8
_PAYS = 0.03
"""A noised joint histogram pays where noise * hypot(1 / negatives, 1 / positives) is at most this. In simulation (4
bins a model, noise 3, models of correlation 0.6) the paired interval is as wide as the other one at 200 and 100
patients, a quarter narrower at 2000 and 1000, and twice as wide at 60 and 40."""


def foresee_study(document: StudyDocument) -> dict[str, Foresight]:
    """What the study's last AUC will be able to tell of each hospital whose size is in the document, by name."""
    terms = document.evaluation
    return {
        name: foresee(
            validation_patients(size, ASSUMED_VALIDATION),
            terms.bins,
            noise_of(terms, _at_most(document.privacy.delta, size), name),
        )
        for name, size in sorted(document.sizes.items())
    }


def foresee_answers(document: StudyDocument) -> dict[str, dict[str, Foresight]]:
    """By question with another answer than yes or no and by hospital, what ``FORESEEN`` of its kind will tell."""
    terms = document.evaluation
    return {
        question: {
            name: foresee_answer(
                asked.kind,
                (asked.cells[0], asked.cells[1]),
                validation_patients(size, ASSUMED_VALIDATION),
                terms.bins,
                noise_of(terms, _at_most(document.privacy.delta, size), name),
            )
            for name, size in sorted(document.sizes.items())
        }
        for question, asked in terms.answers.items()
    }


def noise_of(terms: EvaluationTerms, delta: float, hospital: str | None = None) -> float:
    """Standard deviation of the noise on a cell: every histogram of the study is one release of the Gaussian mechanism
    with sensitivity 1, and k of them with noise s are one of noise s / sqrt(k) (Dong, Roth and Su, JRSS B 84:3, 2022,
    corollary 3.3). A first look counts for as much less as it has more noise.

    Args:
        hospital: with the histograms of this one; ``None`` for one that is asked for everything.
    """
    if terms.epsilon is None:
        return 0.0
    look = 1 / RANGE_NOISE**2 if terms.edges == "released" else 0.0
    histograms = terms.all_histograms() if hospital is None else terms.histograms_at(hospital)
    return math.sqrt(histograms + look) / mu_of(terms.epsilon, delta)


def compared_where_it_pays(terms: EvaluationTerms, delta: float, sizes: Mapping[str, int]) -> EvaluationTerms:
    """The terms with the hospitals where two models will be compared on the same patients: those for which the noised
    joint histogram tells more than two histograms apart. Declared sizes decide, before anything is released: a share of
    epsilon that is never asked for is not reserved, and what was found decides nothing."""
    if terms.epsilon is None or not terms.paired or not sizes:
        return terms
    there = [name for name, size in sorted(sizes.items()) if _pays(terms, _at_most(delta, size), size)]
    return replace(terms, paired_at=there) if there else replace(terms, paired=0)


def _pays(terms: EvaluationTerms, delta: float, size: int) -> bool:
    patients = validation_patients(size, ASSUMED_VALIDATION)
    positives = max(patients * ASSUMED_POSITIVES, 1.0)
    return noise_of(terms, delta) * math.hypot(1 / positives, 1 / max(patients - positives, 1.0)) <= _PAYS


def require_informative(document: StudyDocument) -> None:
    """Pass unless at every hospital it is more likely than not that its AUC would be told too vaguely.

    Raises:
        UninformativeStudy: with what would help.
    """
    foreseen = foresee_study(document)
    if not foreseen or not all(each.tells_nothing for each in foreseen.values()):
        return
    widths = ", ".join(f"{name} {each.width:.2f} (of {each.patients})" for name, each in foreseen.items())
    raise UninformativeStudy(
        f"the figures would tell nothing, and validation patients' privacy would be spent on them. Width "
        f"of the 95 % interval of an AUC of {ASSUMED_AUC:g} (of so many validation patients): {widths}. "
        f"{_remedy(document)} To run it nevertheless: evaluation.uninformative=allow"
    )


def _remedy(document: StudyDocument) -> str:
    """The first change of settings with which no hospital's AUC is told too vaguely, mildest first."""
    terms, epsilon = document.evaluation, document.evaluation.epsilon or 0.0
    once, few = {"releases": 1}, {"bins": min(terms.bins, _FEWEST_BINS)}
    alone = {"subgroups": [], "paired": 0, "paired_at": [], "matrix": 0}
    every = f"evaluation.every={document.rounds}"
    words = f"{every} evaluation.bins={few['bins']}"
    for text, changes in (
        (every, once),
        (words, once | few),
        (f"{words} evaluation.subgroups=[] evaluation.paired=false evaluation.matrix=0", once | few | alone),
        (f"{words} evaluation.epsilon={2 * epsilon:g}", once | few | {"epsilon": 2 * epsilon}),
    ):
        changed = replace(document, evaluation=replace(terms, **changes))
        if not any(each.tells_nothing for each in foresee_study(changed).values()):
            return f"This would give each a telling AUC: {text}."
    return "No setting of the evaluation helps: there are too few validation patients."


def table(document: StudyDocument) -> Table:
    """What to expect of each hospital, for whoever proposes the study."""
    foreseen = foresee_study(document)
    shown = Table(
        title="What the figures will be able to tell",
        caption=f"Assumed: an AUC of {ASSUMED_AUC:g}, a third of the patients with the finding, and beside the "
        f"declared (training) size {ASSUMED_VALIDATION:.0%} of all patients for validation."
        + (f" Of other answers: {ASSUMED_ANSWERS}." if document.evaluation.answers else ""),
    )
    shown.add_column("hospital")
    for column in ("validation patients", "noise a cell", "95 % interval, width", "chance of no point"):
        shown.add_column(column, justify="right")
    answers = foresee_answers(document)
    for question in answers:
        shown.add_column(f"{question}: {FORESEEN[document.evaluation.answers[question].kind]}, width", justify="right")
    for name, each in foreseen.items():
        width = f"[bold]{each.width:.2f}[/]" if each.tells_nothing else f"{each.width:.2f}"
        row = [name, str(each.patients), f"{each.noise:.2f}", width, f"{each.none:.0%}"]
        shown.add_row(*row, *(f"{by_hospital[name].width:.2f}" for by_hospital in answers.values()))
    return shown


def _at_most(delta: float, size: int) -> float:
    """A hospital grants at most a tenth of 1 / its size."""
    return min(delta, 0.1 / size)
