"""Convolutional encoders from their tensors: ResNet, DenseNet, EfficientNet and ConvNeXt, in two or three dimensions.

Depths, widths, kernels and groups are read from names and shapes; what these cannot tell, strides and activations, is
what the papers say. The last features are averaged over space.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.encoders.facts import Facts
from tasks.models.encoders.tensors import Layer, Tensors, mean_over_space

_STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Of EfficientNet, table 1 of its paper."""


def resnet(tensors: Tensors, facts: Facts) -> Layer:
    """K. He et al., CVPR 2016, with the stride of a bottleneck in its middle; ResNeXt and wide ones as well."""
    stem = tensors.convolution("conv1", "bn1", facts.eps, stride=facts.stem_stride)
    blocks = [
        _residual(tensors, f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1, facts.eps)
        for stage in range(1, 5)
        for block in range(max(1, tensors.count(f"layer{stage}.")))
    ]

    def run(images: Tensor) -> Tensor:
        maps = functional.relu(stem(images))
        maps = (functional.max_pool2d if maps.dim() == 4 else functional.max_pool3d)(maps, 3, 2, 1)
        for block in blocks:
            maps = block(maps)
        return mean_over_space(maps)

    return run


def _residual(tensors: Tensors, name: str, stride: int, eps: float) -> Layer:
    last = 3 if tensors.has(f"{name}.conv3.weight") else 2
    strided = 2 if last == 3 else 1
    layers = [
        tensors.convolution(f"{name}.conv{n}", f"{name}.bn{n}", eps, stride if n == strided else 1)
        for n in range(1, last + 1)
    ]
    shortcut = _shortcut(tensors, name, stride, eps, last)

    def run(maps: Tensor) -> Tensor:
        changed = maps
        for layer in layers[:-1]:
            changed = functional.relu(layer(changed))
        return functional.relu(layers[-1](changed) + shortcut(maps))

    return run


def _shortcut(tensors: Tensors, name: str, stride: int, eps: float, last: int) -> Layer:
    first, final = tensors.shape(f"{name}.conv1.weight"), tensors.shape(f"{name}.conv{last}.weight")
    wider = bool(first and final) and first[1] != final[0]
    if not (wider or stride > 1 or tensors.has(f"{name}.downsample.0.weight")):
        return lambda maps: maps
    if len(first) == 5 and not any(tensors.has(f"layer{n}.0.downsample.0.weight") for n in range(1, 5)):
        return lambda maps: _thinned(maps, stride, final[0])
    return tensors.convolution(f"{name}.downsample.0", f"{name}.downsample.1", eps, stride)


def _thinned(maps: Tensor, stride: int, channels: int) -> Tensor:
    """Shortcut A of the paper, which has no parameters; MedicalNet's ResNets have it."""
    thin = maps[:, :, ::stride, ::stride, ::stride]
    return torch.cat([thin, thin.new_zeros((len(thin), channels - thin.shape[1], *thin.shape[2:]))], dim=1)


def densenet(tensors: Tensors, facts: Facts) -> Layer:
    """G. Huang et al., CVPR 2017."""
    stem = tensors.convolution("features.conv0", "features.norm0", facts.eps, stride=2)
    last = max(1, tensors.count_named("features.denseblock"))
    steps: list[Layer] = []
    for block in range(1, last + 1):
        name = f"features.denseblock{block}"
        layers = max(1, tensors.count_named(f"{name}.denselayer"))
        steps += [_dense(tensors, f"{name}.denselayer{n}", facts.eps) for n in range(1, layers + 1)]
        if block < last:
            steps.append(_transition(tensors, f"features.transition{block}", facts.eps))
    final = tensors.batch_norm("features.norm5", facts.eps)

    def run(images: Tensor) -> Tensor:
        maps = functional.relu(stem(images))
        maps = (functional.max_pool2d if maps.dim() == 4 else functional.max_pool3d)(maps, 3, 2, 1)
        for step in steps:
            maps = step(maps)
        return mean_over_space(functional.relu(final(maps)))

    return run


def _dense(tensors: Tensors, name: str, eps: float) -> Layer:
    before = tensors.batch_norm(f"{name}.norm1", eps)
    narrow = tensors.convolution(f"{name}.conv1", f"{name}.norm2", eps)
    grow = tensors.convolution(f"{name}.conv2")
    return lambda maps: torch.cat([maps, grow(functional.relu(narrow(functional.relu(before(maps)))))], dim=1)


def _transition(tensors: Tensors, name: str, eps: float) -> Layer:
    norm, narrow = tensors.batch_norm(f"{name}.norm", eps), tensors.convolution(f"{name}.conv")

    def run(maps: Tensor) -> Tensor:
        return (functional.avg_pool2d if maps.dim() == 4 else functional.avg_pool3d)(
            narrow(functional.relu(norm(maps))), 2, 2
        )

    return run


