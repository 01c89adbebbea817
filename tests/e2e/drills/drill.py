"""One drill: a study begins, something breaks at a moment that nobody chose, and the study must end nevertheless."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from client.ledger.records import open_records
from client.oversight.approvals import decisions
from client.site import load, secret
from conf import load as conf
from conf.schema.runtime import SuperlinkRuntime
from server.deployment import superlink_client
from server.study.folder import committed
from tests.e2e.deployment.federation import SMALL, Federation, Hospital, Process, until

STEADY = 3
"""Rounds of a study."""
FAST = (*SMALL, "evaluation.every=3", "federation.patience_s=150", "federation.deadline_s=240", "federation.quorum=0.5")
PATIENT_S = 420


@dataclass(frozen=True)
class Seen:
    """What a drill showed: seconds until somebody noticed, and until the next round was committed."""

    drill: str
    noticed_s: float
    recovered_s: float
    how: str


SEEN: list[Seen] = []
_seed = iter(range(1000, 10_000))


@dataclass
class Running:
    """A study that runs, and what was committed when something broke."""

    federation: Federation
    process: Process
    before: int = 0
    broke: float = 0.0

    def break_now(self) -> None:
        """Note the moment."""
        self.before, self.broke = len(self.federation.rounds()), time.monotonic()

    def noticed(self, holds: Callable[[], object], what: str, seconds: float = 120) -> float:
        until(holds, seconds, what)
        return time.monotonic() - self.broke

    def recovered(self) -> float:
        """Seconds until the next round is committed."""
        until(lambda: len(self.federation.rounds()) > self.before, PATIENT_S, "another round is committed")
        return time.monotonic() - self.broke


@contextmanager
def study(federation: Federation, *words: str, after: int | None = None, rounds: int = STEADY) -> Iterator[Running]:
    """A study of its own, given once a random number of rounds is committed and a random while has passed.

    When the block ends the study must end well, with every round committed once and every ledger in order.
    """
    seed = next(_seed)
    chance = random.Random(seed)
    process = federation.study(f"seed={seed}", *words)
    wanted = chance.randrange(rounds) if after is None else after
    running = Running(federation, process)

    def begun() -> bool:
        assert process.running(), process.text()[-3000:]
        facts = federation.facts()
        mine = facts.get("config", {}).get("seed") == seed
        return mine and facts.get("state") == "running" and len(federation.rounds()) >= wanted

    try:
        until(begun, PATIENT_S, f"the study has {wanted} rounds")
        time.sleep(chance.uniform(0, 4))
        yield running
        code = process.wait(PATIENT_S)
        assert code == 0, process.text()[-4000:]
        assert [one["number"] for one in federation.rounds()] == list(range(1, rounds + 1))
        for hospital in federation.hospitals:
            check_records(hospital, str(federation.facts()["study"]))
    finally:
        process.end()


def check_records(hospital: Hospital, name: str) -> None:
    """Ledger and audit log verify, and no order was committed twice."""
    settings = load(hospital.site)
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        assert records.verify() == []
        committed = Counter(
            (entry.use.cohort, entry.use.round)
            for entry in records.ledger.entries()
            if entry.use.study == name and entry.committed is not None
        )
        documents = {one.document for one in decisions(records.audit_log, settings).values() if one.study == name}
    scored = [use for use in committed if use[0] == "validation"]
    if scored and "released" in {json.loads(document)["evaluation"]["edges"] for document in documents}:
        # The first round that is scored asks twice: at first where scores lie, for the bins of all that follow. A
        # hospital that is revoked in between answers once, one that was away before is never scored.
        first = committed.pop(min(scored))
        assert first in (1, 2), first
    assert all(number == 1 for number in committed.values()), committed


def kill(pid: int | None, number: int = signal.SIGKILL) -> None:
    """Kill one process, by its id."""
    assert pid is not None
    os.kill(pid, number)


def children(pid: int) -> list[int]:
    """Processes that this process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after[1]) == pid and after[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def everything(pid: int) -> list[int]:
    """A process and all that it has started, directly or not."""
    return [pid, *(below for child in children(pid) for below in everything(child))]


def kill_everything(federation: Federation) -> None:
    """kill -9 of every process of the server at once, so that nobody ends in order."""
    assert federation.server is not None
    for pid in everything(federation.server.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    federation.server.kill()


def progress(federation: Federation) -> dict[str, tuple[str, int]]:
    """State and committed rounds of every study, by name."""
    found = {}
    for path in (federation.home / "studies").glob("*/study.json"):
        with suppress(OSError, ValueError):
            found[path.parent.name] = (json.loads(path.read_text()).get("state", ""), committed(path.parent))
    return found


def submit(federation: Federation, *words: str, name: str = "rosalind") -> int:
    """A study, submitted and signed as ``consilium`` does, without its seconds of imports. Returns its run."""
    me = federation.researcher(name)
    fixed = (
        "experiment=deployed", f"runtime.address=localhost:{federation.researchers_port}",
        f"runtime.authority={federation.home / 'pki' / 'authority.crt'}", f"runtime.certificate={me}",
    )  # fmt: skip
    study = conf.load([*fixed, *federation.settings, *words])
    assert isinstance(study.runtime, SuperlinkRuntime)
    return superlink_client.submit(study, study.runtime)


def restarts(state: Path, program: str) -> int:
    """How often a supervisor has started a program."""
    try:
        return int(json.loads(state.read_text("utf-8"))[program]["starts"])
    except (OSError, ValueError, KeyError):
        return 0


def alive(pid: int) -> bool:
    return subprocess.run(["kill", "-0", str(pid)], capture_output=True).returncode == 0
