"""Random transforms, drawn anew whenever an image is drawn for training: MONAI's dictionary transforms.

They imitate how an image differs from itself when it is taken again: slightly moved, turned, brighter, noisier. Changes
that no second examination would show are left out, such as a heart on the other side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from tasks.task import Augmentation


def of_pictures(
    mirrored: bool, degrees: float = 8.0, shift: float = 0.06, zoom: float = 0.1, noise: float = 0.02
) -> Augmentation:
    """Random changes of a two-dimensional example and its masks; half of the images are moved, half get noise.

    Args:
        mirrored: whether left and right may be exchanged, for every second image.
        degrees: the largest rotation.
        shift: the largest shift along each axis, as a fraction of its size.
        zoom: the largest change of size, as a fraction.
        noise: standard deviation of added noise; brightness and contrast change as well, by a tenth at most.

    Returns:
        From a float32 example (channels, rows, columns) in [0, 1], bool masks (structures, rows, columns), maybe of no
        structure, and a generator of all random numbers, to both: same shapes, types and range.
    """

    def augment(
        example: torch.Tensor, masks: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = [round(shift * size) for size in example.shape[1:]]
        return drawn(example, masks, generator, lambda keys: transforms(keys, pixels))

    def transforms(keys: Sequence[str], pixels: list[int]) -> list[Any]:
        from monai.transforms.intensity.dictionary import RandAdjustContrastd, RandGaussianNoised, RandScaleIntensityd
        from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

        return [
            RandFlipd(keys, prob=0.5 if mirrored else 0.0, spatial_axis=1),
            RandAffined(
                keys,
                prob=0.5,
                rotate_range=math.radians(degrees),
                translate_range=pixels,
                scale_range=zoom,
                mode=["bilinear", "nearest"][: len(keys)],
                padding_mode="zeros",
            ),
            RandScaleIntensityd(["example"], factors=0.1, prob=0.5),
            RandAdjustContrastd(["example"], prob=0.5, gamma=(0.9, 1.1)),
            RandGaussianNoised(["example"], prob=0.5, std=noise),
        ]

    return augment


def drawn(
    example: torch.Tensor,
    masks: torch.Tensor,
    generator: torch.Generator,
    transforms: Callable[[Sequence[str]], list[Any]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """An example and its masks under MONAI's random transforms, with all random numbers from the generator.

    Args:
        example: float32 (channels, ...) in [0, 1].
        masks: bool (structures, ...), maybe of no structure.
        transforms: dictionary transforms of the keys that it is given: always ``example``, and ``masks`` where there
            are some. Intensities have to be ``example``'s alone.

    Returns:
        Both, of the same shapes, types and range.
    """
    # MONAI takes seconds to import, and only the training of a network without a fixed part needs it.
    from monai.transforms.compose import Compose

    draw = Compose(transforms(["example", "masks"] if len(masks) else ["example"]))
    draw.set_random_state(seed=int(torch.randint(2**31, (1,), generator=generator)))
    changed = draw({"example": example, "masks": masks.float()})
    return plain(changed["example"]).float().clamp(0, 1), plain(changed["masks"]) > 0.5


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without what MONAI attaches to it."""
    from monai.data.meta_tensor import MetaTensor

    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
