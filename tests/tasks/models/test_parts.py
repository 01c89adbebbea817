"""Which parameters stay: the same names at the server and at every hospital."""

from __future__ import annotations

import pytest
from torch import nn

from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import registry
from tasks.models.parts import NothingToShare, staying


@pytest.mark.parametrize(("name", "head"), [("densenet121", "class_layers.out"), ("resnet18", "fc")])
def test_the_parts_of_the_real_networks(name: str, head: str) -> None:
    trainable = registry.build({"name": name, "groups": 8}, InputSpec((1, 64, 64))).trainable
    names = {name for name, _ in trainable.named_parameters()}
    assert staying(trainable, "nothing") == frozenset()
    assert staying(trainable, "head") == {f"{head}.weight", f"{head}.bias"}
    scales = staying(trainable, "normalisation")
    assert len(scales) == 2 * sum(isinstance(m, nn.GroupNorm) for m in trainable.modules()) > 30
    assert scales < names
    assert not scales & staying(trainable, "head")


@pytest.mark.parametrize(
    ("spec", "head"),
    [
        ({"name": "unet"}, "backbone.outlines"),
        ({"name": "segresnet"}, "backbone.conv_final.2"),
        ({"name": "dynunet"}, "backbone.output_block"),
    ],
)
def test_a_network_with_two_heads_has_both_as_its_head(spec: dict[str, str], head: str) -> None:
    trainable = registry.build(spec, InputSpec((1, 32, 32), (Binary(),) * 2, 1)).trainable
    names = staying(trainable, "head")
    assert {name.rpartition(".")[0].removesuffix(".conv").removesuffix(".conv") for name in names} == {head, "findings"}
    scales = staying(trainable, "normalisation")
    assert scales
    assert not scales & names


def test_linear_heads_are_all_head() -> None:
    trainable = registry.build({"name": "scatter_outline"}, InputSpec((1, 64, 64), (Binary(),) * 2, 1)).trainable
    with pytest.raises(NothingToShare, match="nothing else"):
        staying(trainable, "head")


def test_a_linear_model_is_all_head() -> None:
    trainable = registry.build(
        {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}, InputSpec((1, 64, 64))
    ).trainable
    with pytest.raises(NothingToShare, match="nothing else"):
        staying(trainable, "head")
    with pytest.raises(NothingToShare, match="has none"):
        staying(trainable, "normalisation")


def test_what_is_not_trained_neither_stays_nor_travels() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
    network[1].weight.requires_grad_(False)
    assert staying(network, "normalisation") == {"1.bias"}
    network[2].requires_grad_(False)
    with pytest.raises(NothingToShare):
        staying(network, "head")
