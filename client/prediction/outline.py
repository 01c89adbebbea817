"""What a model outlines on an example, packed: thousands of images may be in memory before anything is written.

Tested in ``tests/client/prediction/test_segmentation.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Outline:
    """Masks on an example's grid, a bit a voxel.

    Attributes:
        shape: structures, then the example's without its channels.
    """

    shape: tuple[int, ...]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, masks: NDArray[np.bool_]) -> Outline:
        """Pack bool masks."""
        return cls(masks.shape, np.packbits(masks))

    def masks(self) -> NDArray[np.bool_]:
        """The unpacked masks."""
        return np.unpackbits(self.bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(np.bool_)

    def fractions(self) -> tuple[float, ...]:
        """The fraction of the image that is marked, for each structure."""
        return tuple(float(mask.mean()) for mask in self.masks())
