"""A registered model from MLflow, as the same bytes that the study stored there.

Tested in ``tests/server/results/test_export.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # must stand before the import
os.environ.setdefault("DO_NOT_TRACK", "true")

import re
import tempfile
from pathlib import Path

from server.errors import StudyError, TrackingFailed

_WEIGHTS = "data/weights.safetensors"  # where server/tracking/registry.py logs them
_NAME = re.compile(r"models:/(?P<model>[^@/]+)(@(?P<alias>[^@/]+)|/(?P<version>\d+))")


def weights(name: str, uri: str) -> bytes:
    """The file of weights of a registered model.

    Args:
        name: such as ``models:/breast_ultrasound@candidate`` or ``models:/breast_ultrasound/3``.
        uri: a store in a file or a tracking server.

    Raises:
        StudyError: the name is none, or there is no store.
        TrackingFailed: there is no such model, or the store cannot be read.
    """
    named = _NAME.fullmatch(name)
    if named is None:
        raise StudyError(f"{name}: name a registered model as models:/TASK@candidate or models:/TASK/3")
    file = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not file.exists():  # MLflow would create an empty one
        raise StudyError(f"there is no MLflow store {file}; name one with --uri")
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    try:
        client = MlflowClient(uri)
        if named["alias"]:
            version = client.get_model_version_by_alias(named["model"], named["alias"])
        else:
            version = client.get_model_version(named["model"], named["version"])
        place = str(version.source)  # on a server the logged model's name, else the folder itself
        if place.startswith("models:/"):
            place = client.get_logged_model(place.removeprefix("models:/")).artifact_location
        with tempfile.TemporaryDirectory() as folder:
            # By its path, not by its name: MLflow would look a name up in its default registry.
            return Path(download_artifacts(f"{place}/{_WEIGHTS}", dst_path=folder, tracking_uri=uri)).read_bytes()
    except Exception as error:  # MLflow's own, its database's, those of the network
        raise TrackingFailed(f"MLflow at {uri} cannot provide {name}: {error}") from error
