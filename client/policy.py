"""What the hospital permits: every order is checked here first. A study may ask for less than the caps, never for more.

Privacy only ever gets stricter: of the study's and the hospital's epsilon and delta, the smaller ones apply. Everything
else is granted as requested or refused, with all reasons at once. Nothing is silently lowered: a study that computes
something other than its document says is not the study that was approved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Literal

from client.errors import NotPermitted, OtherRelease
from client.secure_sum import peers
from client.site import SiteSettings, delta_cap
from conf.schema.model import permission_of
from tasks import contract as contracts
from tasks import task as tasks
from tasks.machine.language import later, number, say
from tasks.protocol import encoding
from tasks.protocol.documents import Document
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, SecureSumTerms, StudyDocument, release
from tasks.protocol.subgroups import LEVELS
from tasks.protocol.survey import KNOWN, LABEL, SurveyDocument
from tasks.protocol.wire import CONTROL, RANGE_CELLS, EvaluateOrder, TrainOrder

Part = Literal["training", "evaluation"]
"""The two things a study does with patients: it trains on some and scores the others."""
PARTS: tuple[Part, ...] = ("training", "evaluation")
PART_WORDS: dict[Part, str] = {"training": later("training"), "evaluation": later("evaluation")}
"""What each is called where people read."""
COHORTS: dict[Part, str] = {"training": "train", "evaluation": "validation"}
"""The cohort whose privacy a part spends, as named in the ledger. The two sides of the split are disjoint; a hospital's
tasks are not, so what one task spends counts for every patient of that side."""

_CLASSES = 2
_BYTES_OF_A_CELL = 8


def permit(order: TrainOrder | EvaluateOrder, site: SiteSettings) -> PrivacyTerms:
    """The privacy terms under which the hospital answers: the stricter of request and caps.

    Raises:
        OtherRelease: the study was written for another release of Consilium or another version of the task.
        NotPermitted: the policy refuses it. Either error lists every reason of both kinds.
    """
    part: Part = "training" if isinstance(order, TrainOrder) else "evaluation"
    other = other_release(order.study)
    reasons = other + objections(order.study, part, site) + list(_to_order(order, site))
    if reasons:
        kind = OtherRelease if other else NotPermitted
        raise kind(f"{part} order of study {order.study.name}, round {order.round}: " + "; ".join(reasons))
    return granted(order.study, part, site)


def permit_key(study: StudyDocument, site: SiteSettings) -> None:
    """Pass if the hospital would be part of a study's secure sums.

    Raises:
        OtherRelease, NotPermitted: as ``permit``.
    """
    other = other_release(study)
    reasons = [*other, *_to_study(study, site)]
    if study.secure_sum is None:
        reasons.append("it has no secure sums, so it needs no key for them")
    if reasons:
        kind = OtherRelease if other else NotPermitted
        raise kind(f"order for the sum key of study {study.name}: {'; '.join(reasons)}")


def granted(study: StudyDocument, part: Part, site: SiteSettings) -> PrivacyTerms:
    """The terms of a permitted part. No epsilon means no noise, which ``objections`` accepts only if the policy of a
    simulated hospital does."""
    asked = study.privacy.epsilon if part == "training" else study.evaluation.epsilon
    epsilon = None if asked is None else min(asked, site.policy.max_epsilon_study)
    return replace(study.privacy, epsilon=epsilon, delta=min(study.privacy.delta, delta_cap(site)))


def permit_survey(survey: SurveyDocument, site: SiteSettings) -> PrivacyTerms:
    """The privacy terms under which the hospital answers a survey: as ``permit``.

    Raises:
        OtherRelease, NotPermitted: as ``permit``.
    """
    other = other_release(survey)
    if reasons := other + objections_to_survey(survey, site):
        kind = OtherRelease if other else NotPermitted
        raise kind(f"survey {survey.name}: " + "; ".join(reasons))
    return granted_to_survey(survey, site)


def granted_to_survey(survey: SurveyDocument, site: SiteSettings) -> PrivacyTerms:
    """The terms of a permitted survey: one patient changes each table by 1, and it is never answered without noise."""
    epsilon = min(survey.epsilon, site.policy.max_epsilon_study)
    return PrivacyTerms(epsilon, min(survey.delta, delta_cap(site)), 1.0)


def objections_to_survey(survey: SurveyDocument, site: SiteSettings) -> list[str]:
    """Every reason why the policy refuses a survey, each with the setting that decides it."""
    policy, reasons = site.policy, []
    if survey.task not in policy.tasks:
        reasons.append(_not_a_task(survey.task, site))
    asked = dict.fromkeys(attribute if attribute in KNOWN else LABEL for attribute in survey.attributes())
    if refused := [attribute for attribute in asked if attribute not in policy.surveys]:
        reasons.append(
            say(
                "it counts patients by {attributes}, policy.surveys allows {allowed}",
                attributes=", ".join(refused),
                allowed=", ".join(policy.surveys) or say("none"),
            )
        )
    shapes = survey.shapes().values()
    if (cells := max(prod(shape) for shape in shapes)) > policy.max_bins:
        reasons.append(say("{cells} cells in a table, policy.max_bins is {most}", cells=cells, most=policy.max_bins))
    if (leaving := _BYTES_OF_A_CELL * sum(prod(shape) for shape in shapes)) > policy.max_upload_bytes:
        reasons.append(
            say(
                "its reply would be {bytes} bytes, policy.max_upload_bytes is {most}",
                bytes=leaving,
                most=policy.max_upload_bytes,
            )
        )
    if survey.task in tasks.names():
        known = [finding.name for finding in tasks.get(survey.task).secondary_findings]
        if strange := [finding for finding in survey.findings() if finding not in known]:
            reasons.append(
                say("task {task} has no secondary finding {findings}", task=survey.task, findings=", ".join(strange))
            )
    return reasons


def other_release(study: Document) -> list[str]:
    """Why this release would compute something other than the study's author intended; empty if it would not."""
    reasons = []
    if study.release != release():
        reasons.append(
            say(
                "it was written for Consilium {release}, this is {own}: install the same release",
                release=repr(study.release),
                own=release(),
            )
        )
    if study.task not in tasks.names():
        return reasons
    if (here := tasks.get(study.task).example_version) != study.task_version:
        reasons.append(
            say(
                "task {task} has version {here} here, the study needs {needed}",
                task=study.task,
                here=here,
                needed=study.task_version,
            )
        )
    if contracts.digest_of_task(study.task) != study.contract:
        reasons.append(say("its acquisition contract for {task} differs from this release's", task=study.task))
    return reasons


