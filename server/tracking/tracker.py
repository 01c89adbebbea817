"""Results in MLflow: one experiment per task, one run per study, one child run per hospital, one step per round.

The study's own folder is authoritative; MLflow is a view of it, updated by a thread of its own. A store that is slow or
down delays no round: what it has not received is sent again from the folder, also by a later process, until it has it.
Only ``server/tracking/`` knows MLflow. Hospitals never do.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import requests

from conf import load as conf
from conf.schema.study import Study
from server.errors import CheckpointDamaged, StudyBusy, TrackingFailed
from server.rounds.checkpoint import records
from server.rounds.state import RoundRecord
from server.study.folder import CHECKPOINTS, FAILED, PENDING, STOPPED, StudyFolder, locked
from server.study.survey import is_survey
from server.tracking.mlflow_store import Ending, MlflowStore, address, key_of
from tasks.machine.disk import write_whole

Warn = Callable[[str], None]
_BROKEN_OFF = {STOPPED: "KILLED", FAILED: "FAILED"}
"""MLflow's word for a run, by the state of a study that ended without results."""
_LEAST_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LAST_S, _PROBE_S = 1.0, 2.0, 60.0, 300.0, 5.0


class Tracker(Protocol):
    """Where rounds and results are recorded."""

    def rounds(self, records: list[RoundRecord]) -> None:
        """Record all rounds that were not recorded yet. Returns at once."""

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None:
        """Record the final figures, the files and the model, and close the study."""

    def broken_off(self, status: str) -> None:
        """The study has ended before its end: ``FAILED`` or ``KILLED``. Resumed, it goes on in the same run."""

    def where(self) -> list[str]:
        """Lines that tell a person where to see it."""


class NoTracker:
    """Records nothing: results stay in the study's folder."""

    def rounds(self, records: list[RoundRecord]) -> None: ...

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None: ...

    def broken_off(self, status: str) -> None: ...

    def where(self) -> list[str]:
        return []


def open_tracker(study: Study, folder: StudyFolder, hospitals: list[str], notes: list[str], warn: Warn) -> Tracker:
    """The tracker that the study's configuration names. A tracking server that does not answer is updated later.

    Raises:
        TrackingFailed: MLflow's store cannot be used, or refuses; nothing has been trained yet.
    """
    if study.tracking.name == "none":
        return NoTracker()
    key_of(folder)  # by this thread, which writes the study's facts
    try:
        down = _unreachable(address(study))
        store = None if down else MlflowStore(study, folder, hospitals, notes)
    except Exception as error:
        raise TrackingFailed(
            f"MLflow at {address(study)} cannot be used: {error}. Correct tracking.uri, or set tracking=none"
        ) from error
    if down:
        warn(f"MLflow at {address(study)} does not answer ({down}); results will be sent when it does")
    return MlflowTracker(study, folder, _Pending(hospitals, notes), warn, store)


def _unreachable(uri: str) -> str:
    """Why a tracking server does not answer, or nothing.

    Raises:
        ValueError: it answers, and refuses.
    """
    if not uri.startswith(("http://", "https://")):
        return ""
    user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
    auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search"
    try:
        answer = requests.post(url, json={"max_results": 1}, auth=auth, headers=headers, timeout=_PROBE_S)
    except requests.RequestException as error:
        return type(error).__name__
    if answer.status_code in (401, 403):
        raise ValueError(
            f"it refuses ({answer.status_code} {answer.text.strip()[:200]}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or let the server allow this host"
        )
    if answer.status_code >= 500:
        return f"status {answer.status_code}"
    answer.raise_for_status()
    return ""


@dataclass(frozen=True)
class _Pending:
    """What a later process needs to send a study to MLflow, besides the study's folder."""

    hospitals: list[str]
    notes: list[str]
    ending: Ending | None = None


