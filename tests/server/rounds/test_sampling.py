"""Who is asked, and that nobody is asked more often than the document says, whatever happens in between."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conf import load
from conf.schema.federation import ManifestFederation
from conf.schema.strategy import FedAvg
from conf.schema.study import Study
from server.errors import TooFewHospitals
from server.rounds.sampling import asked_at_most, invited, wanted
from server.rounds.state import RoundRecord
from tests.server import scripted

fractions = st.floats(0.05, 1.0)


def study(rounds: int = 12, participation: float = 1.0, over: float = 0.0, seed: int = 1) -> Study:
    """A study whose configuration does not say who the hospitals are."""
    federation = ManifestFederation(rounds=rounds, participation=participation, over_selection=over)
    return Study(strategy=FedAvg(), federation=federation, seed=seed)


def play(asked: Study, hospitals: list[str]) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    for number in range(1, asked.federation.rounds + 1):
        names = invited(asked, hospitals, records, len(hospitals))
        records.append(RoundRecord(number, 0.0, 0.0, {}, invited=names))
    return records


def names(count: int) -> list[str]:
    return [f"h{number:03d}" for number in range(count)]


def test_all_are_asked_unless_fewer_are_wanted() -> None:
    asked = study(3)
    assert asked_at_most(asked) == 3
    assert [record.invited for record in play(asked, names(5))] == [names(5)] * 3
    assert wanted(asked, 5) == 5


@given(st.integers(1, 40), st.integers(1, 24), fractions, st.floats(0, 0.5))
@example(10, 10, 0.3, 0.0)
@example(3, 7, 1 / 3, 0.0)
@example(16, 24, 0.25, 0.5)
def test_nobody_is_asked_more_often_than_the_document_says(
    hospitals: int, rounds: int, participation: float, over: float
) -> None:
    asked = study(rounds, participation, over)
    most = asked_at_most(asked)
    fraction = min(1.0, participation * (1 + over))
    assert rounds * fraction <= most + 1e-6
    assert most <= rounds
    if hospitals * fraction < 1:  # one must be asked, which is more than the fraction allows
        return
    records = play(asked, names(hospitals))
    counts = Counter(name for record in records for name in record.invited)
    assert max(counts.values()) <= most
    assert len({len(record.invited) for record in records}) == 1
    assert wanted(asked, hospitals) <= len(records[0].invited)
    if rounds * len(records[0].invited) >= hospitals:
        assert max(counts.values()) - min(counts[name] for name in names(hospitals)) <= 1, "turns are fair"


def test_who_is_asked_is_the_same_after_a_restart_and_another_in_another_study() -> None:
    asked = study(8, 0.4)
    records = play(asked, names(10))
    for done in range(8):
        assert invited(asked, names(10), records[:done], 10) == records[done].invited
    other = play(study(8, 0.4, seed=2), names(10))
    assert [record.invited for record in other] != [record.invited for record in records]


def test_a_hospital_that_joins_late_is_asked_first() -> None:
    asked = study(8, 0.5)
    records = play(asked, names(4))[:2]
    assert "new" in invited(asked, [*names(4), "new"], records, 5)


def test_where_hospitals_are_named_whole_ones_are_counted() -> None:
    """Two of the demo's three take part in each round: two rounds of three each, not 2.01."""
    asked = scripted.study("federation.rounds=3", "federation.participation=0.67")
    assert asked_at_most(asked) == 2
    assert {len(record.invited) for record in play(asked, names(3))} == {2}


def test_over_selection_asks_more_and_wants_as_many() -> None:
    asked = study(12, 0.5, 0.5)
    assert asked_at_most(asked) == 9
    assert {len(record.invited) for record in play(asked, names(8))} == {6}
    assert wanted(asked, 8) == 4


@pytest.mark.parametrize(("choice", "turns"), [((), 4), (("federation.participation=0.25",), 3)])
def test_in_cyclic_a_hospital_plans_for_its_own_turns(choice: tuple[str, ...], turns: int) -> None:
    """The demo names its three hospitals; where nobody does, the fraction says how many there are."""
    where = ("federation=busi_blocks", "data_root=x") if choice else ()
    asked = load.load(["strategy=cyclic", "federation.rounds=12", *where, *choice])
    assert asked_at_most(asked) == turns
    assert wanted(asked, 12 // turns) == 1


def test_too_few_hospitals_for_what_the_document_says_is_an_error_before_anyone_is_asked_again() -> None:
    asked = study(12, 0.25)
    records = [RoundRecord(number, 0.0, 0.0, {}, invited=["a", "b"]) for number in (1, 2, 3)]
    with pytest.raises(TooFewHospitals, match=r"3 time\(s\) in 12 rounds"):
        invited(asked, ["a", "b"], records, 2)
