"""A study checked against the hospital's policy and ledger, for the person responsible for the patients' data.

This file has the figures; ``client/oversight/explain.py`` turns them into sentences. Neither decides anything: what the
policy refuses stays refused, whoever approves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from client.errors import Uninformative
from client.ledger.account import Account
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.ledger import Ledger
from client.oversight import planning
from client.policy import (
    COHORTS,
    PARTS,
    Part,
    answer_bytes,
    granted,
    histogram_bytes,
    joint_bytes,
    objections,
    other_release,
    outline_bytes,
)
from client.site import SiteSettings
from conf.schema.model import is_foreign, permission_of
from tasks import task as tasks
from tasks.machine.language import later, number, say
from tasks.metrics.foresight import Foresight, foresee, validation_patients
from tasks.protocol import encoding
from tasks.protocol import study as studies
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import RANGE_CELLS

if TYPE_CHECKING:
    from tasks.models.network import Network


UNKNOWN_QUESTION = later("unknown to this release")


@dataclass(frozen=True)
class Leaving:
    """What leaves the hospital in one part of a study.

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
    of: Literal["", "range", "findings", "outlines", "answers", "two models", "others' models"] = ""


@dataclass(frozen=True)
class Cost:
    """What one part of a study costs its cohort. All epsilons are at ``delta``; ``None`` means without noise.

    Attributes:
        asked: the study's epsilon.
        granted: the smaller of that and the hospital's cap for one study.
        plan: what the part has had, and what it would get from here on, turn by turn; ``None`` when it would be refused
            as a whole.
        alone: the same with the noise for which ``granted`` would do, if these patients had everything left; it is
            ``plan`` unless little is left for life. ``None`` when no noise would do.
        spent: by all studies so far.
        spent_by_study: by this study so far.
        set_aside: for other studies that have begun and not ended, beside ``spent``.
        after: by all studies, when this one and all that have begun have run to their end.
        cap: the hospital's cap for life.
        refused: why it would be refused as a whole; "" if it would not.
        share: of secure sums, ``plan`` with nothing but this hospital's own share of the noise: what is left if all
            others lie. ``None`` where it adds the whole noise.
        cap_alone: the hospital's cap for that in one study.
    """

    part: Part
    cohort: str
    asked: float | None
    granted: float | None
    delta: float
    plan: list[Mechanism] | None
    alone: list[Mechanism] | None
    spent: float
    spent_by_study: float
    set_aside: float
    after: float | None
    cap: float
    refused: str
    share: list[Mechanism] | None = None
    cap_alone: float | None = None

    @property
    def squeezed(self) -> bool:
        """Whether it gets more noise than it would if these patients had spent nothing yet."""
        return self.plan is not None and self.plan != self.alone


@dataclass(frozen=True)
class Review:
    """A study against a hospital's policy and ledger.

    Attributes:
        question: what the task asks, as a clinician would.
        refused: reasons why the hospital will not answer, whoever approves; by part.
        foresight: how an AUC of this hospital's validation patients would come out; ``None`` where its size is not
            declared, or no scores will leave.
    """

    document: StudyDocument
    digest: str
    question: str
    leaving: list[Leaving]
    costs: list[Cost]
    refused: dict[Part, list[str]]
    foresight: Foresight | None = None


def examine(document: StudyDocument, settings: SiteSettings, ledger: Ledger) -> Review:
    """Check a study against the hospital's policy and ledger."""
    refused = {part: [*other_release(document), *objections(document, part, settings)] for part in PARTS}
    account = ledger.account()
    costs = [_cost(document, part, settings, account) for part in PARTS]
    unpaid = _unpaid(document, costs, refused, account)
    leaving, unknown = _leaving(document, settings)
    refused["training"] += unknown
    for part in PARTS:
        refused[part] += unpaid[part]
        refused[part] += [reason for each in leaving if each.part == part for reason in _too_large(each, settings)]
    question = tasks.get(document.task).question if document.task in tasks.names() else UNKNOWN_QUESTION
    return Review(
        document=document,
        digest=studies.digest(document),
        question=question,
        leaving=leaving,
        costs=costs,
        refused=refused,
        foresight=None if refused["evaluation"] else _foresight(document, settings, costs),
    )


def require_informative(review: Review) -> None:
    """Pass unless the study would most likely yield no AUC of this hospital.

    Raises:
        Uninformative: it would.
    """
    if review.foresight is not None and review.foresight.tells_nothing:
        command = f"consilium-site approve --uninformative {review.digest[:12]}"
        raise Uninformative(
            say(
                "{study} is not approved: its noise would hide which patients here have the finding. The 95 % interval "
                "of an AUC would be about {width} wide, no AUC worth the name; their privacy would be spent on "
                "nothing. Ask the coordinator for fewer evaluations (evaluation.every) or fewer bins "
                "(evaluation.bins); or approve it nevertheless: {command}",
                study=review.document.name,
                width=number(review.foresight.width, ".2f"),
                command=command,
            )
        )


def _foresight(document: StudyDocument, settings: SiteSettings, costs: list[Cost]) -> Foresight | None:
    """By the declared size, not by how many patients there are: whether a study is approved is seen outside."""
    size = settings.public_size
    plan = next(cost.plan or cost.alone for cost in costs if cost.part == "evaluation")
    if size is None or not plan:
        return None
    patients = validation_patients(size, settings.validation_fraction)
    return foresee(patients, document.evaluation.bins, plan[-1].noise_multiplier)


