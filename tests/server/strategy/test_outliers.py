"""Which updates are named, by lengths."""

from __future__ import annotations

import pytest

from server.strategy.outliers import UpdateLengths, conspicuous

USUAL = {"ash": UpdateLengths(3.2, 3.0, 3.2), "elm": UpdateLengths(4.4, 4.0, 4.4), "fir": UpdateLengths(5.6, 5.0, 5.6)}


def test_the_usual_is_not_conspicuous() -> None:
    assert conspicuous(USUAL) == {}
    assert conspicuous({}) == {}


@pytest.mark.parametrize(
    ("update", "remark"),
    [
        (UpdateLengths(40.0, 4.0, 40.0), "is an outlier: norm 40, the others' 4.4, its noise alone 4"),
        (UpdateLengths(0.9, 4.0, 0.9), "is close to zero: norm 0.9, its noise alone would have 4"),
        (UpdateLengths(0.0, 4.0, 0.0), "is close to zero"),
        (UpdateLengths(0.0, 0.0, 0.0), "is close to zero: norm 0"),
        (UpdateLengths(60.0, 50.0, 15.0), "was shortened to 25%"),
    ],
)
def test_what_deserves_a_look_is_conspicuous(update: UpdateLengths, remark: str) -> None:
    remarks = conspicuous({**USUAL, "oak": update})
    assert remarks.keys() == {"oak"}
    assert remark in remarks["oak"]


def test_a_large_hospital_with_little_noise_and_a_small_one_with_much_do_not_stand_out() -> None:
    """The wrong version compares lengths in units of a hospital's own noise alone, or lengths alone."""
    assert conspicuous({**USUAL, "oak": UpdateLengths(3.0, 0.1, 3.0)}) == {}
    assert conspicuous({**USUAL, "oak": UpdateLengths(40.0, 39.0, 40.0)}) == {}


def test_two_hospitals_cannot_tell_who_stands_out() -> None:
    assert conspicuous({"ash": UpdateLengths(400.0, 3.0, 400.0), "elm": USUAL["elm"]}) == {}
