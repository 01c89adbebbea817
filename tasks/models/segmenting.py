"""MONAI's networks that outline structures, in two and three dimensions, with a second head for the findings.

The findings are read from the deepest features, averaged over space; encoder and deepest features serve both heads.
All have group normalisation. Images whose sides they cannot halve often enough get a frame of zeros, and the outlines
are cropped back.

Tested in ``tests/tasks/models/test_registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models.deep import axes, frame, unframed
from tasks.models.network import Network

Run = Callable[[Any, Tensor], tuple[Tensor, Tensor]]
"""From a backbone and images (images, channels, ...) to logits of structures (images, structures, ...) and deepest
features (images, features, ...)."""


_WIDEST = 64


class TwoHeads(nn.Module):
    """Maps float32 (images, channels, ...) to logits (images, findings + structures * pixels).

    Args:
        backbone: the network, which ends with a layer for the structures.
        run: calls it so that its deepest features are seen.
        deepest: number of these features.
        last: name of the backbone's last layer.
    """

    def __init__(self, backbone: nn.Module, run: Run, deepest: int, form: InputSpec, last: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.findings = nn.Linear(deepest, form.outputs)
        self.heads = (f"backbone.{last}", "findings")
        self._run, self._size = run, form.shape[1:]

    def forward(self, images: Tensor) -> Tensor:
        """All logits."""
        maps, deepest = self._run(self.backbone, images)
        findings = self.findings(deepest.flatten(2).mean(dim=2))
        return torch.cat([findings, unframed(maps, self._size).flatten(1)], dim=1)


def unet(options: schema.UNet, form: InputSpec) -> Network:
    """E. Kerfoot et al., Left-ventricle quantification using residual U-Net, STACOM 2018, after O. Ronneberger et al.,
    U-Net, MICCAI 2015."""
    from monai.networks.nets.unet import UNet

    _refuse(options, form)
    channels = [options.width * 2**level for level in range(options.levels)]
    network = UNet(
        spatial_dims=axes(form),
        in_channels=form.shape[0],
        out_channels=options.width,
        channels=channels,
        strides=[2] * (options.levels - 1),
        num_res_units=2,
        norm=("group", {"num_groups": options.groups}),
    )
    # MONAI normalises the channels of the last layer, which are few here; so the last layer is one more.
    convolution = nn.Conv2d if axes(form) == 2 else nn.Conv3d
    network.outlines = convolution(options.width, form.structures, kernel_size=1)

    def run(backbone: UNet, images: Tensor) -> tuple[Tensor, Tensor]:
        maps, deepest = _through_unet(backbone.model, images)
        return backbone.outlines(maps), deepest  # type: ignore[operator]

    heads = TwoHeads(network, run, channels[-1], form, "outlines")
    return Network(frame(form, multiple=2 ** (options.levels - 1)), heads, outlines=True)


def _through_unet(level: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of MONAI's UNet, which is way down, connection round the next level, and way up."""
    if not isinstance(level, nn.Sequential):
        deepest: Tensor = level(images)
        return deepest, deepest
    down, connection, up = level
    skipped = down(images)
    below, deepest = _through_unet(connection.submodule, skipped)  # type: ignore[arg-type]
    return up(torch.cat([skipped, below], dim=1)), deepest


def segresnet(options: schema.SegResNet, form: InputSpec) -> Network:
    """A. Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, BrainLes 2018, without the
    autoencoder."""
    from monai.networks.nets.segresnet import SegResNet

    _refuse(options, form)
    network = SegResNet(
        spatial_dims=axes(form),
        init_filters=options.width,
        in_channels=form.shape[0],
        out_channels=form.structures,
        norm=("group", {"num_groups": options.groups}),
    )

    def run(backbone: SegResNet, images: Tensor) -> tuple[Tensor, Tensor]:
        deepest, by_level = backbone.encode(images)
        return backbone.decode(deepest, by_level[::-1]), deepest

    heads = TwoHeads(network, run, options.width * 8, form, "conv_final.2")
    return Network(frame(form, multiple=8), heads, outlines=True)


def dynunet(options: schema.DynUNet, form: InputSpec) -> Network:
    """F. Isensee et al., nnU-Net, Nature Methods 18:203, 2021."""
    from monai.networks.nets.dynunet import DynUNet

    _refuse(options, form)
    filters = [options.width * 2**level for level in range(options.levels)]
    halved = [2] * (options.levels - 1)
    network = DynUNet(
        spatial_dims=axes(form),
        in_channels=form.shape[0],
        out_channels=form.structures,
        kernel_size=[3] * options.levels,
        strides=[1, *halved],
        upsample_kernel_size=halved,
        filters=filters,
        norm_name=("group", {"num_groups": options.groups}),
    )
    # MONAI registers every block a second time, as part of ``skip_layers``. With two names for a parameter
    # ``torch.func.functional_call`` does not put back what it has exchanged.
    for twice in ("input_block", "downsamples", "bottleneck", "upsamples"):
        delattr(network, twice)

    def run(backbone: DynUNet, images: Tensor) -> tuple[Tensor, Tensor]:
        maps, deepest = _through_dynunet(backbone.skip_layers, images)
        return backbone.output_block(maps), deepest

    heads = TwoHeads(network, run, filters[-1], form, "output_block")
    return Network(frame(form, multiple=2 ** (options.levels - 1), least=2**options.levels), heads, outlines=True)


def _through_dynunet(level: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of MONAI's DynUNet, likewise."""
    if not hasattr(level, "next_layer"):
        deepest: Tensor = level(images)
        return deepest, deepest
    skipped = level.downsample(images)  # type: ignore[operator]
    below, deepest = _through_dynunet(level.next_layer, skipped)  # type: ignore[arg-type]
    return level.upsample(below, skipped), deepest  # type: ignore[operator]


def _refuse(options: schema.UNet | schema.SegResNet | schema.DynUNet, form: InputSpec) -> None:
    problems = []
    if not form.structures:
        problems.append(
            "it outlines structures and this task has none: take scatter_linear, densenet121, resnet18, efficientnet "
            "or vit"
        )
    if not 1 <= options.groups <= options.width <= _WIDEST or options.width % options.groups:
        problems.append(
            f"width={options.width} must be a multiple of groups={options.groups}, which is 1 or more, up to {_WIDEST}"
        )
    if not isinstance(options, schema.SegResNet) and not 3 <= options.levels <= 6:
        problems.append(f"levels={options.levels}: use 3 to 6")
    if problems:
        raise ValueError("; ".join(problems))
