"""Results in MLflow: one experiment a task, one run a study, one child run a hospital, one step a round.

The study's own folder is the truth; MLflow is a view of it. A store that fails in the middle of a study is told what it
missed at the next round, and never stops the study. This is the only file that knows MLflow. Hospitals never do.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # must stand before the import
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its seven would hold up a round for minutes

import logging
import math
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from conf import schema
from server.errors import TrackingFailed
from server.rounds import RoundRecord
from server.study import StudyFolder

Warn = Callable[[str], None]
_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000  # MLflow takes no more in one batch
_STAYS_HERE = ("data_root", "output_dir", "tracking")
"""Parts of the configuration that name places on this machine, or may hold a password."""


class Tracker(Protocol):
    """Where rounds and results are recorded."""

    def rounds(self, records: list[RoundRecord]) -> None:
        """Record all rounds that were not recorded yet."""

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None:
        """Record the final figures, figures' files and the model, and close the study."""

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
    """The tracker that the study's configuration asks for.

    Raises:
        TrackingFailed: MLflow's store cannot be used; nothing was trained yet.
    """
    if study.tracking.name == "none":
        return NoTracker()
    try:
        return MlflowTracker(study, folder, hospitals, notes, warn)
    except Exception as error:
        raise TrackingFailed(
            f"MLflow at {_uri(study)} cannot be used: {error}. Mend tracking.uri, or say tracking=none"
        ) from error


class MlflowTracker:
    """A study in MLflow. A resumed study goes on in the run that it started."""

    def __init__(
        self, study: schema.Study, folder: StudyFolder, hospitals: list[str], notes: list[str], warn: Warn
    ) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._warn, self._uri, self._folder = warn, _uri(study), folder
        self._client = MlflowClient(self._uri)
        self._experiment = self._experiment_id(study)
        self._tags = {"fl_key": _key(folder), "fl_study": folder.name}
        self._known = self._runs_of_study()
        self._run = self._parent(notes)
        self._children = {hospital: self._child(hospital) for hospital in hospitals}
        self._logged = int(self._client.get_run(self._run).data.tags["rounds_logged"])
        self._client.update_run(self._run, status="RUNNING")

    def _experiment_id(self, study: schema.Study) -> str:
        found = self._client.get_experiment_by_name(study.task.name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(study.task.name, artifact_location=_artifacts(self._uri)))

    def _runs_of_study(self) -> dict[str, str]:
        """Runs that this study has started already, by hospital; the parent under the empty name."""
        filter = f"tags.fl_key = '{self._tags['fl_key']}'"
        found = self._client.search_runs([self._experiment], filter_string=filter)
        return {run.data.tags.get("fl_hospital", ""): run.info.run_id for run in found}

    def _parent(self, notes: list[str]) -> str:
        tags = {"fl_kind": "study", "rounds_logged": "0", "mlflow.note.content": "\n\n".join(notes)}
        run = self._known.get("") or self._new_run(self._folder.name, tags)
        told = {key: value for key, value in self._folder.facts()["config"].items() if key not in _STAYS_HERE}
        self._log_batch(run, params=_flat(told))
        return run

    def _child(self, hospital: str) -> str:
        tags = {"fl_kind": "hospital", "fl_hospital": hospital, "mlflow.parentRunId": self._run}
        run = self._known.get(hospital) or self._new_run(f"{self._folder.name} / {hospital}", tags)
        self._log_batch(run, params={"hospital": hospital, "study": self._folder.name})
        return run

    def _new_run(self, name: str, tags: dict[str, str]) -> str:
        created = self._client.create_run(self._experiment, run_name=name, tags=self._tags | tags)
        return str(created.info.run_id)

    def _log_batch(self, run: str, metrics: list[Any] | None = None, params: dict[str, Any] | None = None) -> None:
        from mlflow.entities import Param

        named = [Param(key, str(value)[:500]) for key, value in (params or {}).items()]
        for some in _chunks(named, _PARAMS_AT_ONCE):
            self._client.log_batch(run, params=some)
        for some in _chunks(metrics or [], _METRICS_AT_ONCE):
            self._client.log_batch(run, metrics=some)

    def rounds(self, records: list[RoundRecord]) -> None:
        try:
            for record in records[self._logged :]:
                self._log_round(record)
                self._logged = record.number
                self._client.set_tag(self._run, "rounds_logged", str(self._logged))
        except Exception as error:
            self._warn(f"MLflow did not take round {self._logged + 1} ({error}); it will be told again")

    def _log_round(self, record: RoundRecord) -> None:
        self._log_batch(self._run, metrics=_metrics(_of_study(record), record.number))
        for hospital, run in self._children.items():
            if hospital in record.hospitals:
                self._log_batch(run, metrics=_metrics(_of_hospital(record, hospital), record.number))

    def finish(self, records: list[RoundRecord], metrics: dict[str, float], files: list[Path]) -> None:
        self.rounds(records)
        try:
            self._log_batch(self._run, metrics=_metrics(metrics, len(records)))
            for file in files:
                self._client.log_artifact(self._run, str(file), "figures" if file.suffix == ".svg" else None)
            for run in (*self._children.values(), self._run):
                self._client.set_terminated(run)
        except Exception as error:
            self._warn(f"MLflow did not take the results ({error}); they are in {self._folder.path}")

    def where(self) -> list[str]:
        link = f"/#/experiments/{self._experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
        if not self._uri.startswith("sqlite:"):
            return [f"open {self._uri.rstrip('/')}{link}"]
        mlflow = os.path.relpath(Path(sys.executable).with_name("mlflow"))
        return [
            f"MLFLOW_DISABLE_TELEMETRY=true {mlflow} server --backend-store-uri {self._uri} --port 5000",
            f"then open http://127.0.0.1:5000{link}",
        ]


