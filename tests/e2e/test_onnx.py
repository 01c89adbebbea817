"""A model as ONNX: the exporter takes a minute of a processor, too long for `make test`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from server.results import open_formats
from tasks.models.encoders import graph
from tests.server.results.test_open_formats import SCATTER, drawn, examples, expected


def test_onnx_scores_any_number_of_images_as_the_model_does(tmp_path: Path) -> None:
    head, found, network = drawn("breast_ultrasound", {**SCATTER, "resolution": 8, "L": 1})
    open_formats.write("onnx", tmp_path / "model.onnx", head, found, network)
    for number in (1, 5):
        images = examples(found, number)
        scores = graph.run_once((tmp_path / "model.onnx").read_bytes(), images.numpy())
        np.testing.assert_allclose(scores, expected(network, images, found.form.outputs), atol=1e-4)