def objections(study: StudyDocument, part: Part, site: SiteSettings) -> list[str]:
    """Every reason why the policy refuses one part of a study, each with the setting that decides it."""
    own = _to_training(study, site) if part == "training" else _to_evaluation(study.evaluation, site)
    return [*_to_study(study, site), *own]


def _to_study(study: StudyDocument, site: SiteSettings) -> Iterator[str]:
    policy, model = site.policy, permission_of(study.model)
    if study.task not in policy.tasks:
        yield _not_a_task(study.task, site)
    if model not in policy.models:
        yield say(
            "model {model} is not in policy.models ({allowed})", model=repr(model), allowed=", ".join(policy.models)
        )
    if (size := study.sizes.get(site.name)) is not None and site.public_size is not None and size != site.public_size:
        yield say("it counts this hospital with size {size}, public_size is {own}", size=size, own=site.public_size)
    if study.rounds > policy.max_rounds:
        yield say("{rounds} rounds, policy.max_rounds is {most}", rounds=study.rounds, most=policy.max_rounds)
    if study.secure_sum is not None:
        yield from _to_sums(study, study.secure_sum, site)


def _not_a_task(task: str, site: SiteSettings) -> str:
    allowed = ", ".join(site.policy.tasks)
    return say("task {task} is not in policy.tasks ({allowed})", task=repr(task), allowed=allowed)


def _to_sums(study: StudyDocument, sums: SecureSumTerms, site: SiteSettings) -> Iterator[str]:
    """The noise of a sum is agreed by all, so caps that are stricter cannot add to it: they refuse."""
    policy = site.policy.secure_sum
    if policy is None:
        yield say("its hospitals share the noise of secure sums, which needs policy.secure_sum")
        return
    if sums.least_hospitals < policy.least_hospitals:
        yield say(
            "sums of {hospitals} hospitals, policy.secure_sum.least_hospitals is {least}",
            hospitals=sums.least_hospitals,
            least=policy.least_hospitals,
        )
    if sums.colluding < policy.colluding:
        yield say(
            "it allows for {colluding} colluding hospital(s), policy.secure_sum.colluding is {least}",
            colluding=sums.colluding,
            least=policy.colluding,
        )
    yield from peers.objections(study, site)
    if (cap := delta_cap(site)) < study.privacy.delta:
        yield say(
            "shared noise for a delta of {delta}, at most {cap} is granted here",
            delta=number(study.privacy.delta),
            cap=number(cap),
        )
    shared = {
        say("training"): (sums.steps, study.privacy.epsilon),
        say("scores"): (sums.figures, study.evaluation.epsilon),
    }
    for what, (is_sum, epsilon) in shared.items():
        if is_sum and epsilon is not None and epsilon > site.policy.max_epsilon_study:
            yield say(
                "shared noise for an epsilon of {epsilon} in {what}, policy.max_epsilon_study is {cap}",
                epsilon=number(epsilon),
                what=what,
                cap=number(site.policy.max_epsilon_study),
            )


