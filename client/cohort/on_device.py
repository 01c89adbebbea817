"""A network without its gradients on a device beside the processor: features and scores.

Where the device fails on an image, the processor computes that image and no other: which of the two it is must depend
on the image alone (``client/cohort/alone.py``), since they do not round alike.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tasks.machine.device import PROCESSOR, Placement, Portions


class OnDevice:
    """Maps what the module maps, from the processor to the processor.

    Args:
        module: stays where it is; the device gets a copy when the first images come.
        at_once: the most images that are on the device at a time; fewer when its memory is short.
    """

    def __init__(self, module: nn.Module, on: Placement, at_once: int) -> None:
        self._module, self._device = module, on.device
        self._portions = Portions(on.device, at_once)
        self._copied: nn.Module | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """What the module gives for images of shape (images, ...).

        Raises:
            Exception: whatever the module raises on the processor as well.
        """
        made = self._portions.attempt(lambda at_once: self._by_device(images, at_once))
        return self._by_processor(images) if made is None else made

    @torch.no_grad()
    def _by_device(self, images: Tensor, at_once: int) -> Tensor:
        if self._copied is None:
            self._copied = copy.deepcopy(self._module).to(self._device)
        parts = [self._copied(part.to(self._device)) for part in torch.split(images, at_once)]
        return torch.cat(parts).to(PROCESSOR.device)

    @torch.no_grad()
    def _by_processor(self, images: Tensor) -> Tensor:
        return torch.cat([self._module(part) for part in torch.split(images, self._portions.at_once)])
