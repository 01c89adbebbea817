"""Which updates are named, by lengths."""

from __future__ import annotations

import pytest

from server.strategy.outliers import Sent, named

USUAL = {"ash": Sent(3.2, 3.0, 3.2), "elm": Sent(4.4, 4.0, 4.4), "fir": Sent(5.6, 5.0, 5.6)}


def test_the_usual_is_not_named() -> None:
    assert named(USUAL) == {}
    assert named({}) == {}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (Sent(40.0, 4.0, 40.0), "stands out: length 40, the others' 4.4, its noise alone 4"),
        (Sent(0.9, 4.0, 0.9), "is nothing: length 0.9, its noise alone would have 4"),
        (Sent(0.0, 4.0, 0.0), "is nothing"),
        (Sent(0.0, 0.0, 0.0), "is nothing: length 0"),
        (Sent(60.0, 50.0, 15.0), "was shortened to 25%"),
    ],
)
def test_what_deserves_a_look_is_named(sent: Sent, told: str) -> None:
    found = named({**USUAL, "oak": sent})
    assert found.keys() == {"oak"}
    assert told in found["oak"]


def test_a_large_hospital_with_little_noise_and_a_small_one_with_much_do_not_stand_out() -> None:
    """The wrong version compares lengths in units of a hospital's own noise alone, or lengths alone."""
    assert named({**USUAL, "oak": Sent(3.0, 0.1, 3.0)}) == {}
    assert named({**USUAL, "oak": Sent(40.0, 39.0, 40.0)}) == {}


def test_two_hospitals_cannot_tell_who_stands_out() -> None:
    assert named({"ash": Sent(400.0, 3.0, 400.0), "elm": USUAL["elm"]}) == {}
