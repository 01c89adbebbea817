"""Trying again: how often, how long, and that it ends."""

from collections.abc import Callable

import pytest

from client.pixels.header import NATIVE
from client.sources.pacs import retry
from client.sources.pacs.fidelity import Fidelity, judge
from client.sources.pacs.retry import Temporary, persistently

RLE, JPEG, PLAIN, BIG = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", found.append)
    return found


def _failing(times: int, wait: float = 0) -> Callable[[], str]:
    left = [times]

    def work() -> str:
        if left[0]:
            left[0] -= 1
            raise Temporary("not now", wait)
        return "done"

    return work


def test_waits_double_and_are_shortened_at_random(waits: list[float]) -> None:
    assert persistently(_failing(9), 10, 1) == "done"
    nominal = [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert all(n / 2 <= wait <= n for wait, n in zip(waits, nominal, strict=True))
    assert len(set(waits)) == 9


def test_the_archive_may_ask_for_a_longer_wait(waits: list[float]) -> None:
    persistently(_failing(1, wait=90), 2, 1)
    assert waits == [90]


def test_it_ends(waits: list[float]) -> None:
    with pytest.raises(Temporary, match="not now"):
        persistently(_failing(3), 3, 1)
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("received", "held", "somewhere", "verdict"),
    [
        (RLE, {RLE}, set(), Fidelity.AS_HELD),
        (PLAIN, {RLE}, set(), Fidelity.TRANSCODED),
        (JPEG, {RLE}, set(), Fidelity.TRANSCODED),
        (JPEG, {PLAIN}, set(), Fidelity.TRANSCODED),
        (PLAIN, {BIG}, set(), Fidelity.REENCODED),
        (PLAIN, {BIG, RLE}, set(), Fidelity.TRANSCODED),
        (PLAIN, set(), set(), Fidelity.UNPROVEN),
        (RLE, set(), set(), Fidelity.UNPROVEN),
        (PLAIN, set(), {RLE}, Fidelity.TRANSCODED),
        (PLAIN, set(), {RLE, PLAIN}, Fidelity.UNPROVEN),
        (RLE, set(), {RLE, PLAIN}, Fidelity.AS_HELD),
        (JPEG, set(), {RLE, PLAIN}, Fidelity.TRANSCODED),
        (PLAIN, set(), {BIG}, Fidelity.REENCODED),
        (PLAIN, {PLAIN}, {RLE}, Fidelity.AS_HELD),
    ],
)
def test_verdicts(received: str, held: set[str], somewhere: set[str], verdict: Fidelity) -> None:
    assert judge(received, frozenset(held), frozenset(somewhere)) is verdict
    assert {PLAIN, BIG} <= NATIVE
