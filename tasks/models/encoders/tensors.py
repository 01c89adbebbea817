"""The tensors of an encoder's file, handed out as layers that cannot train; what was asked for in vain is noted.

A network is built by asking for its layers by name. What is missing by the end, and what nobody has asked for, are the
two lists that tell whether the file is of that network.

Tested in ``tests/tasks/models/encoders/test_convolutional.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Layer = Callable[[Tensor], Tensor]
"""From float32 (images, channels, ...) to float32 (images, ...), without gradients."""

_CONVOLUTIONS = {4: functional.conv2d, 5: functional.conv3d}


class Tensors:
    """Tensors by name, each handed out once.

    Args:
        named: float tensors; half precision becomes float32.
    """

    def __init__(self, named: Mapping[str, Tensor]) -> None:
        self._named = named
        self._taken: set[str] = set()
        self._missing: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the file has it."""
        return name in self._named

    def count(self, prefix: str) -> int:
        """How many parts, numbered from 0, stand behind a prefix."""
        return 1 + self._largest(prefix, default=-1)

    def count_named(self, prefix: str) -> int:
        """How many parts, numbered from 1, stand behind a prefix."""
        return self._largest(prefix, default=0)

    def _largest(self, prefix: str, default: int) -> int:
        numbered = re.compile(re.escape(prefix) + r"(\d+)\.")
        return max((int(found[1]) for name in self._named if (found := numbered.match(name))), default=default)

    def blocks(self, prefix: str) -> list[str]:
        """Names of blocks that are numbered by one or two numbers behind a prefix, in order."""
        numbered = re.compile(re.escape(prefix) + r"\d+(\.\d+)?(?=\.[a-z])")
        found = {match[0] for name in self._named if (match := numbered.match(name))}
        return sorted(found, key=lambda name: [int(number) for number in name.removeprefix(prefix).split(".")])

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor; ``()`` if it is missing."""
        return tuple(self._named[name].shape) if name in self._named else ()

    def vector(self, name: str) -> Tensor:
        """The tensor itself; one without values if it is missing, as the network will not be run."""
        if name not in self._named:
            self._missing.append(name)
            return torch.empty(0)
        self._taken.add(name)
        return self._named[name].float()

    def optional(self, name: str) -> Tensor | None:
        """The tensor if the file has it."""
        return self.vector(name) if self.has(name) else None

    def missing(self) -> list[str]:
        """Names that were asked for in vain."""
        return sorted(set(self._missing))

    def unknown(self) -> list[str]:
        """Names that nobody has asked for."""
        return sorted(self._named.keys() - self._taken)

    def convolution(
        self,
        name: str,
        norm: str = "",
        eps: float = 1e-5,
        stride: int = 1,
        padding: int | None = None,
        same: bool = False,
    ) -> Layer:
        """A convolution, with the batch normalisation behind it folded in: what its statistics do is linear.

        Args:
            norm: name of that normalisation; "" for none.
            padding: on every side; by default half a kernel.
            same: TensorFlow's padding instead, which puts the odd pixel behind.
        """
        weight, bias = self.vector(f"{name}.weight"), self.optional(f"{name}.bias")
        if norm:
            scale, shift = self._scale_and_shift(norm, eps)
            if weight.numel() and len(scale) == len(weight):
                bias = shift if bias is None else shift + scale * bias
                weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        if weight.dim() not in _CONVOLUTIONS:
            return _nothing
        run, kernel = _CONVOLUTIONS[weight.dim()], weight.shape[2:]
        sides = 0 if same else [k // 2 for k in kernel] if padding is None else padding

        def convolved(images: Tensor) -> Tensor:
            framed = _framed(images, kernel, stride) if same else images
            return run(framed, weight, bias, stride, sides, groups=images.shape[1] // weight.shape[1])

        return convolved

    def batch_norm(self, name: str, eps: float = 1e-5) -> Layer:
        """A batch normalisation with the statistics of its file, for where no convolution stands before it."""
        scale, shift = self._scale_and_shift(name, eps)
        return lambda images: images * _along_channels(scale, images) + _along_channels(shift, images)

    def layer_norm(self, name: str, eps: float) -> Layer:
        """Layer normalisation over the last axis."""
        weight, bias = self.vector(f"{name}.weight"), self.vector(f"{name}.bias")
        return lambda rows: functional.layer_norm(rows, weight.shape, weight, bias, eps)

    def linear(self, name: str) -> Layer:
        """A linear layer of the last axis; a convolution over single pixels is one."""
        weight, bias = self.vector(f"{name}.weight"), self.optional(f"{name}.bias")
        if weight.dim() > 2 and weight.shape[2:].numel() == 1:
            weight = weight.flatten(1)
        return lambda rows: functional.linear(rows, weight, bias)

    def _scale_and_shift(self, name: str, eps: float) -> tuple[Tensor, Tensor]:
        weight, bias, mean, variance = (
            self.vector(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")
        )
        if not len(weight) == len(bias) == len(mean) == len(variance):
            return torch.empty(0), torch.empty(0)
        scale = weight / (variance + eps).sqrt()
        return scale, bias - mean * scale


def _nothing(images: Tensor) -> Tensor:
    return images


def _along_channels(vector: Tensor, images: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (images.dim() - 2))


def _framed(images: Tensor, kernel: tuple[int, ...], stride: int) -> Tensor:
    widths: list[int] = []
    for size, k in zip(images.shape[2:], kernel, strict=True):
        extra = max((-(-size // stride) - 1) * stride + k - size, 0)
        widths = [extra // 2, extra - extra // 2, *widths]  # the last axis comes first
    return functional.pad(images, widths)


def mean_over_space(maps: Tensor) -> Tensor:
    """float32 (images, channels, ...) averaged to (images, channels)."""
    return maps.flatten(2).mean(dim=2)
