"""Consilium's own names: found again, recognised, and telling nobody anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from client.sources.pacs.own import is_own_series, is_own_uid, own_uid

KEY, OTHER = b"k" * 32, b"o" * 32


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_a_name_is_that_of_what_it_was_made_of(parts: list[str], others: list[str]) -> None:
    name = own_uid(KEY, *parts)
    assert UID(name).is_valid
    assert name == own_uid(KEY, *parts)
    assert (name == own_uid(KEY, *others)) == (parts == others)
    assert name != own_uid(OTHER, *parts), "nobody without the key can compute it from what it names"


@given(st.text(), st.integers(0, (1 << 128) - 1))
def test_own_names_are_recognised_and_others_are_not(part: str, number: int) -> None:
    name = own_uid(KEY, part)
    assert is_own_uid(KEY, name)
    assert not is_own_uid(OTHER, name)
    assert not is_own_uid(KEY, f"2.25.{number}"), "of 2^30 one would be"
    assert not is_own_uid(KEY, f"{name[:-1]}{(int(name[-1]) + 1) % 10}")


def test_what_is_no_name_of_ours_is_no_error() -> None:
    for uid in ("", "1.2.840.1", "2.25.", "2.25.x", "2.25.-1", f"2.25.{1 << 128}", "2.25.1.2", "2.25.²"):
        assert not is_own_uid(KEY, uid)


def test_series_of_older_releases_are_known_by_number_and_description() -> None:
    own = {"Modality": ("SR",), "SeriesNumber": ("9100",), "SeriesDescription": ("NOT FOR CLINICAL USE: lung_ct",)}
    assert is_own_series(KEY, own)
    assert is_own_series(KEY, {"SeriesInstanceUID": (own_uid(KEY, "any"),)})
    assert not is_own_series(KEY, own | {"Modality": ("SEG",)})
    assert not is_own_series(KEY, own | {"SeriesNumber": ("1",)})
    assert not is_own_series(KEY, own | {"SeriesDescription": ("Mamma",)})
    assert not is_own_series(KEY, {})
