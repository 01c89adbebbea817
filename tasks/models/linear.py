"""``scatter_linear`` and ``scatter_outline``: linear heads on fixed features of images and of their places.

Tested in ``tests/tasks/models/test_local.py``.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from conf.schema import model as schema
from tasks.input_spec import InputSpec
from tasks.models import outliner
from tasks.models.local import FeatureGrid, LocalFeatures
from tasks.models.network import Network
from tasks.models.scatter import GridSize, ScatterFeatures

_MOST_ORIENTATIONS = 32
_SURE, _MOST = 4.0, 2.0
"""An outliner's logits are bounded at this, and become numbers that are bounded at that."""


def scatter_linear(options: schema.ScatterLinear, form: InputSpec) -> Network:
    """A linear model of the findings."""
    whole = _whole(options, form)
    head = nn.Linear(whole.features, form.outputs)
    nn.init.zeros_(head.weight)  # a convex problem: zero is the neutral start, and the same at every hospital
    nn.init.zeros_(head.bias)
    return Network(whole, head)


def scatter_outline(options: schema.ScatterOutline, form: InputSpec, file: Path | bytes = b"") -> Network:
    """A linear model of the findings, and another one that outlines the structures.

    Args:
        file: of an outliner, whose outlines the second model begins with.
    """
    if not form.structures:
        raise ValueError("the task has no structures to outline; take model=scatter_linear")
    if file and (form.structures, len(form.shape), form.shape[0]) != (1, 3, 1):
        raise ValueError("an outliner's file is for one structure on images of one channel; set model.weights=''")
    whole, places = _whole(options, form), LocalFeatures(shape=form.shape)
    if not file:
        heads = LinearOutlines(whole.features, form.outputs, form.structures, places.grids, form.shape[1:])
        return Network(Both(whole, places), heads, outlines=True)
    drawn = DrawnOutlines(file)
    heads = LinearOutlines(whole.features, form.outputs, 1, (*places.grids, drawn.grid), form.shape[1:])
    nn.init.constant_(heads.structures[-1].weight, drawn.begins)  # type: ignore[arg-type]
    return Network(Both(whole, Both(places, drawn)), heads, outlines=True)


class DrawnOutlines(nn.Module):
    """What an outliner says of each place: float32 (images, places), between the bounds of one grid of ``REACH``.

    Attributes:
        grid: of these places.
        begins: the weight with which a linear model of this one value has the outliner's own logits, where they are
            small.
    """

    def __init__(self, file: Path | bytes) -> None:
        super().__init__()
        try:
            self._outliner = outliner.read(file.read_bytes() if isinstance(file, Path) else file)
        except outliner.BadOutliner as error:
            name = file.name if isinstance(file, Path) else "the model's file"
            raise ValueError(f"the outliner in {name} cannot be used: {error}") from error
        self.grid = FeatureGrid((outliner.CELLS, outliner.CELLS), 1)
        self.begins = _SURE / _MOST

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """One image after the other, so that memory does not grow with their number."""
        logits = torch.cat([self._outliner(one[None]) for one in images])
        return (_MOST * torch.tanh(logits / _SURE)).flatten(1)


def _whole(options: schema.ScatterLinear, form: InputSpec) -> ScatterFeatures:
    if options.L > _MOST_ORIENTATIONS:  # memory grows with its square, and the number may come from the network
        raise ValueError(f"L={options.L}: use at most {_MOST_ORIENTATIONS} orientations")
    try:
        return ScatterFeatures(
            shape=form.shape, resolution=options.resolution, J=options.J, L=options.L, pool=options.pool
        )
    except ValueError as error:
        if len(form.shape) == 4:
            raise ValueError(f"{error}; model={options.name}_3d has options for volumes") from error
        raise


class LinearOutlines(nn.Module):
    """A linear model on features of the whole image and of its places.

    Maps float32 (images, ``features`` + the grids' values) to logits (images, findings + structures * pixels).

    Args:
        features: number of features of the whole image, which come first.
        findings: number of yes-or-no questions.
        structures: number of structures to be outlined.
        grids: of ``LocalFeatures``.
        pixels: size of the image along each axis.
    """

    def __init__(
        self, features: int, findings: int, structures: int, grids: tuple[FeatureGrid, ...], pixels: GridSize
    ) -> None:
        super().__init__()
        self.findings = nn.Linear(features, findings)
        self.structures = nn.ModuleList(nn.Linear(grid.values, structures, bias=False) for grid in grids)
        self.level = nn.Parameter(torch.zeros(structures))
        self.heads = ("findings", "structures", "level")
        self._grids, self._pixels = grids, pixels
        self._sizes = [features, *(math.prod(grid.cells) * grid.values for grid in grids)]
        for p in self.parameters():
            nn.init.zeros_(p)  # a convex problem but for Dice: zero is the neutral start

    def forward(self, kept: Tensor) -> Tensor:
        """All logits."""
        whole, *places = torch.split(kept, self._sizes, dim=1)
        mode = "bilinear" if len(self._pixels) == 2 else "trilinear"
        by_cells: dict[GridSize, Tensor] = {}
        for grid, values, linear in zip(self._grids, places, self.structures, strict=True):
            by_place = linear(values.reshape(len(kept), -1, grid.values)).transpose(1, 2)
            logits = by_place.reshape(len(kept), -1, *grid.cells)
            by_cells[grid.cells] = by_cells[grid.cells] + logits if grid.cells in by_cells else logits
        coarse, *finer = sorted(by_cells)
        logits = by_cells[coarse] + self.level.view(1, -1, *[1] * len(coarse))
        for cells in finer:  # grid by grid: interpolating each to the image's size would take most of a step's time
            logits = by_cells[cells] + interpolate(logits, size=cells, mode=mode)
        outlines = interpolate(logits, size=self._pixels, mode=mode)
        return torch.cat([self.findings(whole), outlines.flatten(1)], dim=1)


class Both(nn.Module):
    """Two fixed parts of one image, flat and one after the other: float32 (images, values of both)."""

    def __init__(self, whole: nn.Module, places: nn.Module) -> None:
        super().__init__()
        self.whole, self.places = whole, places

    def forward(self, images: Tensor) -> Tensor:
        """What both say, flat."""
        return torch.cat([self.whole(images), self.places(images)], dim=1)
