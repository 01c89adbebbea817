"""Directions: along which an encoder's features vary over images that are nobody's, and how much.

Under noise a head of 48 numbers learns what one of 1,280 cannot, if the 48 are those along which such images differ.
They must not come from patients: they come from phantoms of the task, from random processes, or from a public folder.
Along each, features are divided by the square root of their spread: half the way to equal spread, which keeps what
matters most ahead of what is nearly noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

MOST = 128
LEAST_IMAGES = 32


@dataclass(frozen=True)
class Directions:
    """Of one encoder.

    Attributes:
        mean, spread: of each feature over the images; float32 (features,).
        axes: float32 (features, directions), the widest first, each already divided.
        told: what images they are from.
    """

    mean: Tensor
    spread: Tensor
    axes: Tensor
    told: str

    def on(self, device: torch.device) -> Directions:
        """The same for features of that device."""
        return Directions(self.mean.to(device), self.spread.to(device), self.axes.to(device), self.told)

    def along(self, features: Tensor, number: int) -> Tensor:
        """Features along the widest directions, of norm 1: float32 (images, number)."""
        return normalize(((features - self.mean) / self.spread) @ self.axes[:, :number])

    def centred(self, features: Tensor) -> Tensor:
        """All features, centred and of equal spread, of norm 1: float32 (images, features)."""
        return normalize((features - self.mean) / self.spread)


def fitted(features: Tensor, told: str, most: int = MOST) -> Directions:
    """Directions of these images' features, float32 (images, features).

    Raises:
        ValueError: there are too few images, or all give the same features.
    """
    if len(features) < LEAST_IMAGES:
        raise ValueError(f"directions from {len(features)} images mean nothing: use {LEAST_IMAGES} or more")
    mean, spread = features.mean(dim=0), features.std(dim=0)
    if not float(spread.max()) > 0:
        raise ValueError("all images give the same features: the encoder does not see what it is shown")
    spread = spread + 1e-3 * spread.max()
    centred = ((features - mean) / spread).double()
    _, stretch, axes = torch.linalg.svd(centred, full_matrices=False)
    stretch = stretch / math.sqrt(len(features) - 1)
    number = min(most, int((stretch > 1e-3 * stretch[0]).sum()))
    upright = axes[:number] * axes[:number].sum(dim=1, keepdim=True).sign()  # a sign of its own, on every machine
    scaled = upright.T / stretch[:number].sqrt()
    return Directions(mean, spread, scaled.float().contiguous(), told)
