"""A study held against the hospital's policy and ledger, for the person who answers for the patients' data.

Here are the figures; ``client/oversight/explain.py`` makes sentences of them. Neither decides anything: what the policy
refuses stays refused, whoever approves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from client.books.accounting import Mechanism, epsilon_of, plan_scale, sequence
from client.books.ledger import Ledger
from client.errors import BudgetExhausted
from client.policy import (
    COHORTS,
    PARTS,
    Part,
    granted,
    histogram_bytes,
    joint_bytes,
    objections,
    other_release,
    outline_bytes,
)
from client.site import SiteSettings
from tasks import lean
from tasks import study as studies
from tasks import task as tasks
from tasks.study import StudyDocument


@dataclass(frozen=True)
class Leaving:
    """What leaves the hospital by one part of a study.

    Attributes:
        tensors: how many, in one message.
        numbers: values in all of them.
        bytes: their size in one message, uncompressed.
        times: messages in the whole study, at most.
        by: attributes by which scores are told apart in it.
        of: what is counted, where it is not how the study's model answers its question.
    """

    part: Part
    tensors: int
    numbers: int
    bytes: int
    times: int
    by: tuple[str, ...] = ()
    of: Literal["", "findings", "outlines", "two models", "others' models"] = ""


@dataclass(frozen=True)
class Cost:
    """What one part of a study costs its cohort. All epsilons are at ``delta``; ``None`` means without noise.

    Attributes:
        asked: the study's epsilon.
        granted: the smaller of that and the hospital's cap for one study.
        plan: the noise that keeps the whole part within ``granted``, turn by turn; ``None`` when none does.
        spent: by all studies so far.
        spent_by_study: by this study so far.
        after: by all studies, when this one has run to its end.
        cap: the hospital's cap for life.
    """

    part: Part
    cohort: str
    asked: float | None
    granted: float | None
    delta: float
    plan: list[Mechanism] | None
    spent: float
    spent_by_study: float
    after: float | None
    cap: float


@dataclass(frozen=True)
class Review:
    """A study against a hospital's policy and ledger.

    Attributes:
        question: what the task asks, as a clinician would.
        refused: reasons why the hospital will not answer, whoever approves; by part.
    """

    document: StudyDocument
    digest: str
    question: str
    leaving: list[Leaving]
    costs: list[Cost]
    refused: dict[Part, list[str]]


def examine(document: StudyDocument, settings: SiteSettings, ledger: Ledger) -> Review:
    """Hold a study against the hospital's policy and ledger."""
    refused = {part: [*other_release(document), *objections(document, part, settings)] for part in PARTS}
    costs = [_cost(document, part, settings, ledger) for part in PARTS]
    leaving, unknown = _leaving(document, settings)
    refused["training"] += unknown
    for part in PARTS:
        refused[part] += [reason for cost in costs if cost.part == part for reason in _over_budget(cost)]
        refused[part] += [reason for each in leaving if each.part == part for reason in _too_large(each, settings)]
    question = tasks.get(document.task).question if document.task in tasks.names() else "unknown to this release"
    return Review(document, studies.digest(document), question, leaving, costs, refused)


def _leaving(document: StudyDocument, settings: SiteSettings) -> tuple[list[Leaving], list[str]]:
    """What leaves, and why the network cannot be built here if it cannot."""
    from tasks.models import registry
    from tasks.models.parts import NothingToShare, staying
    from tasks.models.weights import in_folder

    found, wrong = [], []
    try:
        network = registry.build(document.model, tasks.get(document.task).form, find=in_folder(settings.weights))
        stay = staying(network.trainable, document.method.stays)
        shapes = [p.numel() for name, p in network.trainable.named_parameters() if p.requires_grad and name not in stay]
        size = lean.largest_size(document.wire.up, sum(shapes))
        found.append(Leaving("training", len(shapes), sum(shapes), size, document.asked))
    except (registry.UnknownModel, tasks.UnknownTask, NothingToShare) as error:
        wrong.append(str(error))
    terms = document.evaluation
    found.append(Leaving("evaluation", 1, 2 * terms.bins, histogram_bytes(terms, last=False), terms.releases))
    if terms.findings:
        size = len(terms.findings) * histogram_bytes(terms, last=False)
        found.append(Leaving("evaluation", len(terms.findings), size // 8, size, 1, of="findings"))
    if terms.structures:
        size = outline_bytes(terms)
        found.append(Leaving("evaluation", 2 * len(terms.structures), size // 8, size, 1, of="outlines"))
    if terms.subgroups:
        size = histogram_bytes(replace(terms, findings=[], structures=[]), last=True)
        size -= histogram_bytes(terms, last=False)
        found.append(Leaving("evaluation", len(terms.subgroups), size // 8, size, 1, tuple(terms.subgroups)))
    if terms.paired:
        found.append(Leaving("evaluation", 1, 2 * terms.paired**2, joint_bytes(terms), 1, of="two models"))
    if terms.matrix:
        size = histogram_bytes(terms, last=False)
        found.append(Leaving("evaluation", 1, 2 * terms.bins, size, terms.matrix, of="others' models"))
    return found, wrong


def _too_large(leaving: Leaving, settings: SiteSettings) -> Iterator[str]:
    if leaving.bytes > settings.policy.max_upload_bytes:
        yield f"{leaving.bytes:,} bytes in one message, policy.max_upload_bytes is {settings.policy.max_upload_bytes:,}"


def _cost(document: StudyDocument, part: Part, settings: SiteSettings, ledger: Ledger) -> Cost:
    terms, cohort = granted(document, part, settings), COHORTS[part]
    asked = document.privacy.epsilon if part == "training" else document.evaluation.epsilon
    by_others = [m for study in ledger.studies() if study != document.name for m in ledger.spent(cohort, study)]
    plan = _planned(document, part, terms.epsilon, terms.delta)
    return Cost(
        part,
        cohort,
        asked,
        terms.epsilon,
        terms.delta,
        plan,
        spent=epsilon_of(ledger.spent(cohort), terms.delta),
        spent_by_study=epsilon_of(ledger.spent(cohort, document.name), terms.delta),
        after=None if plan is None else epsilon_of([*by_others, *plan], terms.delta),
        cap=settings.policy.max_epsilon_life,
    )


def _planned(document: StudyDocument, part: Part, epsilon: float | None, delta: float) -> list[Mechanism] | None:
    """The whole part of the study, as the hospital will plan it at the first order."""
    rate, ahead = 1.0, [(1.0, document.evaluation.all_histograms())]
    if part == "training":
        rate, ahead = document.training.sample_rate, document.noise_ahead()
    try:
        scale = 0.0 if epsilon is None else plan_scale([], rate, ahead, epsilon, delta)
    except BudgetExhausted:
        return None
    return sequence(scale, rate, ahead)


def _over_budget(cost: Cost) -> Iterator[str]:
    if cost.granted is None:
        return
    if cost.plan is None or cost.after is None:
        yield f"no amount of noise keeps it within epsilon {cost.granted:g}"
    elif cost.after > cost.cap:
        yield (
            f"the {cost.cohort} patients would have spent {cost.after:.2f} in their life, "
            f"policy.max_epsilon_life is {cost.cap:g}: it would end early"
        )
