"""One noise for all from the document alone, and two accounts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from client.ledger.accounting import epsilon_of
from client.ledger.ledger import Ledger
from client.oversight import shared_noise
from client.oversight.explain import words
from client.oversight.review import examine
from client.secure_sum import own_key
from client.site import SiteSettings, secret
from tasks.machine.disk import private_folder
from tasks.protocol import enrolment
from tasks.protocol.study import EvaluationTerms, SecureSumTerms, StudyDocument

PEERS = {name: " ".join([f"{number:04x}"] * 8) for number, name in enumerate(("alder", "birch"), start=1)}
POLICY = {
    "secure_sum": {
        "peers": list(PEERS.values()),
        "max_epsilon_alone": 30.0,
        "max_epsilon_alone_life": 60.0,
    }
}


@pytest.fixture
def hospital(provision_hospital: Callable[..., SiteSettings]) -> SiteSettings:
    settings = provision_hospital(policy=POLICY)
    own_key.write_deputy(private_folder(settings.link), enrolment.new_key())
    return settings


@pytest.fixture
def shared(document: StudyDocument, hospital: SiteSettings) -> StudyDocument:
    peers = PEERS | {hospital.name: own_key.fingerprint(hospital)}
    return replace(
        document,
        rounds=20,
        asked=20,
        training=replace(document.training, steps=1, sample_rate=0.4),
        evaluation=EvaluationTerms(2, 16, 4.0),
        sizes=dict.fromkeys(peers, 200),
        secure_sum=SecureSumTerms(True, True, 3, 1, 4, 1, peers),
    )


def test_all_steps_and_spare_attempts_fit_the_studys_epsilon_and_little_is_left(
    shared: StudyDocument, hospital: SiteSettings
) -> None:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        for part, count, epsilon in (("training", 24, 8.0), ("evaluation", 3, 4.0)):
            terms = shared_noise.sums_of(shared, part)  # type: ignore[arg-type]
            assert terms is not None
            plan = shared_noise.plan(shared, part, terms, ledger.account())  # type: ignore[arg-type]
            assert sum(mechanism.count for mechanism in plan.ahead) == count
            assert 0.97 * epsilon < epsilon_of(plan.ahead, 1e-4) <= epsilon
            assert epsilon_of(plan.ahead_alone, 1e-4) > epsilon_of(plan.ahead, 1e-4)


def test_the_noise_is_the_same_whatever_the_hospitals_own_books_say(
    shared: StudyDocument, document: StudyDocument, hospital: SiteSettings
) -> None:
    """The wrong version plans with what one hospital has left, and the others rely on it in vain."""
    assert shared_noise.noise_of(shared, "training") == shared_noise.noise_of(replace(shared, name="x"), "training")
    without = replace(shared.secure_sum, steps=False) if shared.secure_sum else None
    assert shared_noise.sums_of(replace(shared, secure_sum=without), "training") is None


def test_the_review_tells_both_numbers_and_whom_they_rest_on(shared: StudyDocument, hospital: SiteSettings) -> None:
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        reviewed = examine(shared, hospital, ledger)
    assert reviewed.refused == {"training": [], "evaluation": []}
    training = reviewed.costs[0]
    assert training.share is not None
    told = " ".join(words(reviewed)["Whom that rests on"])
    assert "epsilon 8 against the coordinator and up to 1 other hospital(s)" in told
    assert f"would still have epsilon {epsilon_of(training.share, training.delta):.2f}" in told
    leaves = " ".join(words(reviewed)["What leaves this hospital"])
    assert "masked" in leaves
    every = words(reviewed)["Every setting in the document"]
    assert any(PEERS["birch"] in line for line in every), "the fingerprints to compare"


def test_without_the_policy_the_review_says_what_it_needs(
    shared: StudyDocument, provision_hospital: Callable[..., SiteSettings], hospital: SiteSettings
) -> None:
    settings = hospital.model_copy(update={"policy": hospital.policy.model_copy(update={"secure_sum": None})})
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        reviewed = examine(shared, settings, ledger)
    assert any("policy.secure_sum" in reason for reason in reviewed.refused["training"])
