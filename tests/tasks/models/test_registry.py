"""Every network that can be named is private by construction, repeatable, and refuses options that it does not have."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conf import load
from conf.schema.model import EfficientNet
from tasks import task as tasks
from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import registry
from tasks.models.registry import UnknownModel

CHOICES = sorted(
    path.stem
    for path in (load.FOLDER / "model").glob("*.yaml")
    if not path.stem.startswith(("_", "encoder", "scatter_outline_breast", "custom"))
)
"""Some are nothing without a file, which an order names by its digest, or without a package: ``test_frozen.py``,
``test_outliner.py``, ``test_installed.py``."""
FOR_BOTH = ["scatter_linear_medmnist"]
"""Seven orientations are a number that volumes have as well."""
FOR_IMAGES = [c for c in CHOICES if c.startswith("scatter") and "_3d" not in c and c not in FOR_BOTH]
OUTLINING = ["dynunet", "scatter_outline", "scatter_outline_3d", "segresnet", "unet"]
FORM = InputSpec((1, 64, 64), (Binary(),) * 2, structures=1)
VOLUME = InputSpec((2, 32, 40, 36), (Binary(),) * 2, structures=2)
SMALL: dict[str, Any] = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}


def spec_of(choice: str) -> dict[str, Any]:
    return dict(_composed(choice))


@cache
def _composed(choice: str) -> dict[str, Any]:
    return asdict(load.load([f"model={choice}"]).model)  # a sixth of a second each


def test_every_builder_is_a_choice_and_every_choice_a_builder() -> None:
    assert {spec_of(choice)["name"] for choice in CHOICES} == registry._BUILDERS.keys() - {"custom"}
    assert registry._OPTIONS.keys() - registry._BUILDERS.keys() == {"encoder"}


def outputs_of(form: InputSpec, outlines: bool) -> int:
    return form.outputs + (form.structures * math.prod(form.shape[1:]) if outlines else 0)


@pytest.mark.parametrize("name", tasks.clinical())
def test_the_model_for_small_cohorts_fits_every_task(name: str) -> None:
    form = tasks.get(name).form
    spec = spec_of("scatter_linear" if len(form.shape) == 3 else "scatter_linear_3d")
    if min(form.shape[1:]) < spec["resolution"]:
        spec |= {"resolution": 0, "J": 2}
    network = registry.build(spec, form)
    inputs = torch.rand(1, *form.shape)
    outputs = network.outputs(inputs)
    assert outputs.shape == (1, outputs_of(form, network.outlines))
    assert torch.isfinite(outputs).all()
    assert torch.equal(network.logits(inputs), outputs[:, 0])


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("form", [FORM, VOLUME], ids=["image", "volume"])
def test_findings_come_first_and_then_every_pixel_where_a_network_outlines(choice: str, form: InputSpec) -> None:
    if choice in FOR_IMAGES and form is VOLUME:
        with pytest.raises(UnknownModel, match=f"model={spec_of(choice)['name']}_3d"):
            registry.build(spec_of(choice), form)
        return
    network = registry.build(spec_of(choice), form)
    assert network.outlines == (choice in OUTLINING) == registry.outlines(spec_of(choice), form)
    assert network.outputs(torch.rand(2, *form.shape)).shape == (2, outputs_of(form, network.outlines))


@pytest.mark.parametrize("choice", CHOICES)
def test_without_structures_a_network_answers_the_findings_or_says_what_to_take(choice: str) -> None:
    form = InputSpec((1, 32, 32), (Binary(),) * 3)
    spec = spec_of(choice) | ({"resolution": 16, "J": 2} if "scatter" in choice else {})
    if choice in OUTLINING:
        with pytest.raises(UnknownModel, match="scatter_linear"):
            registry.build(spec, form)
        return
    network = registry.build(spec, form)
    assert not network.outlines
    assert not registry.outlines(spec, form)
    assert network.outputs(torch.rand(2, *form.shape)).shape == (2, 3)


def test_images_too_small_for_a_densenet_get_a_frame_of_zeros_and_keep_their_values() -> None:
    network = registry.build(spec_of("densenet121"), InputSpec((1, 28, 31)))
    assert network.features is not None
    images = torch.rand(2, 1, 28, 31) + 1
    framed = network.features(images)
    assert framed.shape == (2, 1, 32, 32)
    assert torch.equal(framed[..., 2:30, 0:31], images)
    assert float(framed.sum()) == pytest.approx(float(images.sum()), rel=1e-6)
    assert registry.build(spec_of("densenet121"), InputSpec((1, 32, 40))).features is None


@pytest.mark.parametrize("choice", CHOICES)
def test_nothing_in_a_network_mixes_patients_or_remembers_them(choice: str) -> None:
    network = registry.build(spec_of(choice), FORM)
    assert list(network.trainable.buffers()) == []
    batch = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    assert not [
        m
        for part in (network.trainable, network.features or nn.Identity())
        for m in part.modules()
        if isinstance(m, batch)
    ]
    if network.features is not None:
        assert not [p for p in network.features.parameters() if p.requires_grad]
        before = {name: value.clone() for name, value in network.features.named_buffers()}
        network.features.train()(torch.rand(2, 1, 64, 64))
        assert all(torch.equal(before[name], value) for name, value in network.features.named_buffers())


@pytest.mark.parametrize("choice", CHOICES)
def test_one_images_logit_does_not_depend_on_its_company(choice: str) -> None:
    network = registry.build(spec_of(choice), FORM, seed=3)
    network.trainable.train()
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = network.outputs(images)
        alone = torch.cat([network.outputs(images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_seed_alone_decides_the_weights(choice: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (registry.build(spec_of(choice), FORM, seed).trainable for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    first, second, third = (registry.arrays_of(module) for module in (one, same, other))
    assert first.keys() == second.keys() == {name for name, _ in one.named_parameters()}
    assert all(np.array_equal(first[name], second[name]) for name in first)
    if "scatter" not in choice:  # which starts from zero whatever the seed
        assert any(not np.array_equal(first[name], third[name]) for name in first)


def test_the_arrays_are_copies() -> None:
    module = registry.build(SMALL, InputSpec((1, 64, 64))).trainable
    arrays = registry.arrays_of(module)
    assert {value.dtype for value in arrays.values()} == {np.dtype(np.float32)}
    arrays["bias"] += 1
    assert module.get_parameter("bias").tolist() == [0.0]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, "densenet121, dynunet, efficientnet"),
        ({"name": "gpt"}, "'gpt'"),
        ({"name": "os.system"}, "'os.system'"),
        (SMALL | {"j": 3, "K": 1}, "j=3, K=1"),
        (SMALL | {"J": True}, "J=True"),
        (SMALL | {"J": 2.0}, "J=2.0"),
        (SMALL | {"J": "2"}, "J='2'"),
        (SMALL | {"J": -1}, "J=-1"),
        (SMALL | {"J": 9}, "lower J"),
        (SMALL | {"L": 10**9}, "L=1000000000"),
        (SMALL | {"pool": 0}, "pool=0"),
        (SMALL | {"resolution": 65}, "resolution=65"),
        ({"name": "densenet121", "groups": 0}, "groups=0"),
        ({"name": "densenet121", "groups": -8}, "groups=-8"),
        ({"name": "resnet18", "groups": 7}, "num_groups"),
        ({"name": "resnet18", "weights": "/etc/passwd"}, "weights"),
        ({"name": "vit", "patch": 0}, "patch=0"),
        ({"name": "vit", "width": 100}, "width=100"),
        ({"name": "vit", "layers": 0}, "layers=0"),
        ({"name": "unet", "levels": 9}, "levels=9"),
        ({"name": "dynunet", "width": 20}, "width=20"),
        ({"name": "segresnet", "groups": 0}, "groups=0"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_by_name(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownModel, match=told):
        registry.build(spec, InputSpec((1, 64, 64), structures=1 if spec.get("name") in OUTLINING else 0))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_efficientnet_does_not_begin_saturated(seed: int) -> None:
    """As MONAI draws its last layer, scores begin at 13, -9 and 1, where half the patients have no gradient."""
    form = InputSpec((1, 64, 64))
    network = registry.build(asdict(EfficientNet()), form, seed)
    images = torch.rand(3, *form.shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(network.trainable(images), torch.zeros(3, form.outputs))
