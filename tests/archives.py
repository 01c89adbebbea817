"""Archives as MedMNIST publishes them, small and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.sources.files.medmnist import PARTS
from tasks.medmnist.table import ARCHIVES


def write(folder: Path, name: str, sizes: tuple[int, int, int] = (12, 4, 8), side: int = 28) -> Path:
    """``NAME.npz``: an image is the brighter the higher its label, of several labels the more it has."""
    archive, rng, arrays = ARCHIVES[name], np.random.default_rng(0), dict[str, NDArray[np.uint8]]()
    shape = (side,) * (3 if archive.volumes else 2) + ((archive.colours,) if archive.colours > 1 else ())
    for part, size in zip(PARTS, sizes, strict=True):
        several, classes = archive.kind == "findings", len(archive.labels)
        labels = rng.integers(0, 2, (size, classes)) if several else (np.arange(size) % classes)[:, None]
        bright = labels.mean(axis=1) * 200 / (1 if several else classes)
        images = rng.integers(0, 50, (size, *shape)) + bright.reshape(-1, *[1] * len(shape))
        arrays |= {f"{part}_images": images.astype(np.uint8), f"{part}_labels": labels.astype(np.uint8)}
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
