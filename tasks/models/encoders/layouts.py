"""Whose names an encoder's tensors have, and how these become the names that our networks ask for.

Every layout is tried whose first tensor is there, whatever it stands behind (``module.``, ``model.``, ``backbone.``).
The one that leaves nothing missing and nothing unknown is the file's; otherwise the one that leaves least is the
likeliest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tasks.models.encoders import convolutional, transformer
from tasks.models.encoders.facts import Facts
from tasks.models.encoders.tensors import Layer, Tensors

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""Mean and spread of its colours, by which nearly all encoders of photographs were trained."""
_HALF = ([0.5] * 3, [0.5] * 3)
_XRAYVISION = ([0.5], [1 / 2048])
"""torchxrayvision trains on values from -1024 to 1024."""

Renaming = tuple[tuple[str, str], ...]
"""Regular expressions of whole names, and what each becomes; the first that fits is taken."""
_MOST_SHOWN = 20


class OtherLayout(ValueError):
    """The file's names are those of no layout that we know."""


@dataclass(frozen=True)
class Layout:
    """One way to call an architecture's tensors.

    Attributes:
        name: who calls them so, and what.
        first: a tensor by which it is recognised.
        names: becomes ours; a name that fits none is unknown.
        head: of what is behind the features or beside them, and left out.
        build: the network.
        norm: mean and spread of the inputs, by number of channels; of others [0, 1] as it is.
        mark: what one of the names must match besides.
        stem_stride: of a ResNet.
    """

    name: str
    first: str
    names: Renaming
    head: str
    build: Callable[[Tensors, Facts], Layer]
    norm: Mapping[int, tuple[list[float], list[float]]] = field(default_factory=lambda: {3: IMAGENET})
    eps: float = 1e-5
    same_padding: bool = False
    mark: str = ""
    stem_stride: int = 2


