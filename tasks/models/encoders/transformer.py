"""Vision transformers from their tensors: A. Dosovitskiy et al., ICLR 2021, and DINOv2 (M. Oquab et al., TMLR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.encoders.facts import Facts
from tasks.models.encoders.tensors import Layer, Tensors

_HEAD_WIDTHS = {1280: 80}
"""Values of an attention head where they are not 64: ViT-Huge."""


def vit(tensors: Tensors, facts: Facts) -> Layer:
    """The class token after the last normalisation; the mean over patches where there is no such token, or where the
    normalisation is that of a mean (timm's ``fc_norm``)."""
    embed = _embedding(tensors)
    width = (tensors.shape("patch_embed.proj.weight") or (0,))[0]
    heads = facts.heads or max(1, width // _HEAD_WIDTHS.get(width, 64))
    if width % heads:
        raise ValueError(f"its {width} values a token are no multiple of {heads} attention heads; say how many it has")
    first = tensors.layer_norm("norm_pre", facts.eps) if tensors.has("norm_pre.weight") else None
    blocks = [_block(tensors, f"blocks.{n}", heads, facts.eps) for n in range(max(1, tensors.count("blocks.")))]
    of_mean = tensors.has("fc_norm.weight")
    norm = tensors.layer_norm("fc_norm" if of_mean else "norm", facts.eps)
    leading = sum(tensors.shape(name)[1] for name in _TOKENS if tensors.has(name))
    classed = tensors.has("cls_token") and not of_mean

    def run(images: Tensor) -> Tensor:
        rows = embed(images)
        rows = rows if first is None else first(rows)
        for block in blocks:
            rows = block(rows)
        if classed:
            return norm(rows[:, 0])
        patches = rows[:, leading:]
        return norm(patches.mean(dim=1)) if of_mean else norm(patches).mean(dim=1)

    return run


_TOKENS = ("cls_token", "reg_token")


def _embedding(tensors: Tensors) -> Layer:
    """Patches with their places, behind the tokens that are no patch."""
    weight, bias = tensors.vector("patch_embed.proj.weight"), tensors.optional("patch_embed.proj.bias")
    position = tensors.vector("pos_embed")
    tokens = [token for name in _TOKENS if (token := tensors.optional(name)) is not None]
    convolve = functional.conv2d if weight.dim() == 4 else functional.conv3d

    def run(images: Tensor) -> Tensor:
        patches = convolve(images, weight, bias, stride=tuple(weight.shape[2:])).flatten(2).transpose(1, 2)
        # Of the leading tokens all have a place, or the class token alone, or none.
        rows, placed = [*tokens, patches], position.shape[1] - patches.shape[1]
        together = torch.cat([row.expand(len(images), -1, -1) for row in rows], dim=1)
        before = together.shape[1] - patches.shape[1]
        places = torch.cat(
            [position[:, :placed], position.new_zeros((1, before - placed, position.shape[2])), position[:, placed:]],
            dim=1,
        )
        return together + places

    return run


def side_of(tensors: Tensors) -> int:
    """The side of the images whose patches have places in the file; 0 where it cannot be told."""
    patch, places = tensors.shape("patch_embed.proj.weight"), tensors.shape("pos_embed")
    if len(patch) < 4 or len(places) != 3:
        return 0
    axes, tokens = len(patch) - 2, [tensors.shape(name)[1] for name in _TOKENS if tensors.has(name)]
    for leading in (sum(tokens), *tokens[:1], 0):
        side = round(max(places[1] - leading, 0) ** (1 / axes))
        if side and side**axes == places[1] - leading:
            return int(side * patch[2])
    return 0


def _block(tensors: Tensors, name: str, heads: int, eps: float) -> Layer:
    norms = [tensors.layer_norm(f"{name}.norm{n}", eps) for n in (1, 2)]
    changes = [_attention(tensors, f"{name}.attn", heads), _perceptron(tensors, f"{name}.mlp")]
    scales = [tensors.optional(f"{name}.ls{n}.gamma") for n in (1, 2)]

    def run(rows: Tensor) -> Tensor:
        for norm, change, scale in zip(norms, changes, scales, strict=True):
            changed = change(norm(rows))
            rows = rows + (changed if scale is None else changed * scale)
        return rows

    return run


def _attention(tensors: Tensors, name: str, heads: int) -> Layer:
    parts = ("q", "k", "v") if tensors.has(f"{name}.q.weight") else ("qkv",)
    into, out = [tensors.linear(f"{name}.{part}") for part in parts], tensors.linear(f"{name}.proj")

    def run(rows: Tensor) -> Tensor:
        together = torch.cat([layer(rows) for layer in into], dim=2)
        by_head = together.reshape(len(rows), rows.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(by_head[0], by_head[1], by_head[2])
        return out(attended.transpose(1, 2).flatten(2))

    return run


def _perceptron(tensors: Tensors, name: str) -> Layer:
    widen, narrow = tensors.linear(f"{name}.fc1"), tensors.linear(f"{name}.fc2")
    return lambda rows: narrow(functional.gelu(widen(rows)))
