"""A model as a coordinator hands it over, and hospitals with images to run it on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from client.prediction.model import Model, open_model
from client.setup.founding import found_books, write_example
from client.site import load
from tasks import model_file
from tasks import task as tasks
from tasks.contract import digest_of_task
from tasks.model_file import ModelHead
from tasks.models import registry
from tasks.study import release
from tasks.task import PhantomHospital
from tasks.wire import Arrays

TASK = tasks.get("breast_ultrasound")
SPEC: dict[str, str | int | float | bool] = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}


def weights() -> Arrays:
    """Those of a model that tells images apart, if not lesions."""
    rng = np.random.default_rng(1)
    fresh = registry.arrays_of(registry.build(SPEC, TASK.form).trainable)
    return {name: (value + rng.normal(0, 0.4, value.shape)).astype(np.float32) for name, value in fresh.items()}


def head(**changes: Any) -> ModelHead:
    """Of these weights."""
    network = registry.build(SPEC, TASK.form)
    registry.load_arrays(network.trainable, weights())
    made = ModelHead(
        study="demo-1",
        document="d" * 64,
        release=release(),
        task=TASK.name,
        task_version=TASK.example_version,
        contract=digest_of_task(TASK.name),
        model=SPEC,
        threshold=0.43,
        accepted=True,
        probe=model_file.probe(TASK, network),
    )
    return replace(made, **changes)


def write_model(path: Path, arrays: Arrays | None = None, **changes: Any) -> str:
    """Write the file; returns its digest."""
    content = model_file.pack(head(**changes), weights() if arrays is None else arrays)
    path.write_bytes(content)
    return model_file.digest(content)


def model(folder: Path, **changes: Any) -> Model:
    """The model, opened."""
    return open_model(folder / "m.safetensors", write_model(folder / "m.safetensors", **changes))


def found(folder: Path, patients: int = 6, **changes: Any) -> Path:
    """A hospital with phantoms under ``dicom`` and books; returns its ``site.yaml``."""
    TASK.draw_phantom(folder, PhantomHospital("alder", patients, prevalence=0.5, images_per_patient=(1, 2)), 5)
    file = folder / "site.yaml"
    write_example(file, "alder")
    values = yaml.safe_load(file.read_text("utf-8"))
    values["sources"][0] |= {"path": str(folder / "dicom"), "labels": str(folder / "labels.csv")}
    file.write_text(yaml.safe_dump(values | {"public_size": 20} | changes), "utf-8")
    (folder / "site.key").touch(0o600)
    (folder / "site.key").write_bytes(b"k" * 32)  # a fixed split
    found_books(load(file))
    return file