def _to_training(study: StudyDocument, site: SiteSettings) -> Iterator[str]:
    policy, steps = site.policy, study.steps_a_round()
    if steps > policy.max_steps:
        yield say("{steps} steps per round, policy.max_steps is {most}", steps=steps, most=policy.max_steps)
    if (images := study.training.images_per_patient) > policy.max_images_per_patient:
        yield say(
            "{images} images per patient and step, policy.max_images_per_patient is {most}",
            images=images,
            most=policy.max_images_per_patient,
        )
    if study.privacy.epsilon is None and not (site.simulated and policy.without_privacy):
        yield say("it asks for training without noise, policy.without_privacy is false")


def _to_evaluation(terms: EvaluationTerms, site: SiteSettings) -> Iterator[str]:
    policy = site.policy
    if policy.scores == "none":
        yield say("it asks for scores, policy.scores is none")
    elif terms.epsilon is None and not (site.simulated and policy.scores == "exact"):
        yield say("it asks for exact scores, policy.scores is noised")
    if (cells := max(terms.bins, terms.paired**2)) > policy.max_bins:
        yield say("{cells} cells per histogram, policy.max_bins is {most}", cells=cells, most=policy.max_bins)
    if refused := [attribute for attribute in terms.subgroups if attribute not in policy.subgroups]:
        yield say(
            "it asks for figures by {attributes}, policy.subgroups allows {allowed}",
            attributes=", ".join(refused),
            allowed=", ".join(policy.subgroups) or say("none"),
        )


def _to_order(order: TrainOrder | EvaluateOrder, site: SiteSettings) -> Iterator[str]:
    terms = order.study.evaluation
    if getattr(order, "asks", "") == "paired" and terms.paired_at and site.name not in terms.paired_at:
        yield f"a comparison of two models, which the study document does not ask of {site.name}"
    if order.round > order.study.rounds:
        yield f"round {order.round} of {order.study.rounds}"
    leaving, most = _bytes_back(order), site.policy.max_upload_bytes
    if leaving > most:
        yield f"its reply would be {leaving} bytes of tensors, policy.max_upload_bytes is {most}"


def _bytes_back(order: TrainOrder | EvaluateOrder) -> int:
    """An update has as many values as the order's weights; a histogram one float64 for each class and cell; a word of
    a secure sum 8 bytes at most."""
    if isinstance(order, TrainOrder):
        values = sum(array.size for name, array in order.arrays.items() if not name.startswith(CONTROL))
        if order.attempt is not None:
            return values * _BYTES_OF_A_CELL
        return encoding.largest_size(order.study.wire.up, values)
    if order.asks == "paired":
        return joint_bytes(order.study.evaluation)
    if order.asks == "range":
        return RANGE_CELLS * _BYTES_OF_A_CELL
    return histogram_bytes(order.study.evaluation, order.asks == "scores" and order.round == order.study.rounds)


def joint_bytes(terms: EvaluationTerms) -> int:
    """Bytes of the joint histogram of two models' scores."""
    return _CLASSES * terms.paired**2 * _BYTES_OF_A_CELL


def histogram_bytes(terms: EvaluationTerms, last: bool) -> int:
    """Bytes of one evaluation's histograms."""
    scores = terms.bins * _CLASSES * _BYTES_OF_A_CELL
    if not last:
        return scores
    levels = sum(len(LEVELS[attribute]) for attribute in terms.subgroups)
    return scores * (1 + levels + len(terms.findings)) + outline_bytes(terms) + answer_bytes(terms)


def answer_bytes(terms: EvaluationTerms) -> int:
    """Bytes of the tables of questions with other answers than yes or no."""
    tables = sum(answer.cells[0] * answer.cells[1] for answer in terms.answers.values())
    classes = sum(answer.cells[0] for answer in terms.answers.values() if answer.kind == "classes")
    return (tables + classes * _CLASSES * terms.bins) * _BYTES_OF_A_CELL


def outline_bytes(terms: EvaluationTerms) -> int:
    """Bytes of the histograms of Dice, two rows of cells, and of distances, one row."""
    return len(terms.structures) * (_CLASSES + 1) * terms.bins * _BYTES_OF_A_CELL
