"""A survey for the hospital: paid for before anybody is counted, and reviewed in plain words.

Every patient is in one of the two cohorts, and a survey counts both at once with one noise. So it is one mechanism,
entered for each cohort in one transaction, and a patient bears it once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from client.cohort import index
from client.errors import BudgetExhausted
from client.ledger.account import Account, Use
from client.ledger.accounting import Mechanism, epsilon_of, plan_scale
from client.ledger.ledger import Ledger, Planned
from client.oversight import planning
from client.oversight.explain import APART, price
from client.oversight.planning import Need
from client.oversight.review import UNKNOWN_QUESTION, Cost
from client.oversight.settings import every_setting
from client.policy import COHORTS, PARTS, Part, granted_to_survey, objections_to_survey, other_release
from client.site import SiteSettings
from tasks import task as tasks
from tasks.machine.language import joined, later, number, say, say_many
from tasks.metrics.interval import Z
from tasks.protocol import survey as documents
from tasks.protocol import wire
from tasks.protocol.study import PrivacyTerms
from tasks.protocol.survey import INTENSITY, LABEL, SPACING, THICKNESS, WORDS, SurveyDocument
from tasks.protocol.wire import SurveyOrder

_WORDS = WORDS | {LABEL: later("the finding that the task asks for")}


def uses_of(order: SurveyOrder) -> tuple[Use, ...]:
    """The uses of cohorts that a survey is, training patients first."""
    digest = wire.digest(order)
    return tuple(Use(COHORTS[part], order.study.name, order.round, digest) for part in PARTS)


def reserve(order: SurveyOrder, terms: PrivacyTerms, settings: SiteSettings, ledger: Ledger) -> Mechanism:
    """Enter what a survey will use, for both cohorts or for none, and return it: the noise of the stricter one.

    Raises:
        BudgetExhausted: either cohort cannot pay for it; nothing was charged.
        AlreadyAnswered, LedgerBroken: see ``Ledger.planning``.
    """
    uses, survey = uses_of(order), order.study
    with ledger.planning(uses[0]) as account:
        plans = [
            planning.affordable(
                _need(survey), use.cohort, study=survey.name, terms=terms, settings=settings, account=account
            )
            for use in uses
        ]
        mechanism = max((plan[0] for plan in plans), key=lambda plan: plan.noise_multiplier)
        if drowned := _drowned(survey, mechanism, terms):
            raise BudgetExhausted(drowned)
        for use in uses:
            ledger.reserve(use, Planned(mechanism), planning.caps_of(terms, settings))
    return mechanism


def _drowned(survey: SurveyDocument, mechanism: Mechanism, terms: PrivacyTerms) -> str:
    """Why so much noise is not worth what it costs; "" if it is. After an interruption, say, next to nothing is left of
    a survey's own epsilon: an answer would spend it on a number that tells nothing."""
    assert terms.epsilon is not None
    need = _need(survey)
    usual = plan_scale([], need.rate, ahead=need.ahead, epsilon=terms.epsilon, delta=terms.delta)
    more = mechanism.noise_multiplier / usual
    if more <= planning.MOST_NOISE:
        return ""
    return say(
        "so little is left for survey {survey} that it would need {more} times its noise and tell nothing; nothing "
        "was charged. The coordinator can ask a new survey, which these patients' lifetime budget must allow",
        survey=survey.name,
        more=number(more, ".0f"),
    )


def _need(survey: SurveyDocument) -> Need:
    return Need(1.0, [(1.0, len(survey.tables))], 0.0)


@dataclass(frozen=True)
class SurveyReview:
    """A survey against a hospital's policy and ledger.

    Attributes:
        question: what the task asks, as a clinician would.
        costs: for each cohort; ``plan`` has the noise of the stricter one.
        refused: reasons why the hospital will not answer, whoever approves.
        lacking: attributes that an earlier release's ingest has not kept here.
    """

    document: SurveyDocument
    digest: str
    question: str
    costs: list[Cost]
    refused: dict[str, list[str]]
    lacking: list[str]


def examine(survey: SurveyDocument, settings: SiteSettings, ledger: Ledger) -> SurveyReview:
    """Check a survey against the hospital's policy and ledger."""
    account, terms = ledger.account(), granted_to_survey(survey, settings)
    outlooks = {part: _outlook(survey, part, terms, settings, account) for part in PARTS}
    answered = any(entry.committed for entry in account.reservations(COHORTS["training"], survey.name))
    plans = [each.plan for each in outlooks.values() if each.plan]
    stricter = max(plans, key=lambda plan: plan[0].noise_multiplier) if len(plans) == len(PARTS) else None
    unpaid = [] if answered else [each.why for each in outlooks.values() if each.why]
    if stricter is not None and not answered and (drowned := _drowned(survey, stricter[0], terms)):
        unpaid.append(drowned)
    reasons = [*other_release(survey), *objections_to_survey(survey, settings), *dict.fromkeys(unpaid)]
    return SurveyReview(
        document=survey,
        digest=documents.digest(survey),
        question=tasks.get(survey.task).question if survey.task in tasks.names() else UNKNOWN_QUESTION,
        costs=[_cost(survey, part, settings, account, stricter) for part in PARTS],
        refused={"survey": reasons},
        lacking=_lacking(survey, settings),
    )


