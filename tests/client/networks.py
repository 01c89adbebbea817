"""Every network that can be named, small, for an image and for a volume."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.answers import Binary
from tasks.input_spec import InputSpec

IMAGE, VOLUME = InputSpec((1, 32, 40), (Binary(),) * 2, 1), InputSpec((2, 16, 16, 24), (Binary(),) * 2, 2)
SPECS: list[dict[str, Any]] = [
    {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 3, "pool": 2},
    {"name": "scatter_outline", "resolution": 16, "J": 2, "L": 3, "pool": 2},
    {"name": "densenet121"},
    {"name": "resnet18"},
    {"name": "efficientnet"},
    {"name": "vit", "patch": 8, "width": 24, "layers": 2, "heads": 3},
    {"name": "unet", "width": 8, "levels": 3, "groups": 4},
    {"name": "segresnet", "width": 8},
    {"name": "dynunet", "width": 8, "levels": 3, "groups": 4},
]
HEAVY_IN_SPACE = ("densenet121", "resnet18")
CASES = [
    pytest.param(spec, form, id=f"{spec['name']}-{len(form.shape) - 1}d")
    for spec in SPECS
    for form in (IMAGE, VOLUME)
    if form is IMAGE or spec["name"] not in HEAVY_IN_SPACE
]
