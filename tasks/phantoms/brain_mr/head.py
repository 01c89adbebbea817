"""The head of a phantom patient: which tissue is where, on a grid fine enough for slices to average over.

Maps hold shares of tissues, which add up to 1 in each voxel, so that partial volume is there from the beginning.

Tested in ``tests/tasks/phantoms/brain_mr/test_phantom.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tasks.phantoms.fields import Field, smooth_volume

TISSUES = ("white", "grey", "csf", "scalp", "bone", "oedema", "solid", "enhancing", "necrosis")
AT = {name: number for number, name in enumerate(TISSUES)}
SHAPE, STEP_MM = (60, 56, 56), (2.5, 3.75, 3.75)
"""Fine grid: planes from the feet to the head, rows to the back, columns to the left."""


@dataclass(frozen=True)
class Tumour:
    """One glioma; lengths in millimetres.

    Attributes:
        centre: (3,) from the head's centre along planes, rows, columns.
        radius: of its core.
        stretch: (3,) factors of the radius.
        roughness: how far its surface strays, as a fraction of the radius.
        oedema: how far the oedema reaches beyond the core.
        rim: thickness of the enhancing rim; 0 where nothing enhances.
        necrosis: whether what the rim encloses is necrotic, 0 to 1.
        patches: share of the core that enhances where there is no rim.
    """

    centre: tuple[float, float, float]
    radius: float
    stretch: tuple[float, float, float]
    roughness: float
    oedema: float
    rim: float
    necrosis: float
    patches: float


_SEPARATION = 3.4  # between the mean suspicion of low and of high grade, in standard deviations


def tumour_of(rng: np.random.Generator, high_grade: bool) -> Tumour:
    """A patient's glioma.

    High grade: a thick enhancing rim around necrosis, wide oedema, a rough border. Low grade: a homogeneous mass,
    bright on T2 and FLAIR, that does not enhance or in patches, with little oedema. One hidden suspicion drives all
    signs, each adds its own chance, and the two kinds overlap: some high-grade gliomas do not enhance at all.
    """
    suspicion = rng.normal(_SEPARATION / 2 if high_grade else -_SEPARATION / 2)

    def sign(low: float, high: float, own: float = 0.8) -> float:
        share = 1 / (1 + np.exp(-(suspicion + own * rng.standard_normal())))
        return float(low + (high - low) * share)

    side = -1 if rng.random() < 0.5 else 1
    rim = sign(-5.0, 10.0)
    return Tumour(
        centre=(float(rng.uniform(-12, 28)), float(rng.uniform(-42, 42)), float(side * rng.uniform(20, 38))),
        radius=float(np.clip(np.exp(rng.normal(np.log(19), 0.18)), 11, 27)),
        stretch=tuple(np.exp(rng.normal(0, 0.15, 3)).tolist()),
        roughness=sign(0.05, 0.3),
        oedema=max(1.0, sign(0, 20)),
        rim=rim if rim > 1.5 else 0.0,
        necrosis=float(np.clip(sign(-0.3, 1.2), 0, 1)),
        patches=float(np.clip(sign(-0.25, 0.35, own=1.2), 0, 1)),
    )


def head_of(rng: np.random.Generator, tumour: Tumour) -> Field:
    """Shares of the tissues, float32 (tissues, *SHAPE)."""
    z, y, x = (
        ((np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(step)).reshape(
            [-1 if axis == one else 1 for axis in range(3)]
        )
        for one, (size, step) in enumerate(zip(SHAPE, STEP_MM, strict=True))
    )
    size = np.exp(rng.normal(0, 0.03, 3)).astype(np.float32)
    shares = np.zeros((len(TISSUES), *SHAPE), dtype=np.float32)
    low = z + 16  # the head's middle is below that of the scan, which begins at its top
    depth = 1 - np.sqrt((low / (86 * size[0])) ** 2 + (y / (92 * size[1])) ** 2 + (x / (74 * size[2])) ** 2)
    depth = depth * np.float32(80)  # about millimetres below the skin
    head, skull, brain = _above(depth, 0, 1), _above(depth, 5.5, 1), _above(depth, 12, 1)
    folds = smooth_volume(rng, SHAPE, (4.2, 2.8, 2.8))
    sulci = np.exp(-np.square(folds / np.float32(0.16))) * _below(depth, 24, 3)  # level lines wander as sulci do
    cortex = _below(depth + 2.5 * folds, 18.5, 1.2)
    inner = np.sqrt(((low - 22) / 13) ** 2 + ((np.abs(x) - 17) / 8) ** 2 + ((y + 2) / 14) ** 2)  # basal ganglia
    grey = np.maximum(cortex, _above(-inner, -1, 0.15)) * (1 - sulci)
    wide = np.float32(np.exp(rng.normal(0, 0.25)))
    fluid = np.maximum(sulci, _ventricles(low, y, x, wide))
    fluid = np.maximum(fluid, np.exp(-np.square(x / np.float32(1.6))) * _below(depth, 30, 4))  # between the hemispheres
    shares[AT["scalp"]] = head * (1 - skull)
    shares[AT["bone"]] = skull * (1 - _above(depth, 9.5, 0.8))
    shares[AT["csf"]] = _above(depth, 9.5, 0.8) * (1 - brain) + brain * fluid
    shares[AT["grey"]] = brain * (1 - fluid) * grey
    shares[AT["white"]] = brain * (1 - fluid) * (1 - grey)
    _grow(shares, tumour, rng, (z, y, x), brain)
    return shares


def _ventricles(z: Field, y: Field, x: Field, wide: np.float32) -> Field:
    """Two lateral ventricles, bent about the basal ganglia."""
    bow = (z - 30) - (y / 10) ** 2 * np.float32(-0.35)
    apart = np.sqrt((bow / (9 * wide)) ** 2 + (y / 34) ** 2 + ((np.abs(x) - 9 - np.abs(y) / 6) / (5.5 * wide)) ** 2)
    return _above(-apart, -1, 0.12)


def _grow(
    shares: Field, tumour: Tumour, rng: np.random.Generator, at_mm: tuple[Field, Field, Field], brain: Field
) -> None:
    """Put a tumour into the brain: what it takes, other tissues lose."""
    apart = sum(
        ((axis - np.float32(centre)) / np.float32(stretch)) ** 2
        for axis, centre, stretch in zip(at_mm, tumour.centre, tumour.stretch, strict=True)
    )
    rough = smooth_volume(rng, SHAPE, (3.6, 2.4, 2.4)) * np.float32(tumour.roughness * tumour.radius)
    inside = np.float32(tumour.radius) - np.sqrt(apart) + rough  # millimetres below the core's surface
    core = _above(inside, 0, 0.9) * brain
    finger = 3.5 * smooth_volume(rng, SHAPE, (5, 3.4, 3.4))  # oedema follows the white matter
    white = shares[AT["white"]] + np.float32(0.35) * shares[AT["grey"]]
    oedema = _above(inside + finger, -tumour.oedema, 1.5) * brain * (white > 0.2) * (1 - core)
    rim = core * _below(inside, tumour.rim, 0.8) if tumour.rim else np.zeros_like(core)
    if not tumour.rim and tumour.patches > 0.02:
        spots = smooth_volume(rng, SHAPE, (3, 2, 2))
        rim = core * _above(spots, float(np.quantile(spots, 1 - tumour.patches)), 0.2)
    shares *= 1 - core - oedema
    shares[AT["oedema"]] = oedema
    shares[AT["enhancing"]] = rim
    shares[AT["necrosis"]] = (core - rim) * np.float32(tumour.necrosis)
    shares[AT["solid"]] = (core - rim) * np.float32(1 - tumour.necrosis)


def regions(shares: Field) -> Field:
    """Shares of the regions that BraTS evaluates: whole tumour, tumour core, enhancing tumour; (3, *SHAPE)."""
    enhancing = shares[AT["enhancing"]]
    core = enhancing + shares[AT["solid"]] + shares[AT["necrosis"]]
    return np.stack([core + shares[AT["oedema"]], core, enhancing])


def _above(values: Field, at: float, softness: float) -> Field:
    return np.asarray(
        1 / (1 + np.exp(((np.float32(at) - values) * np.float32(4 / softness)).clip(-30, 30))), np.float32
    )


def _below(values: Field, at: float, softness: float) -> Field:
    return np.asarray(1 - _above(values, at, softness), np.float32)
