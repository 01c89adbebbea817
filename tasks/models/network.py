"""What a network is: a fixed part and a trained one.

Tested in ``tests/tasks/models/test_registry.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Network:
    """A network in two parts.

    Attributes:
        features: the fixed part, or ``None``: no parameter of it is trained, so its output is computed once for each
            image and kept. Maps float32 (images, *``InputSpec.shape``) to (images, ...).
        trainable: the part that is trained and sent; maps what ``features`` gives to logits of shape (images,
            outputs): of the questions, and then, where the network outlines, of every pixel of the first
            structure, of the second, and so on, pixels in C order.
        outlines: whether the outputs include structures.
    """

    features: nn.Module | None
    trainable: nn.Module
    outlines: bool = False

    def outputs(self, inputs: Tensor) -> Tensor:
        """All logits, shape (images, outputs), of inputs of shape (images, *``InputSpec.shape``)."""
        kept = inputs if self.features is None else self.features(inputs)
        logits: Tensor = self.trainable(kept)
        return logits

    def logits(self, inputs: Tensor) -> Tensor:
        """The first output, shape (images,): of a yes-or-no question its logit; for inputs of shape (images,
        *``InputSpec.shape``)."""
        return self.outputs(inputs)[:, 0]
