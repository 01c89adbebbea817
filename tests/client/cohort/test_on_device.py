"""Features and scores by way of a second device: the same numbers, and what fails there is the processor's."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from client.cohort.alone import outputs_of
from client.cohort.on_device import OnDevice
from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.machine.device import Placement, telling
from tasks.models import registry
from tests import second_device
from tests.tasks.models.encoders.graphs import graph
from tests.tasks.models.encoders.published import VisionConvNeXt, VisionViT, unsettled

THERE = Placement(second_device.DEVICE)
IMAGE, VOLUME = InputSpec((1, 32, 32), (Binary(),), 1), InputSpec((2, 16, 16, 24), (Binary(),), 1)


def built(spec: dict[str, object], form: InputSpec, content: bytes = b"") -> nn.Module:
    whole = {"weights": hashlib.sha256(content).hexdigest()} | spec if content else spec
    features = registry.build(whole, form, find=lambda wanted: content).features
    assert features is not None
    return features


def tensors_of(network: nn.Module) -> bytes:
    return save({name: tensor.clone().contiguous() for name, tensor in unsettled(network).state_dict().items()})


VIT: dict[str, object] = {"name": "vit", "patch": 8, "width": 24, "layers": 1, "heads": 3}
SMALL: dict[str, object] = {"resolution": 16, "J": 2, "L": 3, "pool": 2}
PARTS: dict[str, Callable[[], tuple[nn.Module, InputSpec]]] = {
    "scattering": lambda: (built({"name": "scatter_linear"} | SMALL, IMAGE), IMAGE),
    "scattering in space": lambda: (built({"name": "scatter_linear"} | SMALL, VOLUME), VOLUME),
    "places": lambda: (built({"name": "scatter_outline"} | SMALL, IMAGE), IMAGE),
    "places in space": lambda: (built({"name": "scatter_outline"} | SMALL, VOLUME), VOLUME),
    "convolutions": lambda: (built({"name": "encoder"} | SMALL, IMAGE, tensors_of(VisionConvNeXt())), IMAGE),
    "transformer": lambda: (built({"name": "encoder", "pool": 0}, IMAGE, tensors_of(VisionViT())), IMAGE),
    "frozen": lambda: (
        built(VIT | {"freeze": "encoder"}, IMAGE, tensors_of(registry.build(VIT, IMAGE).trainable)),
        IMAGE,
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_fixed_part_is_computed_there_and_says_the_same(part: str) -> None:
    features, form = PARTS[part]()
    images = torch.rand(2, *form.shape, generator=torch.Generator().manual_seed(1))
    here = features(images)
    with second_device.used() as state:
        there = OnDevice(features, THERE, at_once=1)
        found = torch.cat([there(image[None]) for image in images])
        assert sum(state.operations.values()) > 20
        crossed = state.crossed["out"]
    assert crossed == found.numel(), "nothing but the features comes back"
    torch.testing.assert_close(found, here, rtol=1e-4, atol=1e-5)


def test_a_graph_runs_on_the_processor_wherever_its_images_come_from() -> None:
    features = built({"name": "encoder", "pool": 0}, IMAGE, graph().SerializeToString())
    images = torch.rand(1, *IMAGE.shape)
    with second_device.used():
        torch.testing.assert_close(OnDevice(features, THERE, 1)(images), features(images), rtol=1e-4, atol=1e-5)


def test_a_part_that_the_device_does_not_have_is_the_processors() -> None:
    features, form = PARTS["scattering"]()
    told: list[str] = []
    with second_device.used(fails=frozenset({"_fft_c2c"})), telling(told.append):
        there = OnDevice(features, THERE, 1)
        for image in torch.rand(3, 1, *form.shape):
            assert torch.equal(there(image), features(image))
    (said,) = told
    assert "_fft_c2c is not implemented" in said


class Failing(nn.Module):
    """Fails on images whose first value is negative, on either."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    def forward(self, images: Tensor) -> Tensor:
        if float(images[:, 0].min()) < 0:
            raise RuntimeError("PATIENT-4711 cannot be computed")
        made: Tensor = self.layers(images)
        return made


def test_scores_are_each_patients_own_there_too(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(30, 3, generator=torch.Generator().manual_seed(2))
    rows = [torch.arange(0, 20), torch.tensor([20]), torch.arange(21, 30)]
    sound = outputs_of(Failing(), images, rows)
    images[20, 0] = -1
    with second_device.used(memory=16) as state, caplog.at_level(logging.CRITICAL), telling(lambda text: None):
        failing = outputs_of(Failing(), images, rows, THERE)
        assert state.operations["addmm"] >= 2 * (10 + 5), "at most four images fit"
    assert torch.isnan(failing[20]).all()
    torch.testing.assert_close(failing[[*range(20), *range(21, 30)]], sound[[*range(20), *range(21, 30)]])


def test_one_linear_layer_never_goes_there() -> None:
    layer, images = nn.Linear(5, 1), torch.rand(4, 5)
    with second_device.used() as state:
        outputs_of(layer, images, [torch.arange(4)], THERE)
        assert not state.operations
