"""A review: the figures are the ledger's and the planner's own, and the words say what the figures say."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from client.errors import Uninformative
from client.ledger.account import Use
from client.ledger.accounting import Mechanism, epsilon_of
from client.ledger.ledger import Caps, Ledger, Planned
from client.oversight.explain import meaning, words
from client.oversight.review import Cost, Review, examine, require_informative
from client.policy import histogram_bytes
from client.site import SiteSettings, secret
from tasks.machine.language import Language, spoken
from tasks.metrics.foresight import foresee
from tasks.models import registry
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, StudyDocument, digest
from tasks.tables import answer_terms
from tasks.task import get
from tests.client.reserving import reserve

Provision = Callable[..., SiteSettings]
NO_CAPS = Caps(math.inf, math.inf, 1e-4)


@pytest.fixture
def hospital(provision_hospital: Provision) -> SiteSettings:
    return provision_hospital()


@pytest.fixture
def ledger(hospital: SiteSettings) -> Iterator[Ledger]:
    with Ledger.open(hospital.ledger, secret(hospital)) as opened:
        yield opened


def _spend(ledger: Ledger, study: str, mechanism: Mechanism, cohort: str = "train") -> None:
    reserve(ledger, Use(cohort, study, 1, f"order of {study}"), lambda account: Planned(mechanism), NO_CAPS)


def test_the_figures_are_those_of_planner_model_and_ledger(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    earlier = Mechanism(2.0, 0.5, 10)
    _spend(ledger, "earlier", earlier)
    review = examine(document, hospital, ledger)
    assert review.digest == digest(document)
    assert review.question == get(document.task).question
    assert review.refused == {"training": [], "evaluation": []}

    training, scoring = review.costs
    assert (training.asked, training.granted, training.delta) == (8.0, 8.0, 1e-4)
    assert training.plan is not None
    assert sum(m.count for m in training.plan) == document.rounds * document.training.steps
    assert 7.8 < epsilon_of(training.plan, 1e-4) <= 8.0, "the noise that keeps the whole study within what is granted"
    assert training.spent == epsilon_of([earlier], 1e-4)
    assert training.after == epsilon_of([earlier, *training.plan], 1e-4)
    assert (scoring.cohort, scoring.asked, scoring.spent) == ("validation", 4.0, 0.0)

    network = registry.build(document.model, get(document.task).form)
    arrays = registry.arrays_of(network.trainable)
    update, histogram = review.leaving
    assert (update.tensors, update.bytes) == (len(arrays), sum(array.nbytes for array in arrays.values()))
    assert (update.times, histogram.times) == (document.rounds, document.evaluation.releases)
    assert histogram.bytes == 2 * 16 * 8


def test_what_the_figures_will_tell_is_said_before_anything_is_spent(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    """By the declared size alone, 200 here, and the noise that the planner has."""
    review = examine(document, hospital, ledger)
    foreseen = review.foresight
    assert foreseen is not None
    assert review.costs[1].plan is not None
    assert foreseen == foresee(86, document.evaluation.bins, review.costs[1].plan[0].noise_multiplier)
    require_informative(review)
    assert any(f"interval about {foreseen.width:.2f} wide" in line for line in _all(review))

    blurred = replace(document, evaluation=replace(document.evaluation, releases=60, bins=64))
    refused = examine(blurred, hospital, ledger)
    assert any("figures that tell nothing" in line for line in _all(refused))
    with pytest.raises(Uninformative, match=r"not approved: .* no AUC.*evaluation\.every.*approve --uninformative"):
        require_informative(refused)
    assert refused.refused == {"training": [], "evaluation": []}, "a person may still decide otherwise"


def test_figures_of_other_answers_are_foreseen_in_the_tasks_own_tables_alone(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    """Other tables than the task's are refused when they are asked for; nothing is said of what they would tell."""
    found = examine(document, hospital, ledger)
    own = answer_terms(get("breast_ultrasound_three"), document.evaluation.bins)
    strange = {"question": replace(own["question"], cells=[5, 5])}
    for answers, told in ((own, True), (strange, False)):
        evaluation = replace(document.evaluation, answers=answers)
        asked = replace(document, task="breast_ultrasound_three", evaluation=evaluation)
        lines = [line for line in _all(replace(found, document=asked)) if "macro AUC would have an interval" in line]
        assert bool(lines) == told


