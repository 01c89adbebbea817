"""A first look at where scores lie is paid for with its own, larger noise; no share is kept that nobody asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from client.errors import NotPermitted
from client.ledger.account import Use
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.ledger import Ledger
from client.oversight import planning
from client.policy import COHORTS, granted, permit
from client.site import SiteSettings, secret
from server.study.foresight import noise_of
from tasks.protocol import wire
from tasks.protocol.study import RANGE_NOISE, StudyDocument
from tasks.protocol.wire import EvaluateOrder

Provision = Callable[..., SiteSettings]
COHORT = COHORTS["evaluation"]


@pytest.fixture
def hospital(provision_hospital: Provision) -> SiteSettings:
    return provision_hospital(policy={"max_epsilon_study": 8.0, "max_epsilon_life": 8.5})


def looking(document: StudyDocument, releases: int = 1) -> StudyDocument:
    terms = replace(document.evaluation, edges="released", releases=releases, bins=8, epsilon=4.0)
    return replace(document, evaluation=terms)


def asked(document: StudyDocument, asks: str, round: int) -> EvaluateOrder:
    edges = None if asks == "range" else [n / 8 for n in range(1, 8)]
    return EvaluateOrder(document, round, asks=asks, edges=edges)  # type: ignore[arg-type]


def reserve(order: EvaluateOrder, hospital: SiteSettings) -> Mechanism:
    use = Use(COHORT, order.study.name, order.round, wire.digest(order))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        now = planning.reserve(order, use, granted(order.study, "evaluation", hospital), hospital, ledger)
        ledger.commit(use, b"reply")
    return now if isinstance(now, Mechanism) else now.now


def spent(document: StudyDocument, hospital: SiteSettings) -> float:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        return epsilon_of(ledger.spent(COHORT, document.name), document.privacy.delta)


@pytest.mark.parametrize("releases", [1, 2])
def test_a_look_has_three_times_the_noise_and_everything_is_spent(
    document: StudyDocument, hospital: SiteSettings, releases: int
) -> None:
    study = looking(document, releases)
    first = reserve(asked(study, "range", 1), hospital)
    later = [reserve(asked(study, "scores", number), hospital) for number in range(1, releases + 1)]
    assert first.noise_multiplier == pytest.approx(RANGE_NOISE * later[0].noise_multiplier, rel=1e-3)
    assert len({each.noise_multiplier for each in later}) == 1
    assert spent(study, hospital) == pytest.approx(4.0, rel=0.01)
    assert spent(study, hospital) <= 4.0


def test_the_servers_foresight_has_the_same_noise(document: StudyDocument, hospital: SiteSettings) -> None:
    study = looking(document)
    reserve(asked(study, "range", 1), hospital)
    real = reserve(asked(study, "scores", 1), hospital).noise_multiplier
    delta = granted(study, "evaluation", hospital).delta
    assert noise_of(study.evaluation, delta) == pytest.approx(real, rel=0.01)


def test_a_look_that_a_crash_has_lost_is_charged_and_the_study_goes_on(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    study = looking(document, 2)
    order = asked(study, "range", 1)
    use = Use(COHORT, study.name, 1, wire.digest(order))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        planning.reserve(order, use, granted(study, "evaluation", hospital), hospital, ledger)
    reserve(order, hospital)
    for number in (1, 2):
        reserve(asked(study, "scores", number), hospital)
    assert spent(study, hospital) <= 4.0


def test_a_share_for_a_comparison_is_kept_only_where_it_will_be_asked_for(
    document: StudyDocument, hospital: SiteSettings
) -> None:
    terms = replace(document.evaluation, releases=1, bins=8, epsilon=4.0, paired=4)
    there = replace(document, evaluation=replace(terms, paired_at=[hospital.name]))
    elsewhere = replace(document, name="demo-2", evaluation=replace(terms, paired_at=["another"]))
    plain = replace(document, name="demo-3", evaluation=replace(terms, paired=0))
    noise = {}
    for study in (there, elsewhere, plain):
        with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
            plan = planning.outlook(study, "evaluation", hospital, ledger.account()).plan
        assert plan is not None
        noise[study.name] = plan[-1].noise_multiplier
    assert noise["demo-2"] == noise["demo-3"] < noise["demo-1"]
    order = EvaluateOrder(elsewhere, elsewhere.rounds, asks="paired")
    with pytest.raises(NotPermitted, match="does not ask of"):
        permit(order, hospital)