def _network(document: StudyDocument, settings: SiteSettings) -> Network:
    """The study's network; no code of another package is loaded that the policy does not name."""
    from tasks.models import registry
    from tasks.models.weights import in_folder

    if is_foreign(document.model) and permission_of(document.model) not in settings.policy.models:
        raise registry.EntryRefused(say("what would leave is not known: code that policy.models lacks is not loaded"))
    return registry.build(document.model, tasks.get(document.task).form, find=in_folder(settings.weights))


def _leaving(document: StudyDocument, settings: SiteSettings) -> tuple[list[Leaving], list[str]]:
    """What leaves, and why the network cannot be built here if it cannot."""
    from tasks.models import registry
    from tasks.models.parts import NothingToShare, staying

    leaving, wrong = [], []
    try:
        network = _network(document, settings)
        stay = staying(network.trainable, document.method.stays)
        shapes = [p.numel() for name, p in network.trainable.named_parameters() if p.requires_grad and name not in stay]
        size = encoding.largest_size(document.wire.up, sum(shapes))
        leaving.append(Leaving("training", len(shapes), sum(shapes), size, document.asked))
    except (registry.UnknownModel, tasks.UnknownTask, NothingToShare) as error:
        wrong.append(str(error))
    terms = document.evaluation
    leaving.append(Leaving("evaluation", 1, 2 * terms.bins, histogram_bytes(terms, last=False), terms.releases))
    once = partial(Leaving, part="evaluation", times=1)
    if terms.edges == "released":
        leaving.append(once(tensors=1, numbers=RANGE_CELLS, bytes=8 * RANGE_CELLS, of="range"))
    if terms.findings:
        size = len(terms.findings) * histogram_bytes(terms, last=False)
        leaving.append(once(tensors=len(terms.findings), numbers=size // 8, bytes=size, of="findings"))
    if terms.structures:
        size = outline_bytes(terms)
        leaving.append(once(tensors=2 * len(terms.structures), numbers=size // 8, bytes=size, of="outlines"))
    if terms.answers:
        size, tensors = answer_bytes(terms), sum(1 + (each.kind == "classes") for each in terms.answers.values())
        leaving.append(once(tensors=tensors, numbers=size // 8, bytes=size, of="answers"))
    if terms.subgroups:
        size = histogram_bytes(replace(terms, findings=[], structures=[], answers={}), last=True)
        size -= histogram_bytes(terms, last=False)
        levels = tuple(terms.subgroups)
        leaving.append(once(tensors=len(levels), numbers=size // 8, bytes=size, by=levels))
    if terms.paired and (not terms.paired_at or settings.name in terms.paired_at):
        leaving.append(once(tensors=1, numbers=2 * terms.paired**2, bytes=joint_bytes(terms), of="two models"))
    if terms.matrix:
        size = histogram_bytes(terms, last=False)
        cells = 2 * terms.bins
        leaving.append(once(tensors=1, numbers=cells, bytes=size, times=terms.matrix, of="others' models"))
    return leaving, wrong


def _too_large(leaving: Leaving, settings: SiteSettings) -> Iterator[str]:
    if leaving.bytes > settings.policy.max_upload_bytes:
        yield say(
            "{bytes} bytes in one message, policy.max_upload_bytes is {most}",
            bytes=number(leaving.bytes, ","),
            most=number(settings.policy.max_upload_bytes, ","),
        )


def _cost(document: StudyDocument, part: Part, settings: SiteSettings, account: Account) -> Cost:
    terms, cohort, name = granted(document, part, settings), COHORTS[part], document.name
    outlook = planning.outlook(document, part, settings, account)
    had = [entry.mechanism for entry in account.reservations(cohort, name)]
    others = [mechanism for mark in account.earmarks(cohort, without=name) for mechanism in mark.mechanisms]
    to_come = None if outlook.plan is None else [*outlook.plan, *others]
    return Cost(
        part=part,
        cohort=cohort,
        asked=document.privacy.epsilon if part == "training" else document.evaluation.epsilon,
        granted=terms.epsilon,
        delta=terms.delta,
        plan=None if outlook.plan is None else [*had, *outlook.plan],
        alone=None if outlook.alone is None else [*had, *outlook.alone],
        spent=epsilon_of(account.spent(cohort), terms.delta),
        spent_by_study=epsilon_of(account.spent(cohort, name), terms.delta),
        set_aside=epsilon_of(others, terms.delta),
        after=None if to_come is None else epsilon_of([*account.spent(cohort), *to_come], terms.delta),
        cap=settings.policy.max_epsilon_life,
        refused=outlook.why,
        share=_share(outlook, account, cohort, name),
        cap_alone=None if settings.policy.secure_sum is None else settings.policy.secure_sum.max_epsilon_alone,
    )


def _share(outlook: planning.Outlook, account: Account, cohort: str, study: str) -> list[Mechanism] | None:
    if outlook.if_all_conspire is None:
        return None
    return [*(entry.alone for entry in account.reservations(cohort, study)), *outlook.if_all_conspire]


def _unpaid(
    document: StudyDocument, costs: list[Cost], refused: dict[Part, list[str]], account: Account
) -> dict[Part, list[str]]:
    """What cannot be paid for. A study is paid for as a whole, so this refuses the other part too, unless its budget is
    already set aside, it needs no epsilon, or it is refused anyway."""
    reasons: dict[Part, list[str]] = {part: [] for part in PARTS}
    for cost in costs:
        alone = bool(refused[cost.part]) or account.has_planned(cost.cohort, document.name)
        for other in costs if cost.refused else ():
            if other is cost or not (alone or other.granted is None):
                reasons[other.part].append(cost.refused)
    return reasons
