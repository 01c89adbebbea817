"""Scattering without complex numbers gives the same numbers, in two dimensions and three."""

from __future__ import annotations

import pytest
import torch

from tasks.models.real_scattering import RealScattering
from tasks.models.scattering import Scattering2D
from tasks.models.scattering3d import Scattering3D


@pytest.mark.parametrize(
    "transform",
    [
        Scattering2D(shape=(32, 32), J=3, L=6),
        Scattering2D(shape=(16, 24), J=2, L=4, max_order=1),
        Scattering3D(shape=(8, 16, 8), J=2, L=7),
    ],
    ids=["square", "oblong", "volume"],
)
def test_it_is_the_same_transform(transform: Scattering2D | Scattering3D) -> None:
    images = torch.rand(3, 1, *transform.shape, generator=torch.Generator().manual_seed(1))
    expected = transform(images)
    torch.testing.assert_close(RealScattering(transform)(images), expected, rtol=1e-4, atol=1e-6)
    shifted = RealScattering(transform)(images.roll(3, dims=-1))  # the wrong version: any other image
    assert (shifted - expected).abs().max() > 1e-3
