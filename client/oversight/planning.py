"""How a study is paid for: planned as a whole, on both cohorts, before its first order costs anything.

The plan takes the least noise with which everything a study still needs stays within its own epsilon and within its
patients' lifetime budget, after what was spent and what other studies have set aside. If little is left, the study gets
more noise; if that noise would drown the signal, the study is refused before it begins. Reviews and orders are planned
by the same code. Where hospitals share the noise of a sum, the study has it or is refused (``shared_noise.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from client.errors import BudgetExhausted, NotPermitted
from client.ledger import accounting
from client.ledger.account import Account, LedgerEntry, Use
from client.ledger.accounting import Ahead, Mechanism
from client.ledger.ledger import Caps, Ledger, Planned, require_within
from client.oversight import shared_noise
from client.policy import COHORTS, PARTS, Part, granted, objections
from client.site import SiteSettings
from tasks.machine.language import number, say
from tasks.protocol.study import RANGE_NOISE, PrivacyTerms, SecureSumTerms, StudyDocument
from tasks.protocol.wire import Asks, EvaluateOrder, TrainOrder

MOST_NOISE = 10.0
"""Most noise, as a multiple of what the study's own epsilon needs. Beyond it only noise would leave, and the rest of
the lifetime budget would be spent on nothing."""


@dataclass(frozen=True)
class Need:
    """What a part of a study, or a survey, still needs of its cohort: noise factors with counts, at this sampling rate.

    Attributes:
        tried: the scale with which the last order was planned; 0 for none.
    """

    rate: float
    ahead: Sequence[Ahead]
    tried: float


@dataclass(frozen=True)
class Outlook:
    """How a part of a study would be planned now.

    Attributes:
        alone: what it still needs, with the least noise for its own epsilon; ``None`` when no noise would do.
        plan: with the noise that it would get, more than that where little is left for life; ``None`` when it would be
            refused as a whole.
        why: it would be refused; "" if it would not.
        if_all_conspire: of secure sums, ``plan`` with this hospital's own noise only; ``None`` where there are none.
    """

    alone: list[Mechanism] | None
    plan: list[Mechanism] | None
    why: str
    if_all_conspire: list[Mechanism] | None = None


def reserve(
    order: TrainOrder | EvaluateOrder, use: Use, terms: PrivacyTerms, settings: SiteSettings, ledger: Ledger
) -> Planned:
    """Reserve what an order will use, and return it. A study's first order sets aside everything the study needs.

    A reservation that was lost to a crash stays spent, so the rest gets more noise: in the last round nothing but what
    planning has left over pays for a second one, and the noise is several times the usual (``client/PRIVACY.md`` has
    figures).

    Raises:
        BudgetExhausted: the study cannot be paid to its end.
        NotPermitted: the study asks each hospital for fewer rounds.
        AlreadyAnswered, TagUsed, LedgerBroken: see ``Ledger.planning``.
    """
    with ledger.planning(use) as account:
        planned = _planned(order, terms, settings, account)
        ledger.reserve(use, planned, caps_of(terms, settings))
    return planned


def caps_of(terms: PrivacyTerms, settings: SiteSettings) -> Caps:
    """Caps for one study and for life; infinite without noise, which only a simulated hospital's policy allows."""
    if terms.epsilon is None:
        return Caps(float("inf"), float("inf"), terms.delta)
    policy, sums = settings.policy, settings.policy.secure_sum
    if sums is None:  # then sums of earlier days count as if all others had conspired
        return Caps(terms.epsilon, policy.max_epsilon_life, terms.delta, terms.epsilon, policy.max_epsilon_life)
    alone = (sums.max_epsilon_alone, sums.max_epsilon_alone_life)
    return Caps(terms.epsilon, policy.max_epsilon_life, terms.delta, *alone)


def outlook(document: StudyDocument, part: Part, settings: SiteSettings, account: Account) -> Outlook:
    """How a part of a study would be planned if its next order came now."""
    terms, cohort = granted(document, part, settings), COHORTS[part]
    if (sums := shared_noise.sums_of(document, part)) is not None:
        return _outlook_of_sums(document, part, sums, settings, account)
    need = _still_needed(document, part, account.reservations(cohort, document.name), settings.name)
    if terms.epsilon is None:
        plan = accounting.sequence(0.0, need.rate, need.ahead)
        return Outlook(plan, plan, "")
    return outlook_of(need, cohort, study=document.name, terms=terms, settings=settings, account=account)


