"""A model as a coordinator hands it over, and hospitals with images to run it on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from client.prediction.model import CheckedModel, open_model
from client.setup.provisioning import provision, write_example
from client.site import load
from tasks import task as tasks
from tasks.contract import digest_of_task
from tasks.models import model_file, registry
from tasks.models.model_file import ModelHead
from tasks.protocol.study import release
from tasks.protocol.wire import Arrays
from tasks.task import PhantomHospital, Task
from tests.drawn import draw

TASK = tasks.get("breast_ultrasound")
Spec = dict[str, str | int | float | bool]
SPEC: Spec = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}
OUTLINE_SPEC: Spec = SPEC | {"name": "scatter_outline"}
SCAN_SPEC: Spec = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 3, "pool": 2}
SCAN_OUTLINE_SPEC: Spec = SCAN_SPEC | {"name": "scatter_outline"}


def weights(task: Task = TASK, spec: Spec = SPEC) -> Arrays:
    """Those of a model that tells images apart, if not lesions."""
    rng = np.random.default_rng(1)
    fresh = registry.arrays_of(registry.build(spec, task.form).trainable)
    return {name: (value + rng.normal(0, 0.4, value.shape)).astype(np.float32) for name, value in fresh.items()}


def head(asked: Task = TASK, spec: Spec = SPEC, **changes: Any) -> ModelHead:
    """Of these weights."""
    network = registry.build(spec, asked.form)
    registry.load_arrays(network.trainable, weights(asked, spec))
    made = ModelHead(
        study="demo-1",
        document="d" * 64,
        release=release(),
        task=asked.name,
        task_version=asked.example_version,
        contract=digest_of_task(asked.name),
        model=spec,
        threshold=0.43,
        accepted=True,
        probe=model_file.probe(asked, network),
    )
    return replace(made, **changes)


def write_model(path: Path, arrays: Arrays | None = None, **changes: Any) -> str:
    """Write the file; returns its digest."""
    content = model_file.pack(head(**changes), weights() if arrays is None else arrays)
    path.write_bytes(content)
    return model_file.digest(content)


def write_scan_model(path: Path, task: Task) -> str:
    """The file of a model of a task that reads scans; returns its digest."""
    return write_model(path, weights(task, SCAN_SPEC), asked=task, spec=SCAN_SPEC)


def model(folder: Path, **changes: Any) -> CheckedModel:
    """The model, opened."""
    return open_model(folder / "m.safetensors", write_model(folder / "m.safetensors", **changes))


def provision_hospital(folder: Path, patients: int = 6, **changes: Any) -> Path:
    """A hospital with phantoms under ``dicom``, ledger and audit log; returns its ``site.yaml``."""
    draw(TASK, folder, PhantomHospital("alder", patients, prevalence=0.5, images_per_patient=(1, 2)), 5)
    file = folder / "site.yaml"
    write_example(file, "alder")
    values = yaml.safe_load(file.read_text("utf-8"))
    values["sources"][0] |= {"path": str(folder / "dicom"), "labels": str(folder / "labels.csv")}
    file.write_text(yaml.safe_dump(values | {"public_size": 20} | changes), "utf-8")
    (folder / "site.key").touch(0o600)
    (folder / "site.key").write_bytes(b"k" * 32)  # a fixed split
    provision(load(file))
    return file


def provision_scans(folder: Path, task: Task, name: str, patients: int) -> Path:
    """A hospital of that name with phantoms of a task that reads scans; returns its ``site.yaml``."""
    file = provision_hospital(folder, patients=1)
    draw(task, folder / task.name, PhantomHospital(name, patients, prevalence=0.5), 0)
    values = yaml.safe_load(file.read_text("utf-8"))
    source = {"kind": "folder", "task": task.name, "issuer": name, "path": str(folder / task.name / "dicom")}
    source |= {"labels": str(folder / task.name / "labels.csv")}
    policy = values["policy"] | {"tasks": [task.name]}
    file.write_text(yaml.safe_dump(values | {"sources": [source], "policy": policy}), "utf-8")
    return file
