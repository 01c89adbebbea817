"""The checklist as a whole and as a page."""

from __future__ import annotations

from tasks.machine.checklist import Claim, ClaimState, count, page, worst

GOOD, ODD = (
    Claim("it is so", ClaimState.OK, "seen"),
    Claim("it might be", ClaimState.WARN, "half", "mend it", "ls <here>"),
)
BAD = Claim("it is not", ClaimState.FAIL, "nothing")


def test_it_is_as_bad_as_its_worst_claim() -> None:
    assert worst({"a": [GOOD]}) is ClaimState.OK
    assert worst({"a": [GOOD], "b": [ODD]}) is ClaimState.WARN
    assert worst({"a": [BAD, ODD], "b": [GOOD]}) is ClaimState.FAIL


def test_it_counts_in_words() -> None:
    assert count({"a": [GOOD, GOOD]}) == "2 of 2 claims hold"
    assert count({"a": [GOOD, ODD], "b": [BAD]}) == "1 of 3 claims hold, 1 to check, 1 failed"


def test_the_page_shows_all_of_it_and_fetches_nothing() -> None:
    text = page("St. Anne <1>", "A subtitle.", {"Secrets": [GOOD, ODD], "Doors": [BAD]}, ["the weather"])
    for word in ("St. Anne &lt;1&gt;", "Secrets", "Doors", "it might be", "mend it", "ls &lt;here&gt;", "the weather"):
        assert word in text
    assert "default-src 'none'" in text
    assert not any(word in text for word in ("http://", "https://", "<script", "src="))