def outlook_of(
    need: Need, cohort: str, study: str, terms: PrivacyTerms, settings: SiteSettings, account: Account
) -> Outlook:
    """How a need of a cohort would be planned if it came now; the terms have an epsilon."""
    assert terms.epsilon is not None
    alone: list[Mechanism] | None = None
    try:
        alone = _within(
            need, account.spent(cohort, study), terms.epsilon, terms.delta, say("{cohort}: this study", cohort=cohort)
        )
        return Outlook(
            alone, affordable(need, cohort, study=study, terms=terms, settings=settings, account=account), ""
        )
    except BudgetExhausted as error:
        return Outlook(alone, None, str(error))


def _outlook_of_sums(
    document: StudyDocument, part: Part, sums: SecureSumTerms, settings: SiteSettings, account: Account
) -> Outlook:
    terms, use, plan = granted(document, part, settings), (COHORTS[part], document.name), None
    try:
        plan = shared_noise.plan(document, part, sums, account)
        require_within(account, use, plan.ahead, plan.ahead_alone, caps_of(terms, settings))
        return Outlook(plan.ahead, plan.ahead, "", plan.ahead_alone)
    except BudgetExhausted as error:
        return Outlook(None if plan is None else plan.ahead, None, str(error))


def _planned(
    order: TrainOrder | EvaluateOrder, terms: PrivacyTerms, settings: SiteSettings, account: Account
) -> Planned:
    study, part = order.study, PARTS[isinstance(order, EvaluateOrder)]
    if (sums := shared_noise.sums_of(study, part)) is not None:
        own = shared_noise.planned(order, part, sums, account)
        others, alone = _other_part(study, part, settings, account)
        return replace(own, needed=own.needed | others, needed_alone=own.needed_alone | alone)
    entries = account.reservations(COHORTS[part], study.name)
    if isinstance(order, TrainOrder):
        need = _training(study, _turn(study, order.round, [e.use.round for e in entries]), entries)
        count = study.steps_a_round()
    else:
        count = study.evaluation.histograms(order.round == study.rounds) if order.asks == "scores" else 1
        need = _scoring(study, entries, settings.name, count, order.asks)
    if not need.ahead:
        raise NotPermitted(f"round {order.round}: the study asks each hospital at most {study.asked} time(s)")
    if terms.epsilon is None:
        return Planned(Mechanism(0.0, need.rate, count))
    needed = affordable(need, COHORTS[part], study=study.name, terms=terms, settings=settings, account=account)
    now = Mechanism(needed[0].noise_multiplier, need.rate, count)
    others, alone = _other_part(study, part, settings, account)
    return Planned(now, {COHORTS[part]: needed, **others}, needed_alone=alone)


Needs = dict[str, list[Mechanism]]
"""By cohort."""


def _other_part(study: StudyDocument, part: Part, settings: SiteSettings, account: Account) -> tuple[Needs, Needs]:
    """What the study needs of the other cohort, and of secure sums what it needs if all other hospitals conspire;
    nothing if that is set aside already or would be refused anyway."""
    other = PARTS[1 - PARTS.index(part)]
    cohort, terms = COHORTS[other], granted(study, other, settings)
    if terms.epsilon is None or account.has_planned(cohort, study.name) or objections(study, other, settings):
        return {}, {}
    if (sums := shared_noise.sums_of(study, other)) is not None:
        plan = shared_noise.plan(study, other, sums, account)
        require_within(account, (cohort, study.name), plan.ahead, plan.ahead_alone, caps_of(terms, settings))
        return {cohort: plan.ahead}, {cohort: plan.ahead_alone}
    need = _still_needed(study, other, account.reservations(cohort, study.name), settings.name)
    if not need.ahead:
        return {}, {}
    needed = affordable(need, cohort, study=study.name, terms=terms, settings=settings, account=account)
    if account.has_sums(cohort):
        require_within(account, (cohort, study.name), needed, None, caps_of(terms, settings))
    return {cohort: needed}, {}


def _still_needed(study: StudyDocument, part: Part, entries: list[LedgerEntry], hospital: str) -> Need:
    """What a part still needs, whichever round comes next."""
    if part == "training":
        return _training(study, len({e.use.round for e in entries}) + 1, entries)
    return _scoring(study, entries, hospital)


