"""The calls that bring an MLflow store up to date with a study. A repeated call changes nothing.

Tested in ``tests/server/tracking/test_tracker.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # must stand before the import
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the tracker's thread retries by itself
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # the study prints better links

import hashlib
import json
import logging
import math
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from conf import load as conf
from conf.schema.study import Study
from server.rounds.state import RoundRecord, how_often
from server.study.document import model_of
from server.study.folder import StudyFolder
from server.study.survey import is_survey
from server.tracking import registry
from tasks import contract as contracts
from tasks import task as tasks

_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000  # MLflow accepts no more in one batch
_STAYS_HERE = ("data_root", "output_dir", "tracking", "runtime")
"""Parts of the configuration that are paths on this machine, or may hold a password."""
_LAST_LOGGED = "round/number"
"""This metric is the last of a round's batch: rounds up to its value have arrived."""


@dataclass(frozen=True)
class Ending:
    """The end of a study: final figures, and files relative to its folder, the model's weights among them."""

    metrics: dict[str, float]
    files: list[str]


class MlflowStore:
    """One study in one store. Its runs are found again by a key in the study's folder.

    Attributes:
        logged: rounds that the store has.
    """

    def __init__(self, study: Study, folder: StudyFolder, hospitals: list[str], notes: list[str]) -> None:
        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        self._study, self._uri, self._folder = study, address(study), folder
        self._client = MlflowClient(self._uri)
        self._experiment = self._experiment_id()
        self._tags = {"fl_key": key_of(folder), "fl_study": folder.name}
        self._began = int(folder.facts()["tracking_began"])
        self._known = self._runs_of_study()
        self._run = self._parent(notes)
        self._children = {hospital: self._child(hospital) for hospital in hospitals}
        if "" not in self._known:
            self._client.log_inputs(self._run, [_dataset(folder, hospital) for hospital in hospitals])
        metrics = self._client.get_run(self._run).data.metrics
        self.logged = int(metrics.get(_LAST_LOGGED, 0))
        self._machine: dict[int, dict[str, float]] = {}
        self._client.update_run(self._run, status="RUNNING")

    def _experiment_id(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._study.task.name
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=_artifacts(self._uri)))
            except MlflowException:  # another study has just created it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _runs_of_study(self) -> dict[str, str]:
        """Runs that this study has started already, by hospital; the parent under the empty name."""
        found = self._client.search_runs([self._experiment], filter_string=f"tags.fl_key = '{self._tags['fl_key']}'")
        return {run.data.tags.get("fl_hospital", ""): run.info.run_id for run in found}

    def _parent(self, notes: list[str]) -> str:
        tags = {"fl_kind": "survey" if is_survey(self._study) else "study", "mlflow.note.content": "\n\n".join(notes)}
        run = self._known.get("") or self._new_run(self._folder.name, tags)
        config = {key: value for key, value in self._folder.facts()["config"].items() if key not in _STAYS_HERE}
        if config["model"].get("weights"):  # the file's digest, not its path
            config["model"] = model_of(conf.from_plain(self._folder.facts()["config"]))
        self._log_batch(run, params=_flat(config))
        return run

    def _child(self, hospital: str) -> str:
        if known := self._known.get(hospital):
            return known
        tags = {"fl_kind": "hospital", "fl_hospital": hospital, "mlflow.parentRunId": self._run}
        run = self._new_run(f"{self._folder.name} / {hospital}", tags)
        self._log_batch(run, params={"hospital": hospital, "study": self._folder.name})
        self._client.log_inputs(run, [_dataset(self._folder, hospital)])
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

    def sample(self, number: int) -> None:
        """Record the machine's load, to be sent with a round; MLflow shows it under "System metrics"."""
        memory = psutil.virtual_memory()
        self._machine[number] = {
            "system/cpu_utilization_percentage": psutil.cpu_percent(),
            "system/system_memory_usage_megabytes": memory.used / 1e6,
            "system/system_memory_usage_percentage": memory.percent,
            "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / 1e6,
        }

    def send(self, records: list[RoundRecord]) -> None:
        """Send every round that the store lacks, in one batch."""
        batch: list[Any] = []
        for record in records[self.logged :]:
            figures = _of_study(record) | self._machine.get(record.number, {}) | {_LAST_LOGGED: float(record.number)}
            batch += self._metrics(figures, records, record.number)
        if batch:
            self._log_batch(self._run, metrics=batch)
            self.logged = len(records)
            self._machine.clear()

    def end(self, records: list[RoundRecord], ending: Ending) -> None:
        """Send final figures, the hospitals' curves, files and model, and close the runs."""
        self._log_batch(self._run, metrics=self._metrics(ending.metrics, records, len(records)))
        for hospital, run in self._children.items():
            of_rounds = [
                self._metrics(_of_hospital(record, hospital), records, record.number)
                for record in records
                if hospital in record.hospitals
            ]
            self._log_batch(run, metrics=[metric for each in of_rounds for metric in each])
        for name in ending.files:
            folder = "figures" if name.startswith("figures/") else None
            self._client.log_artifact(self._run, str(self._folder.path / name), folder)
        self._name(records)
        passed = ending.metrics.get("result/gate_passed")
        accepted = None if passed is None else passed == 1
        if not is_survey(self._study):  # which has no model
            registry.register(self._client, self._study, self._folder, self._run, ending.files, accepted=accepted)
        self.close("FINISHED")

    def close(self, status: str) -> None:
        """Close the runs, as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        for run in (*self._children.values(), self._run):
            self._client.set_terminated(run, status)

    def _name(self, records: list[RoundRecord]) -> None:
        """Tag the study's run and the hospitals' own for conspicuous updates."""
        for hospital, why in how_often([record.named for record in records]).items():
            self._client.set_tag(self._run, f"fl_look_at.{hospital}", why)
            if hospital in self._children:
                self._client.set_tag(self._children[hospital], "fl_look_at", why)

    def _metrics(self, values: Mapping[str, Any], records: list[RoundRecord], step: int) -> list[Any]:
        """Metrics with a time that depends on the round only: sent twice, they are still one point in the store."""
        from mlflow.entities import Metric

        at = self._began + int(1000 * sum(record.seconds for record in records[:step]))
        usable = {key: float(value) for key, value in values.items() if value is not None}
        return [Metric(key, value, at, step) for key, value in usable.items() if math.isfinite(value)]

    def where(self) -> list[str]:
        charts = f"/#/experiments/{self._experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
        report = f"/#/experiments/{self._experiment}/runs/{self._run}/artifacts/report.html"
        local = self._uri.startswith("sqlite:")
        base = "http://127.0.0.1:5000" if local else self._uri.rstrip("/")
        links = [f"charts: {base}{charts}", f"report: {base}{report}?workflowType=machine_learning"]
        if not local:
            return links
        mlflow = os.path.relpath(Path(sys.executable).with_name("mlflow"))
        quiet = "MLFLOW_DISABLE_TELEMETRY=true MLFLOW_ENABLE_AI_GATEWAY=false"
        return [f"{quiet} {mlflow} server --backend-store-uri {self._uri} --port 5000", *links]


def address(study: Study) -> str:
    """The store of a study."""
    return study.tracking.uri or f"sqlite:///{Path(study.output_dir).resolve() / 'mlflow.db'}"


def key_of(folder: StudyFolder) -> str:
    """The key of the study's runs in the store. It is in the study's folder before any run is created, so whenever a
    process was killed, the next one finds its runs."""
    key = folder.facts().get("tracking_key")
    if key is None:
        key = uuid.uuid4().hex
        folder.note(tracking_key=key, tracking_began=int(time.time() * 1000))
    return str(key)


def _dataset(folder: StudyFolder, hospital: str) -> Any:
    """A hospital's patients as MLflow's dataset. Its digest covers what the hospital was asked for: task, contract,
    configuration and name. Nothing about the patients themselves, not even a digest, is known here."""
    from mlflow.entities import Dataset, DatasetInput

    config = folder.facts()["config"]
    task, federation = config["task"]["name"], config["federation"]
    contract = contracts.digest_of_task(task)
    asked = [task, tasks.get(task).example_version, contract, federation, config["seed"], hospital]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    source = json.dumps({"hospital": hospital, "task": task, "contract": contract})
    return DatasetInput(Dataset(f"{task} at {hospital}", digest, "consilium", source))


def _artifacts(uri: str) -> str | None:
    """Where artifacts go: beside a store in a file; a tracking server decides itself."""
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
    hospitals = record.hospitals.values()
    pooled = record.pooled_auc or (None, None, None)
    figures: dict[str, float | None] = {
        "global/mean_auc": record.mean_auc(),
        "global/pooled_auc": pooled[0],
        "global/pooled_auc_low": pooled[1],
        "global/pooled_auc_high": pooled[2],
        "global/update_norm": record.update_norm,
        "round/seconds": record.seconds,
        "round/hospitals": len(record.hospitals),
        "round/dropped": len(record.dropped),
        "round/bytes_down": sum(h.bytes_down for h in hospitals),
        "round/bytes_up": sum(h.bytes_up for h in hospitals),
        "privacy/largest_epsilon": max((h.epsilon for h in hospitals if h.epsilon), default=None),
    }
    # MLflow draws curves of parent runs only, so the hospitals' metrics are logged here as well.
    for name in record.hospitals:
        figures |= {f"site/{name}/{key}": value for key, value in _of_hospital(record, name).items()}
    return figures


def _of_hospital(record: RoundRecord, hospital: str) -> dict[str, float | None]:
    figures = record.hospitals[hospital]
    return {
        "auc": figures.shown_auc,
        "auc_low": figures.auc_low,
        "auc_high": figures.auc_high,
        "epsilon": figures.epsilon,
        "evaluation_epsilon": figures.evaluation_epsilon,
        "bytes_up": figures.bytes_up,
        "bytes_down": figures.bytes_down,
        "update_norm": figures.update_norm,
    }
