"""A server that starts again: what was in flight goes on, what was submitted is not lost, nothing is played twice."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.deployment.federation import Federation, federation, server_command, told, until
from tests.e2e.drills.drill import FAST, SEEN, Seen, check_records, kill_everything, progress, submit

IN_FLIGHT, GO_ON_S = 5, 180.0
ROUNDS = 24  # on a quiet machine the first must not have ended before the last has begun
SUBMITTED = 30


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals; the tests say how long their studies are."""
    with federation(tmp_path_factory.mktemp("reboot"), rounds=12, settings=FAST) as made:
        yield made


def played(made: Federation) -> Counter[str]:
    """How many processes were started for each run."""
    log = (made.home / "logs" / "studies.log").read_text("utf-8", "replace")
    return Counter(re.findall(r"^run (\d+) runs as process", log, re.MULTILINE))


def queue(made: Federation) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(told(server_command("queue", "--home", made.home, "--json")))
    return found


def test_five_studies_in_flight_go_on_after_everything_was_killed(busy: Federation) -> None:
    for seed in range(IN_FLIGHT):
        name = "grace" if seed else "rosalind"  # four of one person
        submit(busy, f"seed={seed}", f"federation.rounds={ROUNDS}", name=name)
    until(lambda: sum(rounds > 0 for _, rounds in progress(busy).values()) == IN_FLIGHT, 400, "all have a round")
    kill_everything(busy)
    before = progress(busy)
    started = time.monotonic()
    busy.up()
    assert {state for state, _ in before.values()} == {"running"}, before
    up = time.monotonic() - started

    def on() -> bool:
        now = progress(busy)
        return all(now[name][1] > rounds for name, (_, rounds) in before.items())

    until(on, GO_ON_S, "every study has another round")
    SEEN.append(Seen("kill -9 of everything, five studies", up, time.monotonic() - started, "each has another round"))
    assert set(played(busy).values()) == {1}, "one process a run"
    until(lambda: {state for state, _ in progress(busy).values()} == {"finished"}, 1200, "all are finished")
    for name in before:
        for hospital in busy.hospitals:
            check_records(hospital, name)


def test_of_thirty_submissions_none_dies_unborn(busy: Federation) -> None:
    earlier = set(progress(busy))
    people = ("rosalind", "grace")  # a person may have twenty that wait
    runs = [submit(busy, f"seed={100 + n}", "federation.rounds=1", name=people[n % 2]) for n in range(SUBMITTED)]
    started = time.monotonic()
    until(lambda: len(queue(busy)["waiting"]) >= SUBMITTED // 2, 60, "the queue is seen")
    assert len(queue(busy)["running"]) <= 5

    def done() -> int:
        return sum(state == "finished" for name, (state, _) in progress(busy).items() if name not in earlier)

    until(lambda: done() >= 3, 400, "some are finished")
    kill_everything(busy)
    busy.up()
    until(lambda: done() == SUBMITTED, 1500, "all are finished")
    SEEN.append(Seen("30 submissions, everything killed", 0.0, time.monotonic() - started, "all finished"))
    assert {state for name, (state, _) in progress(busy).items() if name not in earlier} == {"finished"}
    assert queue(busy)["waiting"] == []
    for run in runs:
        while "again" in (facts := json.loads((busy.home / "runs" / f"{run}.json").read_text())):
            run = facts["again"]
        assert facts["study"] in progress(busy)
