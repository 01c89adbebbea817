"""What must be known of an encoder beside its tensors, and stands in the head of a converted file.

Tested in ``tests/tasks/models/encoders/test_encoder_file.py``.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from tasks.protocol.study import STRICT

LARGEST_SIDE = 2048
"""No encoder takes larger images; one that says so is wrong, or would take all memory."""

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class Facts:
    """Of one encoder.

    Attributes:
        layout: whose names its tensors have, see ``layouts.LAYOUTS``, or ``onnx``.
        side: images are brought to this many pixels along each axis first; 0 leaves them as the task gives them.
        mean, std: of each channel, in units of [0, 1]: taken off, and divided by.
        eps: of its normalisation layers.
        same_padding: whether it was made with TensorFlow, which pads otherwise.
        stem_stride: of a ResNet's first convolution.
        heads: attention heads of a transformer; 0: one for every 64 values.
        output: name of the output of an ONNX graph; "" for its only one.
        scattering: resolution, J, L and pool, see ``ScatterFeatures``, and 2 or 3 axes, where that is all there is.
        licence: what the person who converted it has been told.
        directions: what images its directions are from; "" where it has none.
        source: SHA-256 of the file it was converted from; "" for that file itself.
    """

    layout: Annotated[str, Field(max_length=60)]
    side: Annotated[int, Field(ge=0, le=LARGEST_SIDE)]
    mean: Annotated[list[_Number], Field(min_length=1, max_length=64)]
    std: Annotated[list[_Positive], Field(min_length=1, max_length=64)]
    eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    same_padding: bool = False
    stem_stride: Annotated[int, Field(ge=1, le=2)] = 2
    heads: Annotated[int, Field(ge=0, le=64)] = 0
    output: Annotated[str, Field(max_length=200)] = ""
    scattering: Annotated[list[Annotated[int, Field(ge=0, le=1024)]], Field(max_length=5)] = field(default_factory=list)
    licence: Annotated[str, Field(max_length=400)] = ""
    directions: Annotated[str, Field(max_length=400)] = ""
    source: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
