"""A study's model in MLflow's registry: weights as safetensors with a signature, no pickle; the card as description.

``mlflow.pyfunc.load_model`` rebuilds it from Consilium's own code, which must be installed; nothing that the registry
holds is executed.

Tested in ``tests/server/tracking/test_tracker.py``.
"""

from __future__ import annotations

import json
import math
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from conf.schema.study import Study
from server.study.document import model_of, weights_of
from server.study.folder import StudyFolder
from server.tracking import environment
from tasks import task as tasks
from tasks.models import model_file, registry
from tasks.task import Task

if TYPE_CHECKING:
    from mlflow import MlflowClient

CANDIDATE, ACCEPTED = "candidate", "accepted"
"""Aliases: the newest model, and the newest one that passed the study's gate at every hospital."""
_DATA, _WEIGHTS, _WHAT = "data", "weights.safetensors", "model.json"
_GATE = {True: "passed", False: "not passed", None: "not set"}
_EXAMPLE, _SERVED = "input_example.json", "serving_input_example.json"
_LONGEST_DESCRIPTION = 5000


def register(
    client: MlflowClient, study: Study, folder: StudyFolder, run: str, files: list[str], accepted: bool | None
) -> None:
    """Log the model and make it a version of the task's registered model, unless that was done before.

    Args:
        accepted: whether it has passed the study's gate; ``None`` where the study has none.
    """
    from mlflow.exceptions import MlflowException

    name = study.task.name
    weights = next((folder.path / file for file in files if file.endswith(".safetensors")), None)
    if weights is None or not _is_whole(study, weights):
        return  # the part that stays at the hospitals is missing, so nobody could run it
    try:
        client.create_registered_model(name, description=tasks.get(name).question)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    if any(version.run_id == run for version in client.search_model_versions(f"name = '{name}'")):
        return
    model, location = _logged(client, study, folder, run, weights)
    # A server finds the model by its id; without one, MLflow would look in a default store of this process.
    served = client.tracking_uri.startswith(("http://", "https://"))
    version = client.create_model_version(
        name,
        source=f"models:/{model}" if served else location,
        run_id=run,
        model_id=model,
        tags={"fl_study": folder.name, "gate": _GATE[accepted]},
        description=_card(folder, files)[:_LONGEST_DESCRIPTION],
    )
    for alias in (CANDIDATE, *((ACCEPTED,) if accepted else ())):
        client.set_registered_model_alias(name, alias, version.version)


def _is_whole(study: Study, weights: Path) -> bool:
    task = tasks.get(study.task.name)
    trainable = registry.build(model_of(study), task.form, find=weights_of(study)).trainable
    _, arrays, _ = model_file.unpack(weights.read_bytes())
    return not registry.misfits(trainable, arrays)


def _logged(client: MlflowClient, study: Study, folder: StudyFolder, run: str, weights: Path) -> tuple[str, str]:
    """Id and location of the logged model, in MLflow's own layout."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    task = tasks.get(study.task.name)
    experiment = client.get_run(run).info.experiment_id
    logged = client.create_logged_model(experiment, name=folder.name, source_run_id=run, tags={"fl_study": folder.name})
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *task.example_shape))]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
    )
    model = Model(
        run_id=run,
        signature=signature,
        model_id=logged.model_id,
        metadata={"use": "research only"},
        saved_input_example_info={"artifact_path": _EXAMPLE, "serving_input_path": _SERVED, "type": "ndarray"},
    )
    envs = {"conda": environment.CONDA, "virtualenv": environment.PYTHON}
    model.add_flavor("python_function", loader_module="server.tracking.registry", data=_DATA,
                     python_version=platform.python_version(), env=envs)  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / _DATA).mkdir()
        (Path(place) / _DATA / _WEIGHTS).write_bytes(weights.read_bytes())
        what = {"task": task.name, "model": model_of(study), "study": folder.name}
        (Path(place) / _DATA / _WHAT).write_text(json.dumps(what), "utf-8")
        example = _example(task).tolist()
        for name, values in {_EXAMPLE: example, _SERVED: {"inputs": example}}.items():
            (Path(place) / name).write_text(json.dumps(values), "utf-8")
        for name, text in environment.files(str(model_of(study).get("version", ""))).items():
            (Path(place) / name).write_text(text, "utf-8")
        model.save(str(Path(place) / "MLmodel"))
        client.log_model_artifacts(logged.model_id, place)
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id), str(logged.artifact_location)


def _example(task: Task) -> NDArray[np.float32]:
    """Invented values for one input, shape (1, *task.example_shape): eighths, so that their text is short and exact."""
    size = math.prod(task.example_shape)
    return ((np.arange(size) * 5 % 9) / 8).astype(np.float32).reshape(1, *task.example_shape)


def _card(folder: StudyFolder, files: list[str]) -> str:
    card = next((folder.path / file for file in files if file.endswith("card.md")), None)
    return "" if card is None else card.read_text("utf-8")


class Scorer:
    """A registered model, ready to score."""

    def __init__(self, data: Path) -> None:
        """``data``: the folder with weights and ``model.json``."""
        what = json.loads((data / _WHAT).read_text("utf-8"))
        _, arrays, find = model_file.unpack((data / _WEIGHTS).read_bytes())
        self._form = tasks.get(what["task"]).form
        network = registry.build(what["model"], self._form, find=find)
        registry.load_arrays(network.trainable, arrays)
        self._network = network
        network.trainable.eval()

    @torch.no_grad()
    def predict(self, images: NDArray[np.float32], params: dict[str, Any] | None = None) -> NDArray[np.float32]:
        """The score of the event, shape (images,), for float32 images as the task's examples are."""
        inputs = torch.from_numpy(np.ascontiguousarray(images))
        return self._form.scores(self._network.outputs(inputs)).astype(np.float32)


def _load_pyfunc(path: str) -> Scorer:
    """MLflow calls this."""
    return Scorer(Path(path))