def efficientnet(tensors: Tensors, facts: Facts) -> Layer:
    """M. Tan and Q. Le, ICML 2019: SiLU where there is squeeze and excitation, else the ReLU6 of EfficientNet-Lite and
    MobileNetV2."""
    names = tensors.blocks("blocks.")
    excited = any(tensors.has(f"{name}.se_reduce.weight") for name in names)
    activation = _activation(excited)
    same, eps = facts.same_padding, facts.eps
    stem = tensors.convolution("stem", "stem_norm", eps, stride=2, same=same)
    blocks = [
        _inverted(tensors, name, facts, stride=stride, excited=excited)
        for name, stride in zip(names, _strides(tensors, names), strict=True)
    ]
    head = tensors.convolution("head", "head_norm", eps)

    def run(images: Tensor) -> Tensor:
        maps = activation(stem(images))
        for block in blocks:
            maps = block(maps)
        return mean_over_space(activation(head(maps)))

    return run


def _activation(excited: bool) -> Layer:
    return functional.silu if excited else functional.relu6


def _strides(tensors: Tensors, names: list[str]) -> list[int]:
    """Of each block: a stage begins where the number of channels changes."""
    widths = [(tensors.shape(f"{name}.project.weight") or (0,))[0] for name in names]
    begins = [True, *(one != other for one, other in pairwise(widths))]
    if sum(begins) != len(_STAGE_STRIDES):
        raise ValueError(f"it has {sum(begins)} stages of blocks and an EfficientNet has {len(_STAGE_STRIDES)}")
    ahead = iter(_STAGE_STRIDES)
    return [next(ahead) if first else 1 for first in begins]


def _inverted(tensors: Tensors, name: str, facts: Facts, *, stride: int, excited: bool) -> Layer:
    same, eps, activation = facts.same_padding, facts.eps, _activation(excited)
    layers: list[Layer] = []
    if tensors.has(f"{name}.expand.weight"):
        layers.append(tensors.convolution(f"{name}.expand", f"{name}.expand_norm", eps))
    layers.append(tensors.convolution(f"{name}.depthwise", f"{name}.depthwise_norm", eps, stride, same=same))
    reduce, expand = (
        (tensors.convolution(f"{name}.se_reduce"), tensors.convolution(f"{name}.se_expand"))
        if excited
        else (None, None)
    )
    project = tensors.convolution(f"{name}.project", f"{name}.project_norm", eps)

    def run(maps: Tensor) -> Tensor:
        inner = maps
        for layer in layers:
            inner = activation(layer(inner))
        if reduce is not None and expand is not None:
            whole = inner.mean(dim=tuple(range(2, inner.dim())), keepdim=True)
            inner = inner * torch.sigmoid(expand(activation(reduce(whole))))
        out = project(inner)
        return out + maps if stride == 1 and out.shape == maps.shape else out

    return run


def convnext(tensors: Tensors, facts: Facts) -> Layer:
    """Z. Liu et al., A ConvNet for the 2020s, CVPR 2022."""
    patch = (tensors.shape("stem.0.weight") or (0, 0, 4))[2]
    stem, stem_norm = tensors.convolution("stem.0", stride=patch, padding=0), tensors.layer_norm("stem.1", facts.eps)
    stages = []
    for stage in range(max(1, tensors.count("stages."))):
        name = f"stages.{stage}"
        down = _halved(tensors, f"{name}.downsample", facts.eps) if stage else (lambda maps: maps)
        blocks = range(max(1, tensors.count(f"{name}.blocks.")))
        stages += [down, *(_convnext_block(tensors, f"{name}.blocks.{block}", facts.eps) for block in blocks)]
    norm = tensors.layer_norm("head.norm", facts.eps)

    def run(images: Tensor) -> Tensor:
        maps = _last(stem_norm)(stem(images))
        for step in stages:
            maps = step(maps)
        return norm(mean_over_space(maps))

    return run


def _last(layer: Layer) -> Layer:
    """A layer of the last axis, on channels."""
    return lambda maps: layer(maps.movedim(1, -1)).movedim(-1, 1)


def _halved(tensors: Tensors, name: str, eps: float) -> Layer:
    norm, down = _last(tensors.layer_norm(f"{name}.0", eps)), tensors.convolution(f"{name}.1", stride=2, padding=0)
    return lambda maps: down(norm(maps))


def _convnext_block(tensors: Tensors, name: str, eps: float) -> Layer:
    depthwise, norm = tensors.convolution(f"{name}.conv_dw"), tensors.layer_norm(f"{name}.norm", eps)
    widen, narrow = tensors.linear(f"{name}.mlp.fc1"), tensors.linear(f"{name}.mlp.fc2")
    scale = tensors.optional(f"{name}.gamma")

    def inner(rows: Tensor) -> Tensor:
        changed = narrow(functional.gelu(widen(norm(rows))))
        return changed if scale is None else changed * scale.flatten()

    return lambda maps: maps + _last(inner)(depthwise(maps))