def _outlook(
    survey: SurveyDocument, part: Part, terms: PrivacyTerms, settings: SiteSettings, account: Account
) -> planning.Outlook:
    return planning.outlook_of(
        _need(survey), COHORTS[part], study=survey.name, terms=terms, settings=settings, account=account
    )


def _cost(
    survey: SurveyDocument, part: Part, settings: SiteSettings, account: Account, plan: list[Mechanism] | None
) -> Cost:
    """What a cohort pays, or has paid; ``plan`` has the noise that both would get."""
    cohort, terms = COHORTS[part], granted_to_survey(survey, settings)
    outlook = _outlook(survey, part, terms, settings, account)
    had = [entry.mechanism for entry in account.reservations(cohort, survey.name)]
    others = [mechanism for mark in account.earmarks(cohort) for mechanism in mark.mechanisms]
    whole = had or plan
    after = None if whole is None else [*account.spent(cohort), *([] if had else whole), *others]
    return Cost(
        part=part,
        cohort=cohort,
        asked=survey.epsilon,
        granted=terms.epsilon,
        delta=terms.delta,
        plan=whole,
        alone=had or outlook.alone,
        spent=epsilon_of(account.spent(cohort), terms.delta),
        spent_by_study=epsilon_of(account.spent(cohort, survey.name), terms.delta),
        set_aside=epsilon_of(others, terms.delta),
        after=None if after is None else epsilon_of(after, terms.delta),
        cap=settings.policy.max_epsilon_life,
        refused=outlook.why,
    )


def _lacking(survey: SurveyDocument, settings: SiteSettings) -> list[str]:
    """Attributes asked for of which no image in the catalog says anything: an ingest before this release kept none."""
    from client.cohort.survey import FACTS  # takes seconds, which who revokes need not wait for

    asked = {name: FACTS[name] for name in (SPACING, THICKNESS) if name in survey.attributes()}
    if not asked or not (settings.catalog / "index.sqlite").exists():
        return []
    issuers = [source.issuer for source in settings.sources if source.task == survey.task]
    with index.opened(settings) as catalog:
        known = {
            key for text in {image.facts for image in catalog.images(survey.task, issuers)} for key in json.loads(text)
        }
    return [name for name, fact in asked.items() if fact not in known]


def words(review: SurveyReview) -> dict[str, list[str]]:
    """The review as sentences, by heading."""
    return {
        say("What the survey asks"): _asked(review),
        say("What leaves this hospital"): _departures(review),
        say("What it costs the patients"): [*(line for cost in review.costs for line in price(cost)), say(APART)],
        say("What the policy says"): _verdict(review),
        say("Every setting in the document"): every_setting(review.document),
    }


def _asked(review: SurveyReview) -> list[str]:
    survey = review.document
    lines = [
        say(
            'The survey {survey} comes before a study of the question: "{question}" (task {task}, version {version}). '
            "Nothing is trained and no image is scored: patients are counted.",
            survey=survey.name,
            question=say(review.question),
            task=survey.task,
            version=survey.task_version,
        ),
        *([say("{who} asks for it, by the coordinator's word.", who=survey.asked_by)] if survey.asked_by else []),
        say("Counted is every patient with an image that keeps the task's contract, by:"),
    ]
    for table in survey.tables:
        cells = [", ".join(_levels(survey, attribute)) for attribute in table]
        lines.append(say("- {attributes}: {cells}.", attributes=joined(map(_named, table)), cells=" / ".join(cells)))
    if INTENSITY in survey.attributes():
        lines.append(
            say("Of brightness, each patient divides one count among the cells by the pixels of all its images.")
        )
    if review.lacking:
        lines.append(
            say(
                "The catalog here lacks this: {attributes}. An earlier release's ingest has not kept it. Everybody "
                "would count as not recorded; run consilium-site ingest first.",
                attributes=joined(map(_named, review.lacking)),
            )
        )
    return lines


def _levels(survey: SurveyDocument, attribute: str) -> Sequence[str]:
    """Names of levels, with the task's words for its classes."""
    if attribute != LABEL or survey.task not in tasks.names():
        return survey.levels(attribute)
    return [say(name.replace("_", " ")) for name in tasks.get(survey.task).classes]


def _named(attribute: str) -> str:
    known = _WORDS.get(attribute)
    return say("the secondary finding {finding}", finding=attribute) if known is None else say(known)


def _departures(review: SurveyReview) -> list[str]:
    tables = review.document.shapes()
    cells = sum(prod(shape) for shape in tables.values())
    plan = next((cost.plan for cost in review.costs if cost.plan), None)
    known = ""
    if plan is not None:
        known = say(
            " Whoever reads a cell knows the number of patients to within about {within}, 19 times in 20.",
            within=number(Z * plan[0].noise_multiplier, ".0f"),
        )
    return [
        say(
            "Once: {tables} of {cells} numbers in all ({bytes} bytes), with noise on every number, also on cells with "
            "nobody in them. No cell is left out for being small: leaving it out would itself tell that it is small."
            "{known}",
            tables=say_many("{n} table", "{n} tables", len(tables)),
            cells=cells,
            bytes=number(8 * cells, ","),
            known=known,
        ),
        say(
            "With them: the survey's name, this hospital's name, and the epsilon spent. If something fails, an error "
            "code without text. Nothing else: no image, no patient name or number."
        ),
    ]


def _verdict(review: SurveyReview) -> list[str]:
    refused = [say("REFUSED: {reason}.", reason=reason) for reason in review.refused["survey"]]
    return refused or [say("The policy permits everything.")]
