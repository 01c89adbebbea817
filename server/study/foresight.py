"""Before a study spends anything: what its figures will be able to tell of each hospital, and a refusal if nothing.

The server knows a hospital's declared size, its own document, and nothing else; what it has to assume is said in the
table. A hospital's ``review`` says the same with the hospital's own settings.
"""

from __future__ import annotations

import math
from dataclasses import replace

from rich.table import Table

from server.errors import UninformativeStudy
from server.study.gaussian_privacy import mu_of
from tasks.metrics.foresight import ASSUMED_AUC, TOO_OFTEN_NONE, Foresight, foresee, validation_patients
from tasks.protocol.study import EvaluationTerms, StudyDocument

ASSUMED_VALIDATION = 0.3
"""Share of a hospital's patients in its validation cohort: the default of ``site.yaml``."""
_FEWEST_BINS = 8


def foresee_study(document: StudyDocument) -> dict[str, Foresight]:
    """What the study's last AUC will be able to tell of each hospital whose size is in the document, by name."""
    terms = document.evaluation
    return {
        name: foresee(
            validation_patients(size, ASSUMED_VALIDATION), terms.bins, noise_of(terms, _delta(document, size))
        )
        for name, size in sorted(document.sizes.items())
    }


def noise_of(terms: EvaluationTerms, delta: float) -> float:
    """Standard deviation of the noise on a cell: every histogram of the study is one release of the Gaussian mechanism
    with sensitivity 1, and k of them with noise s are one of noise s / sqrt(k) (Dong, Roth and Su, JRSS B 84:3, 2022,
    corollary 3.3)."""
    if terms.epsilon is None:
        return 0.0
    return math.sqrt(terms.all_histograms()) / mu_of(terms.epsilon, delta)


def require_informative(document: StudyDocument) -> None:
    """Pass unless at every hospital it is more likely than not that there will be no AUC.

    Raises:
        UninformativeStudy: with what would help.
    """
    foreseen = foresee_study(document)
    if not foreseen or not all(each.tells_nothing for each in foreseen.values()):
        return
    chances = ", ".join(f"{name} {each.none:.0%} (of {each.patients})" for name, each in foreseen.items())
    raise UninformativeStudy(
        f"the figures would tell nothing, and validation patients' privacy would be spent on them. Chance that the "
        f"noise hides a class, so that there is no AUC (of so many validation patients): {chances}. "
        f"{_remedy(document)} To run it nevertheless: evaluation.uninformative=allow"
    )


def _remedy(document: StudyDocument) -> str:
    """The first change of settings with which every hospital has an AUC more often than not, mildest first."""
    terms, epsilon = document.evaluation, document.evaluation.epsilon or 0.0
    once, few = {"releases": 1}, {"bins": min(terms.bins, _FEWEST_BINS)}
    alone = {"subgroups": [], "paired": 0, "matrix": 0}
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
            return f"This would give each an AUC: {text}."
    return "No setting of the evaluation helps: there are too few validation patients."


def table(document: StudyDocument) -> Table:
    """What to expect of each hospital, for whoever proposes the study."""
    foreseen = foresee_study(document)
    shown = Table(
        title="What the figures will be able to tell",
        caption=f"Assumed: an AUC of {ASSUMED_AUC:g}, a third of the patients with the finding, and beside the "
        f"declared (training) size {ASSUMED_VALIDATION:.0%} of all patients for validation.",
    )
    shown.add_column("hospital")
    for column in ("validation patients", "noise a cell", "95 % interval, width", "chance of no AUC"):
        shown.add_column(column, justify="right")
    for name, each in foreseen.items():
        none = f"[bold]{each.none:.0%}[/]" if each.none > TOO_OFTEN_NONE else f"{each.none:.0%}"
        width = "-" if each.none == 1 else f"{each.width:.2f}"
        shown.add_row(name, str(each.patients), f"{each.noise:.2f}", width, none)
    return shown


def _delta(document: StudyDocument, size: int) -> float:
    """A hospital grants at most a tenth of 1 / its size."""
    return min(document.privacy.delta, 0.1 / size)
