"""What a ledger's rows add up to: who moved is bounded on both sides, what is set aside is nobody else's, what was lost
is charged."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import BudgetExhausted
from client.ledger.account import Use, without_first
from client.ledger.accounting import Mechanism, epsilon_of, gaussian_of
from client.ledger.ledger import Caps, Ledger, Planned
from client.ledger.terms import Terms, differences, may_have_moved
from tests.client.reserving import reserve

SECRET = bytes(range(32))
STEP = Mechanism(4.0, 1.0, 1)
DELTA = 1e-5
CAPS = Caps(100.0, 100.0, DELTA)
TERMS = Terms(0.3, {"chest": ["anne"]}, 8.0, 20.0, 1e-4, 200, False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "ledger.sqlite", SECRET, TERMS) as ledger:
        yield ledger


def _use(cohort: str, study: str = "s1", round: int = 1) -> Use:
    return Use(cohort, study, round, hashlib.sha256(f"{cohort} {study} {round}".encode()).hexdigest())


def _spend(ledger: Ledger, cohort: str, study: str = "s1", round: int = 1) -> None:
    reserve(ledger, _use(cohort, study, round), lambda account: Planned(STEP), CAPS)


def _again(ledger: Ledger) -> Ledger:
    return Ledger.open(ledger._chain.path, SECRET)


def test_what_is_set_aside_is_told_by_cohort_and_without_the_study_that_asks(ledger: Ledger) -> None:
    for study in ("s1", "s2"):
        plan = Planned(STEP, {"train": [replace(STEP, count=2)], "validation": [replace(STEP, count=3)]})
        reserve(ledger, _use("train", study), lambda account, plan=plan: plan, CAPS)
    account = ledger.account()
    found = [(mark.study, mark.cohort, mark.mechanisms) for mark in account.earmarks("train", without="s1")]
    assert found == [("s2", "train", [STEP])], "what its first order has reserved is not set aside any more"
    assert {(mark.study, mark.cohort) for mark in account.earmarks("validation")} == {
        ("s1", "validation"), ("s2", "validation")
    }  # fmt: skip
    assert len(account.earmarks()) == 4
    reserve(ledger, _use("train", "s2", 2), lambda account: Planned(STEP, {"train": [STEP]}), CAPS)
    assert [mark.study for mark in ledger.account().earmarks("train")] == ["s1"], "nothing of s2 is left to set aside"


def test_what_was_lost_counts_in_a_study_that_stood_there_and_goes_on(ledger: Ledger) -> None:
    """Also when it asks again afterwards, and when both charges of the loss count on one side."""
    _spend(ledger, "train")
    lost = {"train": replace(STEP, noise_multiplier=2.0), "validation": replace(STEP, noise_multiplier=3.0)}
    ledger.acknowledge("f" * 64, lost)
    _spend(ledger, "train", round=2)
    _spend(ledger, "train", study="s2")
    assert ledger.spent("train", "s1") == [STEP, lost["train"], STEP]
    assert ledger.spent("train", "s2") == [STEP], "it began later"
    ledger.rebase(replace(TERMS, validation_fraction=0.4))
    assert ledger.spent("train", "s1") == [STEP, *lost.values(), STEP]
    assert ledger.spent("validation") == [STEP, *lost.values(), STEP, STEP]


def test_terms_stand_in_the_first_row_and_come_back(ledger: Ledger) -> None:
    with _again(ledger) as again:
        assert again.account().terms == TERMS
        assert again.head().seq == 0


def test_where_somebody_may_have_moved_everything_before_counts_on_both_sides(ledger: Ledger) -> None:
    _spend(ledger, "train")
    _spend(ledger, "train", "s2")
    _spend(ledger, "validation", "s2")
    assert ledger.rebase(replace(TERMS, validation_fraction=0.9))
    _spend(ledger, "train", "s2", 2)
    with _again(ledger) as again:
        for book in (ledger, again):
            assert book.spent("train") == [STEP] * 4
            assert book.spent("validation") == [STEP] * 3, "what came later counts on its own side"
            assert book.spent("validation", "s1") == [STEP]
            assert book.spent("validation", "s2") == [STEP] * 2
            assert book.spent("train", "s2") == [STEP] * 3
            assert book.account().terms == replace(TERMS, validation_fraction=0.9)


def test_where_nobody_can_have_moved_nothing_is_added_up(ledger: Ledger) -> None:
    _spend(ledger, "train")
    assert not ledger.rebase(replace(TERMS, max_epsilon_life=30.0, issuers={"chest": ["anne"], "head": ["anne"]}))
    assert ledger.spent("validation") == []


@pytest.mark.parametrize(
    ("now", "moves"),
    [
        ({"validation_fraction": 0.31}, True),
        ({"issuers": {"chest": ["ANNE"]}}, True),
        ({"issuers": {"chest": ["anne", "research"]}}, True),
        ({"issuers": {"chest": ["anne"], "head": ["pacs"]}}, True),
        ({"issuers": {"chest": ["anne"], "head": ["anne"]}}, False),
        ({"issuers": {}}, False),
        ({"max_epsilon_life": 1e6}, False),
        ({"max_delta": 1e-3}, False),
        ({"public_size": 100}, False),
    ],
)
def test_who_may_have_moved_follows_from_what_makes_the_split(now: dict[str, object], moves: bool) -> None:
    changed = replace(TERMS, **now)  # type: ignore[arg-type]
    assert may_have_moved(TERMS, changed) == moves
    assert list(differences(TERMS, changed))


def test_an_issuer_that_is_renamed_and_renamed_back_has_moved_people_twice() -> None:
    """What was known once may have been numbered by another one meanwhile."""
    other = replace(TERMS, issuers={"breast_ultrasound": ["ANNE"]})
    assert may_have_moved(TERMS, other)
    assert may_have_moved(other, TERMS)


def test_issuers_that_change_tasks_may_move_people_and_a_new_task_of_a_known_one_does_not() -> None:
    two = replace(TERMS, issuers={"breast_ultrasound": ["a"], "chest_xray": ["b"]})
    assert may_have_moved(two, replace(TERMS, issuers={"breast_ultrasound": ["b"], "chest_xray": ["a"]}))
    assert not may_have_moved(two, replace(TERMS, issuers={**two.issuers, "lung_ultrasound": ["a", "b"]}))


def test_what_has_not_changed_is_not_named() -> None:
    (only,) = differences(TERMS, replace(TERMS, public_size=300))
    assert "public_size" in only


def test_an_issuer_that_comes_back_is_as_one_that_is_new(ledger: Ledger) -> None:
    """Meanwhile its patients may have had other numbers, and been on the other side under them."""
    two = replace(TERMS, issuers={"chest": ["anne", "ben"]})
    assert ledger.rebase(two)
    assert not ledger.rebase(TERMS)
    assert ledger.rebase(two)


def test_what_a_study_has_set_aside_shrinks_as_it_is_used(ledger: Ledger) -> None:
    needed = [Mechanism(4.0, 0.5, 5), Mechanism(3.0, 0.5, 2)]
    reserve(ledger, _use("train"), lambda account: Planned(replace(needed[0], count=2), {"train": needed}), CAPS)
    with _again(ledger) as again:
        assert again.account().earmarked("train", "s1") == [Mechanism(4.0, 0.5, 3), Mechanism(3.0, 0.5, 2)]
        assert again.account().earmarks(without="s1") == []


def test_what_is_set_aside_for_one_study_is_spent_for_all_others(ledger: Ledger) -> None:
    two = [replace(STEP, count=2)]
    caps = Caps(100.0, epsilon_of([replace(STEP, count=3)], DELTA), DELTA)
    reserve(ledger, _use("train", "s1"), lambda account: Planned(STEP, {"train": two}), caps)
    with pytest.raises(BudgetExhausted, match="train: lifetime epsilon would be"):
        reserve(ledger, _use("train", "s2"), lambda account: Planned(STEP, {"train": two}), caps)
    assert ledger.account().entries.keys() == {2}, "whoever is refused has entered nothing"
    reserve(ledger, _use("train", "s1", 2), lambda account: Planned(STEP, {"train": [STEP]}), caps)
    reserve(ledger, _use("train", "s2"), lambda account: Planned(STEP, {"train": [STEP]}), caps)


def test_the_strictest_delta_of_who_has_set_something_aside_holds(ledger: Ledger) -> None:
    """Or another study would take what the first one still needs, and only its own delta would show it."""
    three = replace(STEP, count=3)
    strict = Caps(100.0, epsilon_of([three], 1e-8), 1e-8)
    reserve(ledger, _use("train", "s1"), lambda account: Planned(STEP, {"train": [replace(STEP, count=2)]}), strict)
    loose = Caps(100.0, strict.life, 1e-3)
    two = [replace(STEP, count=2)]
    assert epsilon_of([*two, replace(STEP, count=2)], 1e-3) < loose.life, "at its own delta there would be room"
    with pytest.raises(BudgetExhausted, match="train: lifetime epsilon would be"):
        reserve(ledger, _use("train", "s2"), lambda account: Planned(STEP, {"train": two}), loose)
    reserve(ledger, _use("train", "s1", 2), lambda account: Planned(STEP, {"train": [STEP]}), strict)


def test_what_is_released_is_free_and_planned_anew(ledger: Ledger) -> None:
    needed = {"train": [replace(STEP, count=2)], "validation": [STEP]}
    reserve(ledger, _use("train"), lambda account: Planned(STEP, needed), CAPS)
    assert {mark.cohort for mark in ledger.release("s1")} == {"train", "validation"}
    assert ledger.release("s1") == []
    with _again(ledger) as again:
        assert again.account().earmarks() == []
        assert not again.account().has_planned("validation", "s1")
    reserve(ledger, _use("train", "s1", 2), lambda account: Planned(STEP, {"train": [STEP]}), CAPS)
    assert ledger.account().has_planned("train", "s1")


def test_lost_rows_are_charged_on_both_sides_for_life_and_count_as_seen(ledger: Ledger) -> None:
    _spend(ledger, "train", "before")
    lost, charge = "ab" * 32, gaussian_of(3.0, DELTA)
    assert not ledger.contains(lost)
    ledger.acknowledge(lost, {"train": charge, "validation": charge})
    _spend(ledger, "validation", "after")
    with _again(ledger) as again:
        assert again.contains(lost)
        assert epsilon_of(again.spent("train", "before"), DELTA) > 3, "its rounds may be among what was lost"
        assert again.spent("train") == [STEP, charge]
        assert again.spent("validation") == [charge, STEP]
        assert again.spent("validation", "after") == [STEP], "it began after the loss"


@given(st.floats(0.01, 90), st.sampled_from([1e-4, 1e-6]))
def test_a_charge_is_never_below_its_price(epsilon: float, delta: float) -> None:
    assert epsilon <= epsilon_of([gaussian_of(epsilon, delta)], delta) < 1.01 * epsilon + 0.01


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf, 101.0])
def test_a_charge_that_is_no_price_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        gaussian_of(epsilon, DELTA)


def test_the_largest_charge_that_has_a_price_is_one_hundred() -> None:
    assert 0 < gaussian_of(100.0, DELTA).noise_multiplier < gaussian_of(99.0, DELTA).noise_multiplier


@given(st.lists(st.integers(1, 5), max_size=5), st.integers(0, 30))
def test_what_is_used_first_is_gone_first(counts: list[int], used: int) -> None:
    whole = [Mechanism(float(place + 1), 1.0, count) for place, count in enumerate(counts)]
    each = [m.noise_multiplier for m in whole for _ in range(m.count)]
    assert [m.noise_multiplier for m in without_first(whole, used) for _ in range(m.count)] == each[used:]


def test_a_row_is_found_by_its_hash_only_if_the_key_has_written_it(ledger: Ledger) -> None:
    heads = [ledger.head().hash]
    for round in (1, 2, 3):
        _spend(ledger, "train", round=round)
        heads.append(ledger.head().hash)
    assert all(ledger.contains(head) for head in heads)
    assert not ledger.contains("0" * 64), "what the first row follows is no row"
    forged = (9, "2026-01-01", "reserved", "{}", heads[-1], "cd" * 32)
    ledger._chain.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?, ?)", *forged)
    assert not ledger._chain.contains("cd" * 32)