_NORM = r"(weight|bias|running_mean|running_var)"
_RESNET: Renaming = ((rf"(conv1\.\w+|bn1\.{_NORM}|layer\d\.\d+\.(conv\d|bn\d|downsample\.[01])\.\w+)", r"\1"),)
_DENSENET: Renaming = (
    (r"(features\.denseblock\d+\.denselayer\d+)\.layers\.(.+)", r"\1.\2"),  # MONAI's
    (r"(features\.denseblock\d+\.denselayer\d+)\.(norm|conv)\.([12])\.(.+)", r"\1.\2\3.\4"),  # torchvision before 0.2
    (r"(features\..+)", r"\1"),
)
_MBCONV = {"_expand_conv": "expand", "_depthwise_conv": "depthwise", "_project_conv": "project"}
_LUKEMELAS: Renaming = (
    (r"_conv_stem\.(\w+)", r"stem.\1"),
    (r"_bn0\.(\w+)", r"stem_norm.\1"),
    (r"_conv_head\.(\w+)", r"head.\1"),
    (r"_bn1\.(\w+)", r"head_norm.\1"),
    *((rf"_blocks\.(\d+(?:\.\d+)?)\.{theirs}\.(\w+)", rf"blocks.\1.{ours}.\2") for theirs, ours in _MBCONV.items()),
    (r"_blocks\.(\d+(?:\.\d+)?)\._bn0\.(\w+)", r"blocks.\1.expand_norm.\2"),
    (r"_blocks\.(\d+(?:\.\d+)?)\._bn1\.(\w+)", r"blocks.\1.depthwise_norm.\2"),
    (r"_blocks\.(\d+(?:\.\d+)?)\._bn2\.(\w+)", r"blocks.\1.project_norm.\2"),
    (r"_blocks\.(\d+(?:\.\d+)?)\._se_(reduce|expand)\.(\w+)", r"blocks.\1.se_\2.\3"),
)
_TIMM_EFFICIENTNET: Renaming = (
    (r"conv_stem\.(\w+)", r"stem.\1"),
    (r"bn1\.(\w+)", r"stem_norm.\1"),
    (r"conv_head\.(\w+)", r"head.\1"),
    (r"bn2\.(\w+)", r"head_norm.\1"),
    (r"(blocks\.\d+\.\d+)\.conv_dw\.(\w+)", r"\1.depthwise.\2"),
    (r"(blocks\.\d+\.\d+)\.conv_pwl\.(\w+)", r"\1.project.\2"),
    (r"(blocks\.\d+\.\d+)\.bn3\.(\w+)", r"\1.project_norm.\2"),
    (r"(blocks\.\d+\.\d+)\.se\.conv_(reduce|expand)\.(\w+)", r"\1.se_\2.\3"),
    # The first stage does not expand, and its second convolution is the last.
    (r"(blocks\.0\.\d+)\.conv_pw\.(\w+)", r"\1.project.\2"),
    (r"(blocks\.0\.\d+)\.bn1\.(\w+)", r"\1.depthwise_norm.\2"),
    (r"(blocks\.0\.\d+)\.bn2\.(\w+)", r"\1.project_norm.\2"),
    (r"(blocks\.\d+\.\d+)\.conv_pw\.(\w+)", r"\1.expand.\2"),
    (r"(blocks\.\d+\.\d+)\.bn1\.(\w+)", r"\1.expand_norm.\2"),
    (r"(blocks\.\d+\.\d+)\.bn2\.(\w+)", r"\1.depthwise_norm.\2"),
)
_PAIR = (("0", ""), ("1", "_norm"))
_VISION_EFFICIENTNET: Renaming = (
    *((rf"features\.0\.{n}\.(\w+)", rf"stem{ours}.\1") for n, ours in _PAIR),
    *((rf"features\.8\.{n}\.(\w+)", rf"head{ours}.\1") for n, ours in _PAIR),
    *((rf"features\.(1\.\d+)\.block\.0\.{n}\.(\w+)", rf"blocks.\1.depthwise{ours}.\2") for n, ours in _PAIR),
    (r"features\.(1\.\d+)\.block\.1\.fc1\.(\w+)", r"blocks.\1.se_reduce.\2"),
    (r"features\.(1\.\d+)\.block\.1\.fc2\.(\w+)", r"blocks.\1.se_expand.\2"),
    *((rf"features\.(1\.\d+)\.block\.2\.{n}\.(\w+)", rf"blocks.\1.project{ours}.\2") for n, ours in _PAIR),
    *((rf"features\.([2-7]\.\d+)\.block\.0\.{n}\.(\w+)", rf"blocks.\1.expand{ours}.\2") for n, ours in _PAIR),
    *((rf"features\.([2-7]\.\d+)\.block\.1\.{n}\.(\w+)", rf"blocks.\1.depthwise{ours}.\2") for n, ours in _PAIR),
    (r"features\.([2-7]\.\d+)\.block\.2\.fc1\.(\w+)", r"blocks.\1.se_reduce.\2"),
    (r"features\.([2-7]\.\d+)\.block\.2\.fc2\.(\w+)", r"blocks.\1.se_expand.\2"),
    *((rf"features\.([2-7]\.\d+)\.block\.3\.{n}\.(\w+)", rf"blocks.\1.project{ours}.\2") for n, ours in _PAIR),
)
_TIMM_VIT: Renaming = (
    (r"(cls_token|reg_token|pos_embed|patch_embed\.proj\.\w+|(?:norm|norm_pre|fc_norm)\.\w+)", r"\1"),
    (r"register_tokens", r"reg_token"),  # DINOv2's own
    (r"(blocks\.\d+\.(?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(?:weight|bias)|blocks\.\d+\.ls[12]\.gamma)", r"\1"),
)
_VISION_VIT: Renaming = (
    (r"class_token", r"cls_token"),
    (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", r"pos_embed"),
    (r"encoder\.ln\.(\w+)", r"norm.\1"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(\w+)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
)
_MONAI_VIT: Renaming = (
    (r"(cls_token|norm\.\w+)", r"\1"),
    (r"patch_embedding\.position_embeddings", r"pos_embed"),
    (r"patch_embedding\.patch_embeddings\.(\w+)", r"patch_embed.proj.\1"),
    (r"(blocks\.\d+\.norm[12]\.\w+)", r"\1"),
    (r"(blocks\.\d+\.attn\.qkv\.\w+)", r"\1"),
    (r"(blocks\.\d+)\.attn\.out_proj\.(\w+)", r"\1.attn.proj.\2"),
    (r"(blocks\.\d+)\.mlp\.linear([12])\.(\w+)", r"\1.mlp.fc\2.\3"),
)
_HUGGING_VIT: Renaming = (
    (r"embeddings\.cls_token", r"cls_token"),
    (r"embeddings\.register_tokens", r"reg_token"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (r"layernorm\.(\w+)", r"norm.\1"),
    (r"encoder\.layer\.(\d+)\.(?:norm1|layernorm_before)\.(\w+)", r"blocks.\1.norm1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:norm2|layernorm_after)\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(q)uery\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(k)ey\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.attention\.(v)alue\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc1|intermediate\.dense)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layer\.(\d+)\.(?:mlp\.fc2|output\.dense)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
)
_TIMM_CONVNEXT: Renaming = (
    (r"(stem\.[01]\.\w+|stages\.\d+\.(?:downsample\.[01]|blocks\.\d+\.(?:conv_dw|norm|mlp\.fc[12]))\.\w+)", r"\1"),
    (r"(stages\.\d+\.blocks\.\d+\.gamma|head\.norm\.\w+)", r"\1"),
)


def _vision_convnext() -> Renaming:
    """torchvision numbers stem, stages and what halves between them through."""
    of_block = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
    found = [(r"features\.0\.([01])\.(\w+)", r"stem.\1.\2"), (r"classifier\.0\.(\w+)", r"head.norm.\1")]
    for stage in range(4):
        place = 2 * stage + 1
        found += [
            (rf"features\.{place}\.(\d+)\.block\.{n}\.(\w+)", rf"stages.{stage}.blocks.\1.{ours}.\2")
            for n, ours in of_block.items()
        ]
        found.append((rf"features\.{place}\.(\d+)\.layer_scale", rf"stages.{stage}.blocks.\1.gamma"))
        found.append((rf"features\.{place - 1}\.([01])\.(\w+)", rf"stages.{stage}.downsample.\1.\2"))
    return tuple(found)


_FACEBOOK_CONVNEXT: Renaming = (
    (r"downsample_layers\.0\.([01])\.(\w+)", r"stem.\1.\2"),
    (r"downsample_layers\.(\d)\.([01])\.(\w+)", r"stages.\1.downsample.\2.\3"),
    (r"(stages\.\d+)\.(\d+)\.dwconv\.(\w+)", r"\1.blocks.\2.conv_dw.\3"),
    (r"(stages\.\d+)\.(\d+)\.norm\.(\w+)", r"\1.blocks.\2.norm.\3"),
    (r"(stages\.\d+)\.(\d+)\.pwconv([12])\.(\w+)", r"\1.blocks.\2.mlp.fc\3.\4"),
    (r"(stages\.\d+)\.(\d+)\.gamma", r"\1.blocks.\2.gamma"),
    (r"norm\.(\w+)", r"head.norm.\1"),
)

_FC, _CLASSIFIER = r"fc\..+|op_threshs", r"classifier\..+|class_layers\..+|op_threshs"
_VIT_HEAD = r"(head|heads|classifier|classification_head|pooler)\..+|(embeddings\.)?mask_token"
_XRAYS = {3: IMAGENET, 1: _XRAYVISION}
_EFFICIENTNET_HEAD = r"(_fc|classifier)\..+"

LAYOUTS = (
    Layout(
        "MONAI ResNet", "conv1.weight", _RESNET, _FC, convolutional.resnet, norm={}, mark=r"downsample\.0\.bias",
        stem_stride=1,
    ),
    Layout("torchvision ResNet", "conv1.weight", _RESNET, _FC, convolutional.resnet, norm=_XRAYS),
    Layout(
        "MONAI DenseNet", "features.conv0.weight", _DENSENET, _CLASSIFIER, convolutional.densenet, norm={},
        mark=r"\.layers\.",
    ),
    Layout(
        "torchvision DenseNet", "features.conv0.weight", _DENSENET, _CLASSIFIER, convolutional.densenet, norm=_XRAYS
    ),
    Layout(
        "MONAI EfficientNet", "_conv_stem.weight", _LUKEMELAS, _EFFICIENTNET_HEAD, convolutional.efficientnet, norm={},
        eps=1e-3, same_padding=True, mark=r"_blocks\.\d+\.\d+\.",
    ),
    Layout(
        "efficientnet-pytorch", "_conv_stem.weight", _LUKEMELAS, _EFFICIENTNET_HEAD, convolutional.efficientnet,
        norm={3: IMAGENET}, eps=1e-3, same_padding=True, mark="se_reduce",
    ),
    Layout(
        "efficientnet-lite-pytorch", "_conv_stem.weight", _LUKEMELAS, _EFFICIENTNET_HEAD, convolutional.efficientnet,
        norm={3: _HALF}, eps=1e-3, same_padding=True,
    ),
    Layout(
        "timm EfficientNet", "conv_stem.weight", _TIMM_EFFICIENTNET, _EFFICIENTNET_HEAD, convolutional.efficientnet
    ),
    Layout(
        "torchvision EfficientNet", "features.0.0.weight", _VISION_EFFICIENTNET, _EFFICIENTNET_HEAD,
        convolutional.efficientnet,
    ),
    Layout("DINOv2 ViT", "patch_embed.proj.weight", _TIMM_VIT, _VIT_HEAD, transformer.vit, eps=1e-6, mark=r"\.ls1\."),
    Layout("timm ViT", "patch_embed.proj.weight", _TIMM_VIT, _VIT_HEAD, transformer.vit, norm={3: _HALF}, eps=1e-6),
    Layout("torchvision ViT", "conv_proj.weight", _VISION_VIT, _VIT_HEAD, transformer.vit, eps=1e-6),
    Layout(
        "MONAI ViT", "patch_embedding.patch_embeddings.weight", _MONAI_VIT,
        rf"{_VIT_HEAD}|blocks\.\d+\.(norm_)?cross_attn\..+", transformer.vit, norm={},
    ),
    Layout(
        "transformers DINOv2", "embeddings.patch_embeddings.projection.weight", _HUGGING_VIT, _VIT_HEAD,
        transformer.vit, eps=1e-6, mark="layer_scale1",
    ),
    Layout(
        "transformers ViT", "embeddings.patch_embeddings.projection.weight", _HUGGING_VIT, _VIT_HEAD, transformer.vit,
        norm={3: _HALF}, eps=1e-12,
    ),
    Layout("timm ConvNeXt", "stem.0.weight", _TIMM_CONVNEXT, r"head\.fc\..+", convolutional.convnext, eps=1e-6),
    Layout(
        "torchvision ConvNeXt", "features.0.0.weight", _vision_convnext(), r"classifier\.2\..+", convolutional.convnext,
        eps=1e-6,
    ),
    Layout(
        "ConvNeXt's own", "downsample_layers.0.0.weight", _FACEBOOK_CONVNEXT, r"head\..+", convolutional.convnext,
        eps=1e-6,
    ),
)  # fmt: skip
_COUNTER = "num_batches_tracked"
_SIDE = 224


@dataclass(frozen=True)
class Recognised:
    """A file's tensors, understood.

    Attributes:
        facts: as the layout has them, where the file itself says nothing else.
        run: float32 (images, channels, ...) to (images, features).
        channels, axes: of an input; 2 axes for images, 3 for volumes.
        kept: names of the tensors that the network needs.
    """

    facts: Facts
    run: Layer
    channels: int
    axes: int
    kept: tuple[str, ...]


def recognise(tensors: Mapping[str, Tensor], facts: Facts | None = None) -> Recognised:
    """The network whose tensors these are.

    Args:
        facts: from the head of a converted file; its layout alone is tried then.

    Raises:
        OtherLayout: with what is missing and unknown for the likeliest layout.
    """
    likeliest: tuple[int, str] | None = None
    for layout in LAYOUTS:
        prefix = _prefix(layout, tensors)
        if prefix is None or (facts is not None and facts.layout != layout.name):
            continue
        try:
            return _built(layout, prefix, tensors, facts)
        except _Unfit as unfit:
            if likeliest is None or unfit.count < likeliest[0]:
                likeliest = (unfit.count, f"its names are most like those of {layout.name}, but {unfit}")
    known = ", ".join(layout.name for layout in LAYOUTS)
    told = likeliest[1] if likeliest else f"its {len(tensors)} names, {_few(sorted(tensors))}, are of none"
    raise OtherLayout(f"{told}. Layouts that can be read: {known}, and every network that is exported as ONNX")


class _Unfit(ValueError):
    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


def _prefix(layout: Layout, tensors: Mapping[str, Tensor]) -> str | None:
    """What stands before a layout's names in a file; ``None`` if it is not of this layout."""
    if layout.mark and not any(re.search(layout.mark, name) for name in tensors):
        return None
    found = [name[: -len(layout.first)] for name in tensors if f".{name}".endswith(f".{layout.first}")]
    return min(found, key=len) if found else None


def _built(layout: Layout, prefix: str, tensors: Mapping[str, Tensor], facts: Facts | None) -> Recognised:
    theirs, problems = _renamed(layout, prefix, tensors)
    ours = Tensors({name: tensors[original] for name, original in theirs.items()})
    stem = tensors[prefix + layout.first]
    facts = facts or _facts(layout, ours, stem)
    try:
        run = layout.build(ours, facts)
    except ValueError as error:
        raise _Unfit(str(error), 1 + len(problems)) from error
    problems += [f"{name} is missing" for name in ours.missing()]
    problems += [f"{theirs[name]} is unknown" for name in ours.unknown()]
    if problems:
        raise _Unfit(_few(problems), len(problems))
    return Recognised(facts, run, stem.shape[1], stem.dim() - 2, tuple(sorted(theirs.values())))


def _renamed(layout: Layout, prefix: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, str], list[str]]:
    """From our names to the file's, and what is wrong with the others."""
    theirs: dict[str, str] = {}
    problems = []
    for name, tensor in sorted(tensors.items()):
        bare = name.removeprefix(prefix)
        if name.endswith(_COUNTER) or re.fullmatch(layout.head, bare):
            continue
        ours = next((re.sub(f"^{a}$", b, bare) for a, b in layout.names if re.fullmatch(a, bare)), None)
        if ours is None or not name.startswith(prefix):
            problems.append(f"{name} is unknown")
        elif not tensor.is_floating_point():
            problems.append(f"{name} is {tensor.dtype}, and must be floating-point numbers")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} has values that are not finite")
        else:
            theirs[ours] = name
    return theirs, problems


def _facts(layout: Layout, tensors: Tensors, stem: Tensor) -> Facts:
    channels = stem.shape[1]
    as_it_is = ([0.0] * channels, [1.0] * channels)
    mean, std = layout.norm.get(channels, as_it_is) if stem.dim() == 4 else as_it_is
    side = transformer.side_of(tensors) if layout.build is transformer.vit else 0
    return Facts(
        layout.name,
        side or (_SIDE if stem.dim() == 4 else 0),
        mean,
        std,
        eps=layout.eps,
        same_padding=layout.same_padding,
        stem_stride=layout.stem_stride,
    )


def _few(problems: list[str]) -> str:
    shown = "; ".join(problems[:_MOST_SHOWN])
    return shown if len(problems) <= _MOST_SHOWN else f"{shown}; and {len(problems) - _MOST_SHOWN} more"
