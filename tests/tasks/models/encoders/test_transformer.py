"""Vision transformers from their tensors, whatever these are called."""

from __future__ import annotations

import re

import pytest
import torch
from monai.networks.nets.vit import ViT
from torch import Tensor

from tasks.models.encoders.layouts import recognise
from tests.tasks.models.encoders.published import VisionViT, unsettled

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def renamed(tensors: dict[str, Tensor], rules: list[tuple[str, str]]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        for pattern, ours in rules:
            name = re.sub(pattern, ours, name)
        found[name] = tensor
    return found


TIMM = [
    (r"^class_token$", "cls_token"),
    (r"^conv_proj", "patch_embed.proj"),
    (r"^encoder\.pos_embedding", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_", ".norm"),
    (r"self_attention\.in_proj_", "attn.qkv."),
    (r"self_attention\.out_proj", "attn.proj"),
    (r"mlp\.0\.", "mlp.fc1."),
    (r"mlp\.3\.", "mlp.fc2."),
    (r"^heads\.head", "head"),
]


def test_torchvisions_vit_gives_its_class_token() -> None:
    network = unsettled(VisionViT())
    found = recognise(network.state_dict())
    assert (found.facts.layout, found.facts.side) == ("torchvision ViT", 32)
    with torch.no_grad():
        torch.testing.assert_close(found.run(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


def test_timms_vit_is_the_same_and_a_token_of_the_mean_is_none() -> None:
    network = unsettled(VisionViT())
    tensors = renamed(network.state_dict(), TIMM)
    found = recognise(tensors)
    assert found.facts.layout == "timm ViT"
    with torch.no_grad():
        torch.testing.assert_close(found.run(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)
    averaged = {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in tensors.items()
    }
    with torch.no_grad():
        assert not torch.allclose(recognise(averaged).run(IMAGES), found.run(IMAGES), atol=1e-2)


def test_vits_of_transformers_are_the_same() -> None:
    network = unsettled(VisionViT())
    tensors = {}
    for name, tensor in renamed(network.state_dict(), TIMM).items():
        if match := re.match(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                tensors[f"vit.encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = rows
            continue
        for pattern, theirs in (
            (r"^blocks\.(\d+)\.norm1", r"encoder.layer.\1.layernorm_before"),
            (r"^blocks\.(\d+)\.norm2", r"encoder.layer.\1.layernorm_after"),
            (r"^blocks\.(\d+)\.attn\.proj", r"encoder.layer.\1.attention.output.dense"),
            (r"^blocks\.(\d+)\.mlp\.fc1", r"encoder.layer.\1.intermediate.dense"),
            (r"^blocks\.(\d+)\.mlp\.fc2", r"encoder.layer.\1.output.dense"),
            (r"^norm\.", "layernorm."),
            (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
            (r"^pos_embed", "embeddings.position_embeddings"),
            (r"^cls_token", "embeddings.cls_token"),
        ):
            name = re.sub(pattern, theirs, name)
        tensors[f"vit.{name}" if not name.startswith("head") else "classifier.weight"] = tensor
    found = recognise(tensors)
    assert found.facts.layout == "transformers ViT"
    with torch.no_grad():
        torch.testing.assert_close(found.run(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_monais_vit_gives_its_class_token(axes: int) -> None:
    network = unsettled(
        ViT(
            1,
            [32] * axes,
            [16] * axes,
            128,
            256,
            2,
            2,
            classification=True,
            num_classes=3,
            spatial_dims=axes,
            post_activation="none",
            qkv_bias=True,
        )
    )
    found = recognise(network.state_dict())
    assert (found.facts.layout, found.facts.side, found.axes) == ("MONAI ViT", 32, axes)
    given = torch.rand(1, 1, *[32] * axes, generator=torch.Generator().manual_seed(2))
    network.classification_head = torch.nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(found.run(given), network(given)[0], rtol=1e-3, atol=1e-4)


def test_registers_have_no_place_and_scales_count() -> None:
    tensors = renamed(unsettled(VisionViT()).state_dict(), TIMM)
    plain = {name: t for name, t in tensors.items() if not name.startswith("head")}
    with torch.no_grad():
        before = recognise(plain).run(IMAGES)
        scales = {f"blocks.{n}.ls{i}.gamma": torch.ones(128) for n in range(2) for i in (1, 2)}
        scaled = recognise(plain | scales)
        assert scaled.facts.layout == "DINOv2 ViT"
        torch.testing.assert_close(scaled.run(IMAGES), before, rtol=1e-5, atol=1e-6)
        registered = recognise(plain | scales | {"register_tokens": torch.ones(1, 4, 128)})
        assert registered.facts.side == 32
        assert not torch.allclose(registered.run(IMAGES), before, atol=1e-3)


def test_a_width_that_its_heads_do_not_divide_is_refused() -> None:
    tensors = renamed(VisionViT(width=100, heads=2).state_dict(), TIMM)
    found = recognise(tensors)
    assert found.run(IMAGES).shape == (2, 100)  # one head: 100 is less than two times 64
    with pytest.raises(ValueError, match="no multiple of 3 attention heads"):
        recognise(tensors, type(found.facts)(**{**vars(found.facts), "heads": 3}))
