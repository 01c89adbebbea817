"""MONAI's networks that classify, in two and three dimensions, made private by construction.

Batch normalisation mixes patients and is exchanged for group normalisation, what is random while training is taken out,
and images whose size a network cannot take get a frame of zeros, which is fixed and not trained.

Tested in ``tests/tasks/models/test_registry.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models.network import Network

_LEAST = 32
"""DenseNet and EfficientNet halve each axis five times."""


def densenet121(options: schema.DenseNet, form: InputSpec) -> Network:
    """G. Huang et al., Densely connected convolutional networks, CVPR 2017."""
    from monai.networks.nets.densenet import DenseNet121

    network = DenseNet121(spatial_dims=axes(form), in_channels=form.shape[0], out_channels=form.outputs)
    return Network(frame(form, least=_LEAST), with_group_norm(network, options))


def resnet18(options: schema.ResNet, form: InputSpec) -> Network:
    """K. He et al., Deep residual learning for image recognition, CVPR 2016."""
    from monai.networks.nets.resnet import resnet18 as monai_resnet18

    network = monai_resnet18(spatial_dims=axes(form), n_input_channels=form.shape[0], num_classes=form.outputs)
    return Network(None, with_group_norm(network, options))


def efficientnet(options: schema.EfficientNet, form: InputSpec) -> Network:
    """B0 of M. Tan and Q. Le, EfficientNet, ICML 2019."""
    from monai.networks.nets.efficientnet import EfficientNetBN, MBConvBlock

    network = EfficientNetBN(
        "efficientnet-b0",
        pretrained=False,
        spatial_dims=axes(form),
        in_channels=form.shape[0],
        num_classes=form.outputs,
    )
    network.set_swish(memory_efficient=False)  # the other one is a function of its own, which vmap cannot run
    network._dropout.p = 0.0
    for block in network.modules():
        if isinstance(block, MBConvBlock):
            block.drop_connect_rate = None
    # MONAI draws this layer so wide that scores begin saturated (13, -9 and 1 for three seeds), where nothing trains.
    nn.init.zeros_(network._fc.weight)
    nn.init.zeros_(network._fc.bias)
    return Network(frame(form, least=_LEAST), with_group_norm(network, options))


def vit(options: schema.ViT, form: InputSpec) -> Network:
    """A. Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021. It has layer normalisation of its own."""
    from monai.networks.nets.vit import ViT

    problems = [
        f"{name}={getattr(options, name)}: use 1 to {most}"
        for name, most in {"patch": min(form.shape[1:]), "layers": 24, "heads": 16, "width": 1024}.items()
        if not 1 <= getattr(options, name) <= most
    ]
    if not problems and options.width % options.heads:
        problems.append(f"width={options.width} must be a multiple of heads={options.heads}")
    if problems:
        raise ValueError("; ".join(problems))
    size = framed_size(form, multiple=options.patch)
    network = ViT(
        in_channels=form.shape[0],
        img_size=size,
        patch_size=options.patch,
        hidden_size=options.width,
        mlp_dim=4 * options.width,
        num_layers=options.layers,
        num_heads=options.heads,
        classification=True,
        num_classes=form.outputs,
        spatial_dims=axes(form),
        post_activation="none",
        qkv_bias=True,
    )
    for block in network.blocks:
        block.norm_cross_attn = nn.Identity()  # belongs to an attention that is not there: noise, and never a gradient
    return Network(frame(form, multiple=options.patch), _First(network))


class _First(nn.Module):
    """Of a network that gives more than its answer, the answer."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone = network

    def forward(self, images: Tensor) -> Tensor:
        """What comes first."""
        answer: Tensor = self.backbone(images)[0]
        return answer


def axes(form: InputSpec) -> int:
    """2 for images, 3 for volumes."""
    return len(form.shape) - 1


def framed_size(form: InputSpec, least: int = 1, multiple: int = 1) -> tuple[int, ...]:
    """Size of an input with its frame along each axis: at least so much, and a multiple."""
    return tuple(-(-max(size, least) // multiple) * multiple for size in form.shape[1:])


def frame(form: InputSpec, least: int = 1, multiple: int = 1) -> nn.Module | None:
    """Zeros around inputs that are smaller, see ``framed_size``: on both sides the same, or one more behind."""
    widths: list[int] = []
    for size, framed in zip(form.shape[1:], framed_size(form, least, multiple), strict=True):
        extra = framed - size
        widths = [extra // 2, extra - extra // 2, *widths]  # the last axis comes first
    if not any(widths):
        return None
    return nn.ZeroPad2d(tuple(widths)) if axes(form) == 2 else nn.ZeroPad3d(tuple(widths))  # type: ignore[arg-type]


def with_group_norm(network: nn.Module, options: schema.DenseNet | schema.ResNet | schema.EfficientNet) -> nn.Module:
    """The network with every batch normalisation exchanged.

    MONAI's own ``norm`` option does not reach the blocks of its ResNet (1.6.1), so it is not used for any.
    """
    groups = options.groups
    if groups == 0 and options.weights and options.freeze == "encoder":
        return network  # with statistics from a file that never change it mixes nothing
    if groups < 1:
        raise ValueError(f"groups={groups}: use 1 or more; 0 is for freeze=encoder")
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(parent, name, nn.GroupNorm(groups, child.num_features))
    return network


def unframed(maps: Tensor, size: torch.Size | tuple[int, ...]) -> Tensor:
    """The middle of maps (images, structures, ...): what ``frame`` has put zeros around."""
    for axis, n in enumerate(size, start=2):
        maps = maps.narrow(axis, (maps.shape[axis] - n) // 2, n)
    return maps
