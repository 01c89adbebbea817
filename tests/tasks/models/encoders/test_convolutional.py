"""Features from a file's tensors are those of the network that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from monai.networks.nets.densenet import DenseNet
from monai.networks.nets.efficientnet import EfficientNetBN
from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import Tensor, nn

from tasks.models.encoders.layouts import recognise
from tests.tasks.models.encoders.published import VisionConvNeXt, VisionEfficientNet, unsettled


def images(channels: int = 3, side: int = 64, axes: int = 2) -> Tensor:
    return torch.rand(2, channels, *[side] * axes, generator=torch.Generator().manual_seed(3))


def resnet(
    block: type, layers: list[int], *, axes: int = 2, channels: int = 3, bias: bool = False, shortcut: str = "B"
) -> nn.Module:
    """MONAI's, which is torchvision's with stride 2 at first and no bias in its shortcuts."""
    network: nn.Module = ResNet(
        block, layers, [8, 16, 24, 32], axes, channels, conv1_t_stride=1 if bias else 2, bias_downsample=bias,
        shortcut_type=shortcut, num_classes=5,
    )  # fmt: skip
    return network


def without_head(network: nn.Module, name: str) -> nn.Module:
    setattr(network, name, nn.Identity())
    return network


@pytest.mark.parametrize(
    ("network", "layout", "given"),
    [
        (lambda: resnet(ResNetBlock, [2, 1, 2, 1]), "torchvision ResNet", images()),
        (lambda: resnet(ResNetBottleneck, [1, 2, 1, 1]), "torchvision ResNet", images()),
        (lambda: resnet(ResNetBlock, [1, 1, 1, 1], bias=True), "MONAI ResNet", images()),
        (lambda: resnet(ResNetBottleneck, [1, 1, 1, 1], bias=True, channels=1), "MONAI ResNet", images(1)),
        (lambda: resnet(ResNetBottleneck, [1, 1, 2, 1], axes=3, channels=1), "torchvision ResNet", images(1, 32, 3)),
        (
            lambda: resnet(ResNetBlock, [1, 1, 1, 1], axes=3, channels=1, shortcut="A"),
            "torchvision ResNet",
            images(1, 32, 3),
        ),
    ],
    ids=["basic", "bottleneck", "monai", "monai bottleneck", "volumes", "MedicalNet's shortcut A"],
)
def test_a_resnet_gives_its_own_features(network: Callable[[], nn.Module], layout: str, given: Tensor) -> None:
    original = unsettled(network())
    found = recognise(original.state_dict())
    assert (found.facts.layout, found.channels, found.axes) == (layout, given.shape[1], given.dim() - 2)
    with torch.no_grad():
        torch.testing.assert_close(found.run(given), without_head(original, "fc")(given), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("renamed", [False, True], ids=["MONAI's", "torchvision's"])
def test_a_densenet_gives_its_own_features(axes: int, renamed: bool) -> None:
    network = unsettled(DenseNet(axes, 1, 5, init_features=8, growth_rate=4, block_config=(2, 3, 2), bn_size=2))
    tensors = network.state_dict()
    if renamed:
        tensors = {
            name.replace(".layers.", ".").replace("class_layers.out", "classifier"): t for name, t in tensors.items()
        }
    found = recognise(tensors)
    assert found.facts.layout == ("torchvision DenseNet" if renamed else "MONAI DenseNet")
    given = images(1, 48, axes)
    with torch.no_grad():
        maps = torch.relu(network.features(given))
        torch.testing.assert_close(found.run(given), maps.flatten(2).mean(dim=2), rtol=1e-4, atol=1e-5)


def test_torchxrayvisions_densenet_takes_one_channel_from_minus_1024_to_1024() -> None:
    network = DenseNet(2, 1, 5, init_features=8, growth_rate=4, block_config=(2, 2), bn_size=2)
    tensors = {name.replace(".layers.", ".").replace("class_layers.out", "classifier"): t
               for name, t in network.state_dict().items()}  # fmt: skip
    facts = recognise(tensors | {"op_threshs": torch.zeros(18)}).facts
    black, white = ((value - facts.mean[0]) / facts.std[0] for value in (0.0, 1.0))
    assert (black, white) == (-1024, 1024)


@pytest.mark.parametrize("axes", [2, 3])
def test_monais_efficientnet_gives_its_own_features(axes: int) -> None:
    network = unsettled(
        EfficientNetBN("efficientnet-b0", pretrained=False, spatial_dims=axes, in_channels=1, num_classes=3)
    )
    given = images(1, 224 if axes == 2 else 32, axes)  # its padding is fixed for 224, whatever it is shown
    found = recognise(network.state_dict())
    assert found.facts.layout == "MONAI EfficientNet"
    if axes == 3:
        assert found.run(given).shape == (2, 1280)
        return
    network._fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(found.run(given), network(given), rtol=1e-3, atol=1e-5)


def test_torchvisions_efficientnet_gives_its_own_features() -> None:
    network = unsettled(VisionEfficientNet())
    found = recognise(network.state_dict())
    assert found.facts.layout == "torchvision EfficientNet"
    with torch.no_grad():
        torch.testing.assert_close(found.run(images()), network(images()), rtol=1e-4, atol=1e-5)


def test_tensorflows_padding_is_another_encoder() -> None:
    found = recognise(unsettled(VisionEfficientNet()).state_dict())
    same = recognise(VisionEfficientNet().state_dict(), replace(found.facts, same_padding=True))
    assert same.facts.same_padding
    with torch.no_grad():
        assert not torch.allclose(found.run(images()), same.run(images()), atol=1e-3)


def test_torchvisions_convnext_gives_its_own_features() -> None:
    network = unsettled(VisionConvNeXt())
    found = recognise(network.state_dict())
    assert found.facts.layout == "torchvision ConvNeXt"
    with torch.no_grad():
        torch.testing.assert_close(found.run(images()), network(images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("theirs", ["timm ConvNeXt", "ConvNeXt's own"])
def test_a_convnext_of_other_names_is_the_same(theirs: str) -> None:
    network = unsettled(VisionConvNeXt())
    expected = recognise(network.state_dict()).run(images())
    found = recognise({other_name(name, theirs): tensor for name, tensor in network.state_dict().items()})
    assert found.facts.layout == theirs
    with torch.no_grad():
        torch.testing.assert_close(found.run(images()), expected, rtol=0, atol=0)


def other_name(name: str, theirs: str) -> str:
    """From torchvision's name of a ConvNeXt's tensor to that in timm or in the authors' own repository."""
    timm = theirs.startswith("timm")
    first, *rest = name.split(".")
    if first == "classifier":
        return {"0": "head.norm", "2": "head.fc"}[rest[0]].removeprefix("" if timm else "head.").replace(
            "fc", "fc" if timm else "head"
        ) + f".{rest[1]}"  # fmt: skip
    place = int(rest[0])
    if place == 0:
        return f"stem.{rest[1]}.{rest[2]}" if timm else f"downsample_layers.0.{rest[1]}.{rest[2]}"
    stage = place // 2
    if place % 2 == 0:
        return (
            f"stages.{stage}.downsample.{rest[1]}.{rest[2]}"
            if timm
            else f"downsample_layers.{stage}.{rest[1]}.{rest[2]}"
        )
    block = f"stages.{stage}.blocks.{rest[1]}" if timm else f"stages.{stage}.{rest[1]}"
    if rest[2] == "layer_scale":
        return f"{block}.gamma"
    parts = ("conv_dw", "norm", "mlp.fc1", "mlp.fc2") if timm else ("dwconv", "norm", "pwconv1", "pwconv2")
    return f"{block}.{dict(zip(('0', '2', '3', '5'), parts, strict=True))[rest[3]]}.{rest[4]}"


def test_an_efficientnet_of_other_depth_is_refused_in_words() -> None:
    tensors = {name: t for name, t in VisionEfficientNet().state_dict().items() if not name.startswith("features.7.")}
    with pytest.raises(ValueError, match="it has 6 stages of blocks and an EfficientNet has 7"):
        recognise(tensors)
