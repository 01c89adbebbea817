"""The server as Prometheus and its operators see it: hospitals, studies, queue, disk, certificates.

Everything here is known to the coordinator already. Labels are names of hospitals, people and studies, which the
server itself has checked or given.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from server.deployment import backup_series, pki, queue
from server.deployment.server_dir import ServerDir
from server.errors import CheckpointDamaged
from server.runtime.flower_private import Control, ControlRefused
from server.study.folder import CHECKPOINTS, FAILED, FILE, StudyFolder
from tasks.machine import logs, observation
from tasks.machine.exposition import Figure
from tasks.machine.notices import Notice, Notifier, Tell
from tasks.machine.observation import Lasting, Observed, Observer
from tasks.machine.supervision import programs_in
from tasks.protocol.study import release

PREFIX = "consilium_server"
_MOST_STUDIES = 200
"""With figures of their own, beside those that run: people may propose as many as they like."""
_RECENT_S = 7 * 86400.0
"""Studies that nobody has worked on for so long have no figures of their own."""
_NEWS_S = 86400.0
_STATES = ("registered", "online", "offline", "unknown")


def observe(server_dir: ServerDir, tell: Tell) -> None:
    """Begin to look at the server, if its settings name anybody who wants to see it."""
    s = server_dir.settings
    if s.metrics is None and not s.notify.is_set:
        return
    notifier = Notifier(s.notify, s.host, server_dir.notices, tell) if s.notify.is_set else None
    control = Control(server_dir.superlink, server_dir.authority)
    Observer(ServerLook(server_dir, control.nodes), s.metrics, notifier, tell).start()


class ServerLook:
    """Looks at a running server; call it every few seconds.

    Args:
        nodes: the state of each hospital's gateway, as ``Control.nodes`` gives it.
    """

    def __init__(self, server_dir: ServerDir, nodes: Callable[[], Mapping[int, str]]) -> None:
        self._home, self._nodes = server_dir, nodes
        self._lasting = Lasting()
        self._began = time.time()

    def __call__(self) -> Observed:
        found: list[Figure | Notice] = [
            Figure(f"{PREFIX}_info", "The release that runs", 1.0, {"release": release()}),
            Figure(f"{PREFIX}_observed_timestamp_seconds", "When these figures were found", time.time()),
            Figure(f"{PREFIX}_start_timestamp_seconds", "When the server was started", self._began),
        ]
        for part in (self._programs, self._hospitals, self._studies, self._machine, self._backup, self._certificates):
            found += part()
        return observation.sorted_out(found)

    def _programs(self) -> Iterator[Figure | Notice]:
        state = programs_in(self._home.state)
        yield from observation.programs(PREFIX, state)
        for name, one in state.items():
            if self._lasting.holds(f"program {name}", not one.get("well")):
                yield Notice("program", name, 1, f"{name} has not been well for five minutes; see {self._home.logs}")

    def _hospitals(self) -> Iterator[Figure | Notice]:
        states: Mapping[int, str] = {}
        with suppress(ControlRefused):  # the SuperLink does not answer, which its program's figure says
            states = self._nodes()
        counted = dict.fromkeys(_STATES, 0)
        for name, one in self._home.hospitals().items():
            state = states.get(one.node, "unknown")
            counted[state] = counted.get(state, 0) + 1
            yield Figure(f"{PREFIX}_hospital_online", "1 while the hospital's gateway is heard",
                         float(state == "online"), {"hospital": name})  # fmt: skip
            if self._lasting.holds(f"hospital {name}", state == "offline"):
                yield Notice("hospital", name, 1, f"hospital {name} has not been heard for five minutes; call its IT")
        for state, number in counted.items():
            yield Figure(f"{PREFIX}_hospitals", "Admitted hospitals by state; registered: never heard yet", number,
                         {"state": state})  # fmt: skip

    def _studies(self) -> Iterator[Figure | Notice]:
        counted: dict[str, int] = {}
        shown = 0
        for path in sorted((self._home.path / "studies").glob(f"*/{FILE}")):
            try:
                facts = StudyFolder(path.parent.name, path.parent, resumed=True).facts()
                age_s = time.time() - path.stat().st_mtime
            except (CheckpointDamaged, OSError):
                facts, age_s = {"state": "damaged"}, 0.0
            state = str(facts.get("state", "unknown"))
            counted[state] = counted.get(state, 0) + 1
            if state == "running" or (age_s < _RECENT_S and shown < _MOST_STUDIES):
                shown += 1
                yield from _study(path.parent, facts)
            if state in (FAILED, "damaged") and age_s < _NEWS_S:
                text = f"study {path.parent.name} is {state}: consilium-server status says why"
                yield Notice("study", path.parent.name, 1, text, ends=False)
        for state, number in counted.items():
            yield Figure(f"{PREFIX}_studies", "Studies by state", number, {"state": state})
        yield from _queue(self._home)

    def _machine(self) -> Iterator[Figure | Notice]:
        folders = {"server's folder": self._home.path}
        yield from observation.disks(PREFIX, {"home": self._home.path})
        yield from observation.nearly_full(folders, self._home.settings.notify.disk_free_percent)
        yield Figure(f"{PREFIX}_log_bytes", "Size of all logs, in bytes", logs.size_of(self._home.logs))

    def _backup(self) -> Iterator[Figure | Notice]:
        attempt, now = backup_series.last(self._home), time.time()
        if attempt.newest:
            yield Figure(f"{PREFIX}_backup_age_seconds", "Age of the newest complete backup", now - attempt.newest)
        if problem := attempt.problem(now):
            yield Notice("backup", "server", 1, problem)

    def _certificates(self) -> Iterator[Figure | Notice]:
        days = pki.days_left(self._home)
        yield Figure(f"{PREFIX}_certificate_days", "Days until the server's certificate ends", days)
        yield from observation.ending("server", days, "the server's certificate", "consilium-server renew")
        for path in sorted((self._home.path / "researchers").glob("*.pem")):
            with suppress(OSError, ValueError):
                days = pki.days_of(path)
                labels = {"person": path.stem}
                yield Figure(
                    f"{PREFIX}_person_certificate_days", "Days until a person's certificate ends", days, labels
                )
                remedy = f"consilium-server renew {path.stem}"
                yield from observation.ending(path.stem, days, f"{path.stem}'s certificate", remedy)


def _study(folder: Path, facts: Mapping[str, Any]) -> Iterator[Figure]:
    labels = {"study": folder.name}
    rounds: list[Mapping[str, Any]] = []
    with suppress(OSError, ValueError, KeyError, TypeError):
        checkpoint = folder / CHECKPOINTS / "checkpoint.json"
        rounds = list(json.loads(checkpoint.read_text("utf-8"))["rounds"])
        yield Figure(f"{PREFIX}_study_last_round_timestamp_seconds", "When the study's last round was committed",
                     checkpoint.stat().st_mtime, labels)  # fmt: skip
    yield Figure(f"{PREFIX}_study_rounds", "Rounds of the study that are committed", len(rounds), labels)
    with suppress(KeyError, TypeError, ValueError):
        planned = float(facts["config"]["federation"]["rounds"])
        yield Figure(f"{PREFIX}_study_rounds_planned", "Rounds that the study may have", planned, labels)
    hospitals = [one for record in rounds for one in record.get("hospitals", {}).values()]
    down, up = (sum(one.get(f"bytes_{way}", 0) for one in hospitals) for way in ("down", "up"))
    yield Figure(f"{PREFIX}_study_sent_bytes_total", "Bytes of the study's messages to hospitals", down, labels)
    yield Figure(f"{PREFIX}_study_received_bytes_total", "Bytes of the study's messages from hospitals", up, labels)
    dropped = sum(len(record.get("dropped", {})) for record in rounds)
    yield Figure(f"{PREFIX}_study_dropped_total", "Answers that were dropped, over all rounds", dropped, labels)


def _queue(server_dir: ServerDir) -> Iterator[Figure]:
    facts: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        facts = json.loads((server_dir.runs / queue.SHOWN).read_text("utf-8"))
    at_once = server_dir.settings.studies_at_once
    yield Figure(f"{PREFIX}_queue_waiting", "Studies that wait for a place", len(facts.get("waiting", [])))
    yield Figure(f"{PREFIX}_queue_running", "Studies that have a place", len(facts.get("running", [])))
    yield Figure(f"{PREFIX}_queue_places", "Studies that may run at the same time", at_once)
