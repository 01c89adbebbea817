"""``encoder``: a linear model on a public encoder's features, with scattering beside them.

Both parts have norm 1 and are put side by side at equal weight, so that every vector has norm 1, as those of
``scatter_linear``.
Of several channels an encoder that was not made for as many sees one at a time, and channels that are zero everywhere,
sequences that were not acquired, add nothing.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models.encoders import encoder_file
from tasks.models.encoders.directions import MOST, Directions
from tasks.models.encoders.encoder_file import PublicEncoder
from tasks.models.network import Network
from tasks.models.scatter import ScatterFeatures, natural_noise


def encoder(options: schema.Encoder, form: InputSpec, file: Path | bytes) -> Network:
    """A linear model of the findings on what the encoder in a file says, and scattering.

    Raises:
        ValueError: the file is no encoder, or none for such inputs; the message says what to do.
    """
    name = file.name if isinstance(file, Path) else "the model's file"
    try:
        read = encoder_file.read(encoder_file.content_of(file) if isinstance(file, Path) else file)
    except encoder_file.BadEncoder as error:
        raise ValueError(f"the encoder in {name} cannot be used: {error}") from error
    _refuse(read, options, form, name)
    beside = _scattering(options, form) if options.pool else None
    features = EncoderFeatures(read, beside, options.directions, form)
    head = nn.Linear(features.features, form.outputs)
    nn.init.zeros_(head.weight)  # a convex problem, as that of ``scatter_linear``
    nn.init.zeros_(head.bias)
    return Network(features, head)


def _scattering(options: schema.Encoder, form: InputSpec) -> ScatterFeatures:
    return ScatterFeatures(shape=form.shape, resolution=options.resolution, J=options.J, L=options.L, pool=options.pool)


def _refuse(read: PublicEncoder, options: schema.Encoder, form: InputSpec, name: str) -> None:
    axes, problems = len(form.shape) - 1, []
    kinds = {2: "images", 3: "volumes"}
    if read.axes != axes:
        problems.append(f"it is for {kinds[read.axes]}, and the task has {kinds[axes]}; take one for {kinds[axes]}")
    if read.channels not in (1, 3, form.shape[0]):
        problems.append(
            f"it takes {read.channels} channels; the task's inputs have {form.shape[0]}, which are shown one at a time"
        )
    if options.directions > MOST:
        problems.append(f"directions={options.directions}: use at most {MOST}")
    elif options.directions and read.directions is None:
        problems.append(
            f"directions={options.directions}, and the file has none: make one with them, "
            "consilium encoder FILE --directions noise, or set model.directions=0"
        )
    elif read.directions is not None and options.directions > read.directions.axes.shape[1]:
        problems.append(f"directions={options.directions}, and the file has {read.directions.axes.shape[1]}")
    if problems:
        raise ValueError(f"the encoder in {name} does not fit: {'; '.join(problems)}")


class EncoderFeatures(nn.Module):
    """Maps float32 (images, channels, ...) to float32 (images, ``features``) of norm 1.

    Args:
        encoder: sees every channel by itself, unless it takes as many.
        beside: another fixed part, if there is one.
        number: how many directions of the encoder's are used; 0: all that it says.
    """

    def __init__(self, encoder: PublicEncoder, beside: ScatterFeatures | None, number: int, form: InputSpec) -> None:
        super().__init__()
        self._encoder, self._beside, self._number, self._form = encoder, beside, number, form
        self._centre = encoder.directions
        self._parts = 1 if encoder.channels == form.shape[0] else form.shape[0]
        own = (number or encoder.features) * self._parts
        self.features = own + (0 if beside is None else beside.features)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of norm 1, float32 (images, features)."""
        if self._centre is None:  # computed for the first image, as for scattering
            noise = natural_noise(self._form.shape[1:]).to(images.device)
            if self._parts == 1:
                noise = noise.expand(-1, *self._form.shape)
            noise = torch.cat([self._encoder.encode(one[None]) for one in noise])
            spread = noise.std(dim=0)
            self._centre = Directions(noise.mean(dim=0), spread + 1e-3 * spread.max() + 1e-30, torch.empty(0), "noise")
        said: Tensor = normalize(self._said(images, self._centre.on(images.device)).flatten(1))
        if self._beside is None:
            return said
        both: Tensor = torch.cat([said, self._beside(images)], dim=1) * 0.5**0.5
        return both

    def _said(self, images: Tensor, centre: Directions) -> Tensor:
        """What the encoder says of each part of an image, float32 (images, parts, values)."""
        planes = images if self._parts == 1 else images.reshape(-1, 1, *images.shape[2:])
        found = torch.cat([self._encoder.encode(one[None]) for one in planes])
        values = centre.along(found, self._number) if self._number else centre.centred(found)
        present = planes.flatten(1).any(dim=1, keepdim=True)
        said: Tensor = (values * present).reshape(len(images), self._parts, -1)
        return said
