"""A study is paid whole or not at all: what an order gets, what others leave, and what a race ends in."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from client.errors import BudgetExhausted, NotPermitted
from client.ledger.account import Use
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.ledger import Caps, Ledger, Planned
from client.oversight import planning
from client.oversight.review import examine
from client.policy import COHORTS, Part, granted
from client.site import SiteSettings, secret
from tasks.protocol import wire
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, StudyDocument
from tasks.protocol.wire import EvaluateOrder, TrainOrder
from tests.client.reserving import reserve

Provision = Callable[..., SiteSettings]
Order = TrainOrder | EvaluateOrder


@pytest.fixture
def hospital(provision_hospital: Provision) -> SiteSettings:
    """Enough for one study and a little more."""
    return provision_hospital(policy={"max_epsilon_study": 8.0, "max_epsilon_life": 8.5})


@pytest.fixture
def tight(provision_hospital: Provision) -> SiteSettings:
    """Enough for one study."""
    return provision_hospital(policy={"max_epsilon_study": 8.0, "max_epsilon_life": 8.01})


def _ask(order: Order, hospital: SiteSettings) -> Mechanism:
    part: Part = "training" if isinstance(order, TrainOrder) else "evaluation"
    use = Use(COHORTS[part], order.study.name, order.round, wire.digest(order))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        mechanism = planning.reserve(order, use, granted(order.study, part, hospital), hospital, ledger).now
        ledger.commit(use, b"reply")
    return mechanism


def _epsilon(hospital: SiteSettings, cohort: str, study: str | None = None) -> float:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        return epsilon_of(ledger.spent(cohort, study), 1e-4)


def _orders(study: StudyDocument) -> list[Order]:
    """As they come: each round is trained and scored."""
    return [kind(study, round) for round in range(1, study.rounds + 1) for kind in (TrainOrder, EvaluateOrder)]


def test_a_part_that_has_had_all_it_asks_for_needs_nothing_more(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    """The wrong version plans nought times, which is no mechanism."""
    for order in _orders(document):
        _ask(order, hospital)
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        for part in ("training", "evaluation"):
            assert planning.outlook(document, part, hospital, ledger.account()).why == ""


def test_the_first_order_sets_both_cohorts_aside_and_nothing_is_left_at_the_end(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    first, *others = _orders(document)
    _ask(first, hospital)
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        assert [mark.cohort for mark in ledger.account().earmarks()] == ["train", "validation"]
    for order in others:
        _ask(order, hospital)
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        assert ledger.account().earmarks() == []
        rows = [row.kind for row in ledger._chain.rows()]
    assert rows.count("planned") == 2, "a study that runs as planned says so once"
    assert 7.8 < _epsilon(hospital, "train") <= 8.0
    assert 3.9 < _epsilon(hospital, "validation") <= 4.0


@pytest.mark.parametrize("began", ["training", "scoring"])
def test_studies_that_race_for_the_last_of_a_life_end_whole_or_cost_nothing(
    document: StudyDocument, tight: SiteSettings, began: str
) -> None:
    racing = [replace(document, name=f"racing-{number}") for number in range(3)]
    turns = [list(order) for order in zip(*(_orders(study) for study in racing), strict=True)]
    if began == "scoring":
        turns = [turns[1], turns[0], *turns[2:]]
    refused: set[str] = set()
    for order in (order for turn in turns for order in turn):
        try:
            _ask(order, tight)
        except BudgetExhausted:
            refused.add(order.study.name)
    assert refused == {"racing-1", "racing-2"}
    for study in refused:
        assert _epsilon(tight, "train", study) == _epsilon(tight, "validation", study) == 0.0
    assert _epsilon(tight, "train", "racing-0") > 7.8
    assert _epsilon(tight, "train") <= 8.01


def test_two_processes_that_race_end_with_one_study_whole(document: StudyDocument, tight: SiteSettings) -> None:
    children = []
    for number in range(2):
        if not (child := os.fork()):
            code = 0
            try:
                for order in _orders(replace(document, name=f"racing-{number}")):
                    _ask(order, tight)
            except BudgetExhausted:
                code = 1
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert sorted(codes) == [0, 1]
    loser = f"racing-{codes.index(1)}"
    assert _epsilon(tight, "train", loser) == _epsilon(tight, "validation", loser) == 0.0


def test_a_study_is_planned_within_what_is_left_and_keeps_that_noise(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    terms = {"privacy": PrivacyTerms(4.0, 1e-4, 0.5), "evaluation": EvaluationTerms(2, 16, 2.0)}
    small = replace(document, name="small", **terms)  # type: ignore[arg-type]
    alone = _noises(small, hospital)
    _ask(_orders(document)[0], hospital)
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        told = examine(small, hospital, ledger).costs[0]
    assert told.plan is not None
    assert told.squeezed
    given = [_ask(order, hospital) for order in _orders(small)]
    assert given[0].noise_multiplier == given[2].noise_multiplier == told.plan[0].noise_multiplier, "as it was told"
    assert given[0].noise_multiplier > alone[0]
    for order in _orders(document)[1:]:
        _ask(order, hospital)
    assert _epsilon(hospital, "train") <= 8.5
    assert _epsilon(hospital, "train", document.name) > 7.8, "and the first one has lost nothing by it"


def _noises(study: StudyDocument, hospital: SiteSettings) -> list[float]:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        cost = examine(study, hospital, ledger).costs[0]
    return [mechanism.noise_multiplier for mechanism in cost.plan or []]


def test_a_study_that_the_rest_of_a_life_would_drown_is_refused_before_it_begins(
    document: StudyDocument, tight: SiteSettings
) -> None:
    _ask(_orders(document)[0], tight)
    late = replace(document, name="late")
    with pytest.raises(BudgetExhausted, match="demo-1 has set some of it aside, which `consilium-site revoke` frees"):
        _ask(_orders(late)[0], tight)
    assert _epsilon(tight, "train", "late") == 0.0
    with Ledger.open(tight.ledger, secret(tight)) as ledger:
        assert examine(late, tight, ledger).refused["training"]
        ledger.release(document.name)
    assert _ask(_orders(late)[0], tight)


@pytest.mark.parametrize(("scores", "answered"), [("noised", False), ("none", True)])
def test_the_other_cohort_counts_too_and_only_where_it_would_be_asked(
    document: StudyDocument, provision_hospital: Provision, scores: str, answered: bool
) -> None:
    """Nobody is trained on for a study that could never be scored, except where nobody is scored anyway."""
    hospital = provision_hospital(policy={"scores": scores, "max_epsilon_study": 8.0, "max_epsilon_life": 8.5})
    spent = Planned(Mechanism(1.0, 1.0, 4))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        reserve(ledger, Use("validation", "earlier", 1, "o"), lambda account: spent, Caps(99.0, 99.0, 1e-4))
    if answered:
        assert _ask(_orders(document)[0], hospital)
    else:
        with pytest.raises(BudgetExhausted, match="validation"):
            _ask(_orders(document)[0], hospital)


def test_a_reservation_that_was_lost_is_paid_by_more_noise_and_set_aside_anew(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        order = TrainOrder(document, 1)
        terms, use = granted(document, "training", hospital), Use("train", document.name, 1, wire.digest(order))
        first = planning.reserve(order, use, terms, hospital, ledger).now
        again = planning.reserve(order, use, terms, hospital, ledger).now
        assert again.noise_multiplier > first.noise_multiplier
        left = ledger.account().earmarked("train", document.name)
        assert left == [again], "one more round, with that noise"
        total = [*ledger.spent("train", document.name), *left]
        assert epsilon_of(total, 1e-4) <= 8.0


def test_a_hospital_is_asked_no_more_often_than_the_study_says(document: StudyDocument, hospital: SiteSettings) -> None:
    once = replace(document, asked=1)
    _ask(TrainOrder(once, 1), hospital)
    with pytest.raises(NotPermitted, match="1 time"):
        _ask(TrainOrder(once, 2), hospital)


def test_without_noise_nothing_is_set_aside(document: StudyDocument, provision_hospital: Provision) -> None:
    hospital = provision_hospital(simulated=True, policy={"without_privacy": True, "scores": "exact"})
    bare = replace(document, privacy=PrivacyTerms(None, 1e-4, 0.5), evaluation=EvaluationTerms(2, 16, None))
    for order in _orders(bare):
        assert _ask(order, hospital).noise_multiplier == 0
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        assert "planned" not in [row.kind for row in ledger._chain.rows()]