class MlflowTracker:
    """A study in MLflow, sent by a thread. A resumed study continues in its own run."""

    def __init__(
        self, study: Study, folder: StudyFolder, pending: _Pending, warn: Warn, store: MlflowStore | None
    ) -> None:
        self._study, self._folder, self._pending, self._warn, self._store = study, folder, pending, warn, store
        self._records: list[RoundRecord] = []
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._sent = -1 if store is None else store.logged
        self._failing = ""
        write_whole(folder.path / PENDING, json.dumps(asdict(pending)).encode())
        threading.Thread(target=self._tell, name="mlflow", daemon=True).start()

    def rounds(self, records: list[RoundRecord]) -> None:
        with self._news:
            self._records = list(records)
            if self._store is not None:
                self._store.sample(len(records))
            self._news.notify_all()

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None:
        names = [str(file.relative_to(self._folder.path)) for file in files]
        with self._news:
            self._records = list(records)
            self._pending = _Pending(self._pending.hospitals, self._pending.notes, Ending(metrics, names))
            write_whole(self._folder.path / PENDING, json.dumps(asdict(self._pending)).encode())
            self._news.notify_all()
        if not self._ended.wait(_LAST_S) or self._failing:
            self._warn(
                f"MLflow has not received the results ({self._failing or 'it is slow'}). They are in "
                f"{self._folder.path} and will be sent with the next study of this folder, or by `consilium send`"
            )

    def broken_off(self, status: str) -> None:
        self.settled(_LEAST_S)
        if self._store is not None:
            with suppress(Exception):  # the error that ended the study is the one to be told
                self._store.close(status)

    def settled(self, timeout: float) -> bool:
        """Wait until MLflow has every round so far."""
        with self._news:
            return self._news.wait_for(lambda: self._sent >= len(self._records), timeout)

    def where(self) -> list[str]:
        if self._store is None:
            return [f"MLflow at {address(self._study)} did not answer; once it does, run: consilium send"]
        return self._store.where()

    def _tell(self) -> None:
        """The thread: sends everything new, at most once a second; after a failure, again after longer pauses. It ends
        when the study has ended and MLflow has everything, or has refused the end once."""
        pause, of_others = _FIRST_PAUSE_S, False
        while not self._ended.is_set():
            with self._news:
                self._news.wait_for(self._has_news)
                pending, known = self._pending, self._records
            try:
                self._store = store = self._store or MlflowStore(
                    self._study, self._folder, pending.hospitals, pending.notes
                )
                store.send(known)
                if pending.ending is not None:
                    store.end(known, pending.ending)
                    (self._folder.path / PENDING).unlink()
                if not of_others:
                    of_others = True
                    send(Path(self._study.output_dir), self._warn, only=address(self._study))
                self._failing, pause = "", _FIRST_PAUSE_S
                with self._news:
                    self._sent = len(known)
                    self._news.notify_all()
            except Exception as error:
                if not self._failing:
                    self._warn(f"MLflow did not accept round {self._sent_next()} ({error}); it will be sent again")
                self._failing = str(error) or type(error).__name__
            if pending.ending is not None:
                self._ended.set()
            with self._news:
                self._news.wait_for(
                    lambda: self._pending.ending is not None, timeout=pause if self._failing else _LEAST_S
                )
            pause = min(2 * pause, _LONGEST_PAUSE_S) if self._failing else _FIRST_PAUSE_S

    def _has_news(self) -> bool:
        return self._pending.ending is not None or len(self._records) > self._sent

    def _sent_next(self) -> int:
        return max(self._sent, 0) + 1


def send(output_dir: Path, warn: Warn, uri: str = "", only: str = "") -> list[str]:
    """Send MLflow every ended study of a folder that it does not have completely. Returns their names.

    Args:
        uri: a store other than the one in the studies' configuration.
        only: leave out studies that are configured for a store other than this one.
    """
    sent = []
    for path in sorted((output_dir / "studies").glob(f"*/{PENDING}")):
        folder = StudyFolder(path.parent.name, path.parent, resumed=True)
        try:
            with locked(folder):
                if _send(folder, uri, only):
                    sent.append(folder.name)
        except StudyBusy:
            continue
        except Exception as error:
            warn(f"{folder.name}: MLflow did not accept it ({error})")
    return sent


def _send(folder: StudyFolder, uri: str, only: str) -> bool:
    """Whether there was something to send, and MLflow has received it."""
    pending, facts = json.loads((folder.path / PENDING).read_text("utf-8")), folder.facts()
    broken_off = _BROKEN_OFF.get(facts.get("state", ""))
    if pending["ending"] is None and broken_off is None:
        return False  # it may be resumed
    study = conf.from_plain(facts["config"])
    if only and address(study) != only:
        return False
    if uri:
        study.tracking.uri = uri
    checkpoint = folder.path / CHECKPOINTS / "checkpoint.json"
    if pending["ending"] is not None and not is_survey(study) and not checkpoint.exists():
        raise CheckpointDamaged(f"{checkpoint} is missing")
    store = MlflowStore(study, folder, pending["hospitals"], pending["notes"])
    known = records(checkpoint.read_bytes() if checkpoint.exists() else None)
    store.send(known)
    if pending["ending"] is not None:
        store.end(known, Ending(**pending["ending"]))
    else:
        store.close(str(broken_off))
    (folder.path / PENDING).unlink()
    return True


def main() -> None:
    """Send what MLflow has not received of the ended studies in a server's folder, the first argument; the second is
    MLflow's address. Exit code 1 if it did not accept all."""
    problems = list[str]()
    for name in send(Path(sys.argv[1]), problems.append, sys.argv[2]):
        print(f"{name}: MLflow has it now", flush=True)
    for problem in problems:
        print(problem, flush=True)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
