"""Models for other programs compute what Consilium's own do, also for more images than they were traced with.

ONNX takes its exporter a minute: ``tests/e2e/test_onnx.py``.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle.config_parser import ConfigParser

from server.errors import StudyError
from server.results import open_formats
from tasks import task as tasks
from tasks.models import model_file, registry
from tasks.models.model_file import ModelHead
from tasks.models.network import Network
from tasks.task import Task

SCATTER = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}


def drawn(task: str, model: dict[str, object]) -> tuple[ModelHead, Task, Network]:
    """A network with a head that is not zero."""
    found = tasks.get(task)
    network = registry.build(model, found.form, seed=1)
    with torch.no_grad():
        for parameter in network.trainable.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.1)
    network.trainable.eval()
    head = ModelHead(
        study="demo-1",
        document="0" * 64,
        release="0.2.0",
        task=task,
        task_version=1,
        contract="1" * 64,
        model=model,  # type: ignore[arg-type]
        threshold=0.5,
        accepted=None,
        probe=model_file.probe(found, network),
    )
    return head, found, network


def examples(task: Task, number: int) -> torch.Tensor:
    return torch.rand(number, *task.example_shape, generator=torch.Generator().manual_seed(3))


def expected(network: Network, images: torch.Tensor, findings: int) -> np.ndarray:
    return np.asarray(torch.sigmoid(network.outputs(images)[:, :findings]).detach().numpy())


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("breast_ultrasound", SCATTER),
        ("chest_xray", SCATTER),
        ("lung_ct", {"name": "scatter_linear", "resolution": 8, "J": 1, "L": 3, "pool": 2}),
    ],
)
def test_torchscript_scores_any_number_of_images_as_the_model_does(
    task: str, model: dict[str, object], tmp_path: Path
) -> None:
    head, found, network = drawn(task, model)
    open_formats.write("torchscript", tmp_path / "new" / "model.ts", head, found, network)
    loaded = torch.jit.load(io.BytesIO((tmp_path / "new" / "model.ts").read_bytes()))  # type: ignore[no-untyped-call]
    for number in (1, 5):
        images = examples(found, number)
        scores = loaded(images)
        np.testing.assert_allclose(scores.numpy(), expected(network, images, found.form.outputs), atol=1e-4)


def test_a_bundle_opens_and_runs_with_monai(tmp_path: Path) -> None:
    head, found, network = drawn("breast_ultrasound", SCATTER)
    folder = tmp_path / "bundle"
    open_formats.write("bundle", folder, head, found, network)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    required = {"version", "monai_version", "pytorch_version", "numpy_version", "task", "description", "authors"}
    assert required <= metadata.keys()
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == found.form.outputs
    (folder / "images").mkdir()
    images = examples(found, 3)
    for number, image in enumerate(images):
        np.save(folder / "images" / f"{number}.npy", image.numpy())
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    parser.get_parsed_content("run")
    rows = (folder / "scores.csv").read_text().splitlines()
    assert rows[0] == "file,score"
    told = [float(row.rsplit(",", 1)[1]) for row in rows[1:]]
    np.testing.assert_allclose(told, expected(network, images, 1)[:, 0], atol=1e-4)
    with pytest.raises(StudyError, match="already exists"):
        open_formats.write("bundle", folder, head, found, network)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, found, network = drawn("breast_ultrasound", SCATTER)
    forward = open_formats.ScoringGraph.forward
    monkeypatch.setattr(open_formats.ScoringGraph, "forward", lambda self, images: forward(self, images.flip(-2)))
    with pytest.raises(StudyError, match="nothing was written"):
        open_formats.write("torchscript", tmp_path / "model.ts", head, found, network)
    assert list(tmp_path.iterdir()) == []
