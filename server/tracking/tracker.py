"""Results in MLflow: one experiment a task, one run a study, one child run a hospital, one step a round.

The study's own folder is the truth; MLflow is a view of it, brought up to date by a thread of its own. A store that is
slow or down holds up no round: what it has not taken is taken from the folder again, also by a later process, until it
has. Only ``server/tracking*.py`` know MLflow. Hospitals never do.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import requests

from conf import load as conf
from conf import schema
from server.errors import CheckpointDamaged, StudyBusy, TrackingFailed
from server.rounds.checkpoint import records
from server.rounds.state import RoundRecord
from server.study.folder import StudyFolder, locked
from server.tracking.mlflow_store import Ending, MlflowStore, address, key_of
from tasks.machine.disk import write_whole

Warn = Callable[[str], None]
PENDING = "tracking.json"
"""File of a study with what MLflow must still be told; it is gone once MLflow has it all."""
_LEAST_S, _FIRST_PAUSE_S, _LONGEST_PAUSE_S, _LAST_S, _PROBE_S = 1.0, 2.0, 60.0, 300.0, 5.0


class Tracker(Protocol):
    """Where rounds and results are recorded."""

    def rounds(self, records: list[RoundRecord]) -> None:
        """Record all rounds that were not recorded yet. Returns at once."""

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None:
        """Record the final figures, the files and the model, and close the study."""

    def where(self) -> list[str]:
        """Lines that tell a person how to look at it."""


class NoTracker:
    """Records nothing: results stay in the study's folder."""

    def rounds(self, records: list[RoundRecord]) -> None: ...

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None: ...

    def where(self) -> list[str]:
        return []


def open_tracker(
    study: schema.Study, folder: StudyFolder, hospitals: list[str], notes: list[str], warn: Warn
) -> Tracker:
    """The tracker that the study's configuration asks for. A tracking server that does not answer is told later.

    Raises:
        TrackingFailed: MLflow's store cannot be used, or refuses; nothing was trained yet.
    """
    if study.tracking.name == "none":
        return NoTracker()
    key_of(folder)  # by this thread, which writes the study's facts
    try:
        down = _unreachable(address(study))
        store = None if down else MlflowStore(study, folder, hospitals, notes)
    except Exception as error:
        raise TrackingFailed(
            f"MLflow at {address(study)} cannot be used: {error}. Mend tracking.uri, or say tracking=none"
        ) from error
    if down:
        warn(f"MLflow at {address(study)} does not answer ({down}); it will be told when it does")
    return MlflowTracker(study, folder, _Telling(hospitals, notes), warn, store)


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
class _Telling:
    """What a later process needs to tell a study to MLflow, besides what stands in the study's folder."""

    hospitals: list[str]
    notes: list[str]
    ending: Ending | None = None


class MlflowTracker:
    """A study in MLflow, told by a thread. A resumed study goes on in the run that it started."""

    def __init__(
        self, study: schema.Study, folder: StudyFolder, telling: _Telling, warn: Warn, store: MlflowStore | None
    ) -> None:
        self._study, self._folder, self._telling, self._warn, self._store = study, folder, telling, warn, store
        self._records: list[RoundRecord] = []
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._sent = -1 if store is None else store.logged
        self._failing = ""
        write_whole(folder.path / PENDING, json.dumps(asdict(telling)).encode())
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
            self._telling = _Telling(self._telling.hospitals, self._telling.notes, Ending(metrics, names))
            write_whole(self._folder.path / PENDING, json.dumps(asdict(self._telling)).encode())
            self._news.notify_all()
        if not self._ended.wait(_LAST_S) or self._failing:
            self._warn(
                f"MLflow has not taken the results ({self._failing or 'it is slow'}). They are in {self._folder.path} "
                "and will be sent with the next study of this folder, or by `consilium send`"
            )

    def settled(self, timeout: float) -> bool:
        """Wait until every round that was handed in is with MLflow."""
        with self._news:
            return self._news.wait_for(lambda: self._sent >= len(self._records), timeout)

    def where(self) -> list[str]:
        if self._store is None:
            return [f"MLflow at {address(self._study)} did not answer; once it does, say: consilium send"]
        return self._store.where()

    def _tell(self) -> None:
        """The thread: everything new, as often as once a second; after a failure, again after a longer and longer
        while. It ends when the study has ended and MLflow has it all, or has refused the end once."""
        pause, of_others = _FIRST_PAUSE_S, False
        while not self._ended.is_set():
            with self._news:
                self._news.wait_for(self._has_news)
                telling, known = self._telling, self._records
            try:
                self._store = store = self._store or MlflowStore(
                    self._study, self._folder, telling.hospitals, telling.notes
                )
                store.send(known)
                if telling.ending is not None:
                    store.end(known, telling.ending)
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
                    self._warn(f"MLflow did not take round {self._sent_next()} ({error}); it will be told again")
                self._failing = str(error) or type(error).__name__
            if telling.ending is not None:
                self._ended.set()
            with self._news:
                self._news.wait_for(
                    lambda: self._telling.ending is not None, timeout=pause if self._failing else _LEAST_S
                )
            pause = min(2 * pause, _LONGEST_PAUSE_S) if self._failing else _FIRST_PAUSE_S

    def _has_news(self) -> bool:
        return self._telling.ending is not None or len(self._records) > self._sent

    def _sent_next(self) -> int:
        return max(self._sent, 0) + 1


def send(output_dir: Path, warn: Warn, uri: str = "", only: str = "") -> list[str]:
    """Tell MLflow of every ended study of a folder that it has not heard of to the end. Returns their names.

    Args:
        uri: another store than the one that the studies were to be told to.
        only: leave out those that were to be told to another store than this.
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
            warn(f"{folder.name}: MLflow did not take it ({error})")
    return sent


def _send(folder: StudyFolder, uri: str, only: str) -> bool:
    """Whether there was something to send, and it was taken."""
    told = json.loads((folder.path / PENDING).read_text("utf-8"))
    if told["ending"] is None:
        return False  # it goes on some day
    study = conf.from_plain(folder.facts()["config"])
    if only and address(study) != only:
        return False
    if uri:
        study.tracking.uri = uri
    store = MlflowStore(study, folder, told["hospitals"], told["notes"])
    checkpoint = folder.path / "federated" / "checkpoint.json"
    if not checkpoint.exists():
        raise CheckpointDamaged(f"{checkpoint} is missing")
    known = records(checkpoint.read_bytes())
    store.send(known)
    store.end(known, Ending(**told["ending"]))
    (folder.path / PENDING).unlink()
    return True
