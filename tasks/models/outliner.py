"""A small network that outlines one structure on images, trained on phantoms alone: what an outline usually looks like.

It stays as it is; what it says of every place is one more feature for the linear head of ``scatter_outline``, which
begins with it. So a private study starts from outlines that have cost no patient's privacy. ``tests/benchmarks/
train_outliner.py`` makes such a file.

A U-Net with group normalisation (O. Ronneberger et al., MICCAI 2015; Y. Wu and K. He, ECCV 2018).
"""

from __future__ import annotations

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import interpolate

SIDE, CELLS = 128, 64
"""Images are brought to this side; outlines have so many places along each axis."""
_WIDTHS = (16, 32, 48, 64, 96)
_GROUPS = 8
_MEAN, _SPREAD = 0.3, 0.25


class BadOutliner(ValueError):
    """A file holds no outliner."""


class Outliner(nn.Module):
    """Maps float32 (images, 1, rows, columns) in [0, 1] to logits (images, 1, ``CELLS``, ``CELLS``)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, _WIDTHS[0], 5, 2, 2, bias=False), *_normalised(_WIDTHS[0]))
        down = [(_WIDTHS[max(level - 1, 0)], width, 2 if level else 1) for level, width in enumerate(_WIDTHS)]
        self.down = nn.ModuleList(_block(*each) for each in down)
        up = list(zip(_WIDTHS[:0:-1], _WIDTHS[-2::-1], strict=True))
        self.up = nn.ModuleList(_block(deep + shallow, shallow) for deep, shallow in up)
        self.outlines = nn.Conv2d(_WIDTHS[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits; above 0 a place is within the structure."""
        sized = interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
        maps = self.stem((sized - _MEAN) / _SPREAD)
        passed = []
        for block in self.down:
            maps = block(maps)
            passed.append(maps)
        for block, skipped in zip(self.up, passed[-2::-1], strict=True):
            larger = interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
            maps = block(torch.cat([larger, skipped], dim=1))
        logits: Tensor = self.outlines(maps)
        return logits


def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride, 1, bias=False),
        *_normalised(width),
        nn.Conv2d(width, width, 3, 1, 1, bias=False),
        *_normalised(width),
    )


def _normalised(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(_GROUPS, width), nn.ReLU()


def read(content: bytes) -> Outliner:
    """The outliner in a safetensors file, which may have half precision.

    Raises:
        BadOutliner: it is none; with every tensor that is missing, unknown or of another shape.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError) as error:
        raise BadOutliner(f"it is no safetensors file: {error}") from error
    network = Outliner()
    own = network.state_dict()
    problems = [f"{name} is missing" for name in own.keys() - tensors.keys()]
    problems += [f"{name} is unknown" for name in tensors.keys() - own.keys()]
    for name in own.keys() & tensors.keys():
        if tensors[name].shape != own[name].shape:
            problems.append(f"{name} is {tuple(tensors[name].shape)}, not {tuple(own[name].shape)}")
        elif not torch.isfinite(tensors[name].float()).all():
            problems.append(f"{name} has values that are not finite")
    if problems:
        raise BadOutliner(f"it is no outliner: {'; '.join(sorted(problems)[:5])}")
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network.eval().requires_grad_(False)
