"""The words on which shared noise rests have the study's own figures."""

from __future__ import annotations

from server.rounds.state import HospitalRound, RoundRecord
from server.study.trust import notes_on_sums
from tasks.protocol.study import SecureSumTerms

PEERS = {name: " ".join([f"{number:04x}"] * 8) for number, name in enumerate(("alder", "birch", "cedar"))}
TERMS = SecureSumTerms(True, False, 3, 1, 5, 1, PEERS)


def test_without_sums_nothing_is_said() -> None:
    assert notes_on_sums(None, []) == []


def test_both_numbers_and_what_failed_are_told() -> None:
    hospitals = {"alder": HospitalRound(epsilon=7.9, epsilon_alone=12.66), "birch": HospitalRound(epsilon_alone=12.6)}
    records = [RoundRecord(1, 1.0, 0.1, hospitals, void=["attempt 1: cedar: gone"])]
    first, second, third = notes_on_sums(TERMS, records)
    assert "up to 1 hospital(s) acting together, if the other 2 of 3 add the noise" in first
    assert "at most 12.7 for a training patient" in first
    assert "validation" not in first
    assert "cannot be named" in second
    assert third.startswith("1 attempt(s)")
