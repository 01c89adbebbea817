"""Requests are held back as the hospital wishes."""

from __future__ import annotations

from datetime import datetime

import pytest

from client.sources.pacs.pace import Pace


def test_there_are_at_most_so_many_requests_per_second() -> None:
    slept: list[float] = []
    pace = Pace(10, sleep=slept.append)
    for _ in range(5):
        pace.wait()
    assert len(slept) >= 4
    assert 0.3 < slept[-1] <= 0.5, "since nobody really slept, each waits for all before it"
    Pace(None, sleep=slept.append).wait()
    assert len(slept) <= 5


@pytest.mark.parametrize(
    ("hours", "now", "may"),
    [
        ("", "12:00", True),
        ("20:00-06:00", "21:15", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "06:00", False),
        ("20:00-06:00", "12:00", False),
        ("01:00-05:00", "01:00", True),
        ("01:00-05:00", "05:00", False),
    ],
)
def test_images_are_retrieved_at_the_hours_that_are_set(hours: str, now: str, may: bool) -> None:
    clock = datetime.fromisoformat(f"2026-11-30T{now}")
    assert Pace(None, hours, clock=lambda: clock).may_retrieve() is may
