"""Every network that can be named is one that a hospital may train: nothing mixes patients, and each patient's
gradient, by whichever route, is the one that a plain loop computes."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from client.privacy import refuse_unprivate_layers
from client.training.device_sums import DeviceSums
from client.training.gradients import PatientGradients
from tasks.input_spec import InputSpec
from tasks.losses import loss_of
from tasks.machine.device import Placement
from tasks.models import registry
from tasks.models.network import Network
from tests import second_device
from tests.client.networks import CASES
from tests.second_device import DEVICE


def patients_of(network: Network, form: InputSpec, patients: int = 2) -> tuple[Tensor, Tensor]:
    """Two images a patient, and targets of which one finding and the outlines of one image are not known."""
    draw = torch.Generator().manual_seed(5)
    images = torch.rand(patients * 2, *form.shape, generator=draw)
    kept = images if network.features is None else network.features(images)
    with torch.no_grad():
        outputs = network.trainable(kept).shape[1]
    targets = (torch.rand(patients * 2, outputs, generator=draw) < 0.4).float()
    targets[0, 1] = float("nan")
    targets[1, form.outputs :] = float("nan")
    return kept.unflatten(0, (patients, 2)), targets.unflatten(0, (patients, 2))  # type: ignore[no-untyped-call]


def by_hand(module: nn.Module, form: InputSpec, inputs: Tensor, targets: Tensor) -> Tensor:
    rows = []
    for images, known in zip(inputs, targets, strict=True):
        module.zero_grad()
        loss_of(form, module(images), known).backward()
        rows.append(torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]))
    return torch.stack(rows)


@pytest.mark.parametrize(("spec", "form"), CASES)
def test_a_patients_gradient_is_its_own_whoever_else_is_there(spec: dict[str, Any], form: InputSpec) -> None:
    network = registry.build(spec, form, seed=3)
    module = network.trainable.train()
    refuse_unprivate_layers(module)
    if "scatter" in spec["name"]:  # which starts from zero, where its gradients say little
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    inputs, targets = patients_of(network, form)
    expected = by_hand(module, form, inputs, targets)
    assert expected.shape == (2, sum(p.numel() for p in module.parameters())), "every parameter is trained"
    gradients = PatientGradients(module, partial(loss_of, form), max_memory_mb=4096)
    gradients.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(targets[:1]))  # refuses a network that keeps state
    found = gradients.compute(inputs, targets)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
    if spec["name"] != "vit":  # its dropout draws another mask each time
        for patient in (0, 1):
            assert torch.equal(
                gradients.compute(inputs[patient : patient + 1], targets[patient : patient + 1])[0], found[patient]
            )


@pytest.mark.parametrize(("spec", "form"), CASES)
def test_a_patients_gradient_is_the_same_on_a_second_device(spec: dict[str, Any], form: InputSpec) -> None:
    """No network and no loss has a part that stays behind when it is moved."""
    network = registry.build(spec, form, seed=3)
    module = network.trainable.eval()  # nothing is random
    inputs, targets = patients_of(network, form, patients=1)
    gradients = PatientGradients(module, partial(loss_of, form), max_memory_mb=4096)
    sums = DeviceSums(module, gradients.vector, partial(loss_of, form), Placement(DEVICE), gradients.of_one)
    with second_device.used() as state:
        there = sums.try_on(inputs, targets)
        assert state.crossed["out"] == there.numel()
    expected = gradients.of_one(inputs[0], targets[0])
    assert torch.allclose(there[0], expected, atol=1e-4 * float(expected.abs().max()))