def test_what_the_policy_refuses_or_nobody_declares_foresees_nothing(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    exact = replace(document, evaluation=replace(document.evaluation, epsilon=None, bins=1024))
    undeclared = hospital.model_copy(update={"public_size": None, "simulated": True})
    for review in (examine(exact, hospital, ledger), examine(document, undeclared, ledger)):
        assert review.foresight is None
        require_informative(review)
        assert any("cannot be said" in line for line in _all(review))


def test_other_models_are_told_to_who_approves(document: StudyDocument, hospital: SiteSettings, ledger: Ledger) -> None:
    asked = replace(document, evaluation=replace(document.evaluation, paired=4, matrix=3))
    review = examine(asked, hospital, ledger)
    _, _, joint, others = review.leaving
    assert (joint.numbers, joint.bytes, joint.times) == (32, 256, 1)
    assert (others.numbers, others.bytes, others.times) == (32, 256, 3)
    text = "\n".join(_all(review))
    assert "6 times in all" in text, "two evaluations, one comparison, three models"
    assert "a second model is received" in text
    assert "a histogram of 4 x 4 cells for each" in text
    assert "After the last round, 3 times: another hospital's own model is received" in text


def test_further_findings_and_outlines_are_told_apart(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    terms = replace(document.evaluation, findings=["effusion"], structures=["lesion"])
    review = examine(replace(document, evaluation=terms), hospital, ledger)
    _, _, findings, outlines = review.leaving
    assert (findings.tensors, findings.numbers, findings.times) == (1, 2 * terms.bins, 1)
    assert (outlines.tensors, outlines.numbers, outlines.times) == (2, 3 * terms.bins, 1)
    assert findings.bytes + outlines.bytes == histogram_bytes(terms, last=True) - histogram_bytes(terms, last=False)
    text = "\n".join(_all(review))
    assert "After the last round: the same for effusion" in text
    assert "agreement between the model's and a reader's outlines of lesion" in text


def test_what_this_study_has_spent_is_not_counted_twice(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    fresh = examine(document, hospital, ledger).costs[0]
    assert fresh.plan is not None
    _spend(ledger, document.name, replace(fresh.plan[0], count=document.training.steps))
    begun = examine(document, hospital, ledger).costs[0]
    assert begun.spent == begun.spent_by_study > 0
    assert begun.after == fresh.after


def test_the_stricter_side_sets_the_price(document: StudyDocument, provision_hospital: Provision) -> None:
    hospital = provision_hospital(public_size=5000, policy={"max_epsilon_study": 3.0})
    exact = replace(document, evaluation=EvaluationTerms(2, 16, None))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        review = examine(exact, hospital, ledger)
    training = review.costs[0]
    assert (training.granted, training.delta) == (3.0, 2e-5)
    assert any("epsilon 8 is requested, of which the policy grants 3, at delta 2e-05" in line for line in _all(review))


def test_a_life_that_would_be_overspent_is_told_beforehand(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger
) -> None:
    _spend(ledger, "earlier", Mechanism(0.5, 1.0, 4))
    review = examine(document, hospital, ledger)
    assert (review.costs[0].plan, review.costs[0].after) == (None, None)
    assert "train: lifetime epsilon of 20: epsilon 20 is spent" in review.refused["training"][0]
    assert review.refused["evaluation"] == review.refused["training"], "a study is paid as a whole"


def test_every_reason_stands_in_the_words_once(document: StudyDocument, hospital: SiteSettings, ledger: Ledger) -> None:
    greedy = replace(
        document,
        rounds=500,
        model={"name": "no_such"},
        privacy=PrivacyTerms(None, 1e-4, 0.5),
        evaluation=EvaluationTerms(1, 1024, None),
    )
    said = words(examine(greedy, hospital, ledger))["What the policy says"]
    assert all(line.startswith("REFUSED (") for line in said)
    reasons = ("500 rounds", "policy.models", "training without noise", "exact scores", "1024 cells", "must be one of")
    for part in reasons:
        assert sum(part in line for line in said) == 1, part


def test_a_message_that_is_too_large_is_told(document: StudyDocument, provision_hospital: Provision) -> None:
    hospital = provision_hospital(policy={"max_upload_bytes": 255})
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        refused = examine(document, hospital, ledger).refused
    assert "256 bytes in one message, policy.max_upload_bytes is 255" in refused["evaluation"]


def test_no_noise_is_never_called_protection(document: StudyDocument, provision_hospital: Provision) -> None:
    hospital = provision_hospital(simulated=True, policy={"without_privacy": True})
    bare = replace(document, privacy=PrivacyTerms(None, 1e-4, 0.5))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        _spend(ledger, "earlier", Mechanism(0.0, 1.0, 1), "validation")
        review = examine(bare, hospital, ledger)
    assert review.refused["training"] == []
    assert review.costs[0].plan == [Mechanism(0.0, 0.8, 6)]
    text = "\n".join(_all(review))
    assert "The training patients get no protection" in text
    assert "WITHOUT noise" in text
    assert "epsilon 20 is spent" in text, "whoever was scored without noise has no epsilon left"


@pytest.mark.parametrize(("epsilon", "factor", "weak"), [(0.5, "1.65", False), (3, "20.1", False), (8, "2,981", True)])
def test_epsilon_is_told_as_the_bound_it_is(epsilon: float, factor: str, weak: bool) -> None:
    sentence = meaning(Cost("training", "a", epsilon, epsilon, 1e-4, None, None, 0, 0, 0, None, 20, ""))
    assert f"by a factor of at most {factor}" in sentence
    assert ("a weak promise" in sentence) == weak
    assert "0.0001 even that may fail" in sentence


def _all(review: Review) -> list[str]:
    return [line for lines in words(review).values() for line in lines]


def test_a_schedule_of_noise_is_told_with_the_least_and_the_most(
    document: StudyDocument, provision_hospital: Provision
) -> None:
    hospital = provision_hospital()
    falling = replace(document, training=replace(document.training, final_noise=0.5))
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        review = examine(falling, hospital, ledger)
    plan = review.costs[0].plan
    assert plan is not None
    first, last = (mechanism.noise_multiplier for mechanism in plan)
    assert last == pytest.approx(first / 2, abs=1e-4)
    assert 7.8 < epsilon_of(plan, 1e-4) <= 8.0
    told = " ".join(line for lines in words(review).values() for line in lines)
    assert f"Noise of {last:.2f} to {first:.2f} times the most that one patient can change is added, 6 times" in told


def test_a_study_for_which_little_is_left_is_told_to_get_more_noise(
    document: StudyDocument, provision_hospital: Provision
) -> None:
    hospital = provision_hospital(policy={"max_epsilon_study": 8.0, "max_epsilon_life": 10.0})
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        _spend(ledger, "earlier", Mechanism(1.2, 0.8, 4))
        cost = examine(document, hospital, ledger).costs[0]
        assert cost.plan is not None
        assert cost.alone is not None
        assert cost.squeezed
        assert cost.plan[0].noise_multiplier > cost.alone[0].noise_multiplier
        assert epsilon_of(ledger.spent("train") + cost.alone, 1e-4) > 10, "as it was planned before"
        assert cost.after == epsilon_of(ledger.spent("train") + cost.plan, 1e-4) <= 10


def test_what_others_have_set_aside_is_not_left(document: StudyDocument, provision_hospital: Provision) -> None:
    hospital = provision_hospital(policy={"max_epsilon_study": 8.0, "max_epsilon_life": 9.0})
    other, step = replace(document, name="other"), Mechanism(1.2, 0.8, 3)
    with Ledger.open(hospital.ledger, secret(hospital)) as ledger:
        needed = {"train": [replace(step, count=6)]}
        reserve(ledger, Use("train", "other", 1, "o"), lambda account: Planned(step, needed), Caps(8.0, 9.0, 1e-4))
        cost = examine(document, hospital, ledger).costs[0]
        assert cost.set_aside == epsilon_of([step], 1e-4)
        assert cost.plan is not None
        assert cost.after == epsilon_of([*needed["train"], *cost.plan], 1e-4) <= 9
        assert not examine(other, hospital, ledger).costs[0].set_aside, "its own is its own"
        ledger.release("other")
        freed = examine(document, hospital, ledger).costs[0]
        assert freed.plan is not None
        assert freed.plan[0].noise_multiplier < cost.plan[0].noise_multiplier


@pytest.mark.parametrize(
    ("lang", "asked"),
    [("de", "maligne Läsion?“ (Aufgabe breast_ultrasound"), ("zh", "恶性病灶？”（任务 breast_ultrasound")],
)
def test_a_review_speaks_the_language_asked_for(
    document: StudyDocument, hospital: SiteSettings, ledger: Ledger, lang: Language, asked: str
) -> None:
    many = replace(document, rounds=200, evaluation=replace(document.evaluation, bins=128, subgroups=["age"]))
    english = words(examine(document, hospital, ledger))
    for one in (document, many):
        with spoken(lang):
            said = words(examine(one, hospital, ledger))
        lines = [line for lines in said.values() for line in lines]
        assert asked in lines[0]
        assert len(said) == len(english)
        assert not said.keys() & english.keys()
        assert [line for line in lines if re.search(r"\b(the|of|is|with|which)\b", line)] == []