def _uri(study: schema.Study) -> str:
    return study.tracking.uri or f"sqlite:///{Path(study.output_dir).resolve() / 'mlflow.db'}"


def _key(folder: StudyFolder) -> str:
    """What tells the study's runs in the store. It stands in the study's folder before any of them is made, so whenever
    a process was killed, the next one finds what there is."""
    key = folder.facts().get("tracking_key")
    if key is None:
        key = uuid.uuid4().hex
        folder.note(tracking_key=key)
    return str(key)


def _artifacts(uri: str) -> str | None:
    """A store in a file keeps artifacts beside it; a tracking server decides for itself."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlartifacts").as_uri()


def _chunks(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _of_study(record: RoundRecord) -> dict[str, float | None]:
    figures: dict[str, float | None] = {
        "global/mean_auc": record.mean_auc(),
        "global/update_norm": record.update_norm,
        "round/seconds": record.seconds,
        "round/hospitals": len(record.hospitals),
        "round/dropped": len(record.dropped),
        "round/bytes_down": sum(h.bytes_down for h in record.hospitals.values()),
        "round/bytes_up": sum(h.bytes_up for h in record.hospitals.values()),
        "privacy/largest_epsilon": max((h.epsilon for h in record.hospitals.values() if h.epsilon), default=None),
    }
    # MLflow draws the curves of parents only, so those of the hospitals stand here as well.
    for name in record.hospitals:
        figures |= {f"site/{name}/{key}": value for key, value in _of_hospital(record, name).items()}
    return figures


def _of_hospital(record: RoundRecord, hospital: str) -> dict[str, float | None]:
    figures = record.hospitals[hospital]
    return {
        "auc": figures.auc,
        "epsilon": figures.epsilon,
        "bytes_up": figures.bytes_up,
        "bytes_down": figures.bytes_down,
    }


def _metrics(values: dict[str, Any], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    usable = {key: float(value) for key, value in values.items() if value is not None}
    return [Metric(key, value, now, step) for key, value in usable.items() if math.isfinite(value)]
