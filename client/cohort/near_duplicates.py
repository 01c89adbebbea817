"""Images that look alike: the same image under two patient numbers, copied, exported twice, or with measurements.

A difference hash records for 8 x 8 cells whether the next one to the right is brighter; a copy that was re-encoded or
resized differs in few bits (Krawetz, "Kind of like that", 2013). Hashes select candidates, correlation of the images
decides: images of one organ resemble each other more than photographs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from client.cohort.picture import plane_of

ROWS, COLUMNS = 8, 8
_BANDS = 4
_MOST_BITS = _BANDS - 1  # two hashes that differ in so many bits agree in at least one of four bands
_SAME = 0.99
_GRID = 24


def fingerprint(example: NDArray[np.float32]) -> int:
    """The difference hash of an example, 64 bits.

    Args:
        example: float32 (channels, rows, columns), or (channels, slices, rows, columns), of which the middle slice.
    """
    cells = _cells(plane_of(example), ROWS, COLUMNS + 1)
    bits = (cells[:, 1:] > cells[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cells(pixels: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float64]:
    """Means over a grid of cells; a sum table makes them in one pass (Crow 1984)."""
    table = np.zeros((pixels.shape[0] + 1, pixels.shape[1] + 1))
    table[1:, 1:] = pixels.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    down = np.linspace(0, pixels.shape[0], rows + 1).round().astype(np.intp)
    across = np.linspace(0, pixels.shape[1], columns + 1).round().astype(np.intp)
    sums = np.diff(np.diff(table[np.ix_(down, across)], axis=0), axis=1)
    return np.asarray(sums / np.maximum(1, np.outer(np.diff(down), np.diff(across))))


def nominate(fingerprints: Sequence[int], patients: Sequence[str], most: int) -> list[tuple[int, int]]:
    """Pairs of images of different patients whose hashes differ in at most three bits.

    Hashes are sorted by each of four bands and compared with their neighbours of the same band, so the work grows with
    the number of images, not with its square, unless most of them look the same.

    Args:
        fingerprints, patients: of each image.
        most: no more pairs than this are returned.

    Returns:
        Pairs of positions, the smaller first, in order.
    """
    hashes = np.array(fingerprints, dtype=np.uint64)
    _, owners = np.unique(np.array(patients, dtype=np.str_), return_inverse=True)
    nominated: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        keys = hashes & _band(band)
        order = np.argsort(keys, kind="stable")
        for left, right in _neighbours(keys[order]):
            one, other = order[left], order[right]
            close = (np.bitwise_count(hashes[one] ^ hashes[other]) <= _MOST_BITS) & (owners[one] != owners[other])
            pairs = np.sort(np.stack([one[close], other[close]], axis=1), axis=1)
            nominated.update(map(tuple, pairs[: most + 1].tolist()))
            if len(nominated) >= most:
                return sorted(nominated)[:most]
    return sorted(nominated)


def _band(number: int) -> np.uint64:
    """Every fourth bit: neighbouring bits would be the same in all images with a black margin."""
    return np.uint64(sum(1 << bit for bit in range(number, 64, _BANDS)))


def _neighbours(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Positions of equal keys in a sorted list: at distance 1, then 2, and so on."""
    left, distance = np.arange(len(keys), dtype=np.intp), 0
    while len(left):
        distance += 1
        left = left[left + distance < len(keys)]
        left = left[keys[left] == keys[left + distance]]
        yield left, left + distance


def confirm(pairs: Sequence[tuple[int, int]], load: Callable[[int], NDArray[np.float32]]) -> list[tuple[int, int]]:
    """The pairs whose examples have a correlation of at least 0.99.

    Args:
        pairs: from ``nominate``.
        load: the example at a position.
    """
    return [(one, other) for one, other in pairs if _correlation(load(one), load(other)) >= _SAME]


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """On a common grid, as examples of two tasks may have different shapes."""
    if one.shape != other.shape:
        one, other = (_cells(plane_of(each), _GRID, _GRID).astype(np.float32) for each in (one, other))
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0
