"""Everyone in turn."""

from __future__ import annotations

import pytest

from server.strategy.cyclic import whose_turn


def test_each_hospital_has_its_turn_in_the_order_of_the_names() -> None:
    turns = [whose_turn(["cedar", "alder", "birch"], round) for round in range(1, 8)]
    assert turns == [["alder"], ["birch"], ["cedar"], ["alder"], ["birch"], ["cedar"], ["alder"]]


@pytest.mark.parametrize("round", [1, 2, 9])
def test_the_order_in_which_they_are_given_does_not_matter(round: int) -> None:
    assert whose_turn(["a", "b", "c"], round) == whose_turn(["c", "a", "b"], round)