def _training(study: StudyDocument, turn: int, entries: list[LedgerEntry]) -> Need:
    """All rounds from this turn on, each with the noise its schedule sets."""
    rounds = [entry.use.round for entry in entries]
    last = study.training.noise_in(_turn(study, rounds[-1], rounds[:-1]), study.asked) if rounds else 1.0
    tried = accounting.scale_of(entries[-1].mechanism.noise_multiplier, last) if entries else 0.0
    return Need(study.training.sample_rate, study.noise_ahead(turn), tried)


def _scoring(
    study: StudyDocument, entries: list[LedgerEntry], hospital: str, reserving: int = 0, asks: Asks | None = None
) -> Need:
    """All histograms that are still to leave. A first look has more noise; it comes before everything else, so it is
    what stands first in the ledger. Without an order it is still to come where nothing has left."""
    terms = study.evaluation
    looks = {entries[0].use.order_digest} if terms.edges == "released" and entries else set()
    had = [entry for entry in entries if entry.use.order_digest not in looks]
    looking = asks == "range" or (asks is None and terms.edges == "released" and not entries)
    least = 0 if asks == "range" else reserving
    left = max(least, terms.histograms_at(hospital) - sum(entry.mechanism.count for entry in had))
    ahead = [*([(RANGE_NOISE, 1)] if looking else []), *([(1.0, left)] if left > 0 else [])]
    if not entries:
        return Need(1.0, ahead, 0.0)
    factor = RANGE_NOISE if entries[-1].use.order_digest in looks else 1.0
    return Need(1.0, ahead, accounting.scale_of(entries[-1].mechanism.noise_multiplier, factor))


def _turn(study: StudyDocument, round: int, before: list[int]) -> int:
    return study.turn(round, len(set(before) - {round}))


def affordable(
    need: Need, cohort: str, study: str, terms: PrivacyTerms, settings: SiteSettings, account: Account
) -> list[Mechanism]:
    """What is needed, with the least noise that stays within the study's epsilon and the lifetime budget.

    Raises:
        BudgetExhausted: no noise would do, or only one that drowns what is asked.
    """
    assert terms.epsilon is not None
    if not need.ahead:
        return []
    spent, earmarks = account.spent(cohort, study), account.earmarks(cohort, without=study)
    alone = _within(need, spent, terms.epsilon, terms.delta, say("{cohort}: study {study}", cohort=cohort, study=study))
    of_life = [*account.spent(cohort), *(mechanism for mark in earmarks for mechanism in mark.mechanisms)]
    if of_life == spent:  # then a study's cap, which is no larger than a life's, has said all
        return alone
    cap, delta = settings.policy.max_epsilon_life, min([terms.delta, *(mark.delta for mark in earmarks)])
    if accounting.epsilon_of([*of_life, *alone], delta) <= cap:
        return alone
    named = ", ".join(sorted({mark.study for mark in earmarks}))
    hint = ""
    if named:
        hint = say("; {studies} has set some of it aside, which `consilium-site revoke` frees", studies=named)
    what = say("{cohort}: lifetime epsilon of {cap}{hint}", cohort=cohort, cap=number(cap), hint=hint)
    within = _within(need, of_life, cap, delta, what)
    more = within[0].noise_multiplier / alone[0].noise_multiplier
    if more > MOST_NOISE:
        raise BudgetExhausted(
            say(
                "{cohort}: so little is left of the lifetime epsilon of {cap} that study {study} would need {more} "
                "times its noise and learn nothing: it is refused as a whole, and nothing was charged{hint}",
                cohort=cohort,
                cap=number(cap),
                study=study,
                more=number(more, ".0f"),
                hint=hint,
            )
        )
    return within


def _within(need: Need, spent: list[Mechanism], epsilon: float, delta: float, what: str) -> list[Mechanism]:
    if not need.ahead:
        return []
    try:
        scale = accounting.plan_scale(
            spent, need.rate, ahead=need.ahead, epsilon=epsilon, delta=delta, tried=need.tried
        )
    except BudgetExhausted as error:
        raise BudgetExhausted(f"{what}: {error}") from None
    return accounting.sequence(scale, need.rate, need.ahead)
