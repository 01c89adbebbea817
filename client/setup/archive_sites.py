"""An archive of MedMNIST dealt out to simulated hospitals, of uneven sizes and class balance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.sources.files.medmnist import ArchiveImages, read_archive
from conf.schema.federation import MedmnistFederation
from tasks.task import Task

Indices = NDArray[np.int64]


def dealt_out(
    path: Path, federation: MedmnistFederation, task: Task, home: Path, seed: int
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """By hospital what stands under ``sources`` in its ``site.yaml``, and what must be said beside every result.

    Args:
        home: lists of who has which images are written there.
        seed: the same one deals out the same images.

    Raises:
        SiteMisconfigured: the archive cannot be used.
    """
    archive, rng = read_archive(path, task), np.random.default_rng(seed)
    notes = [
        "Hospitals are simulated: random parts of one public set, with uneven sizes and class balance.",
        "The set names no patients, so every image counts as one; two images of one child may be on both sides.",
    ]
    if federation.whole:
        given = _all_of(archive, federation, rng)
    else:
        given = dict(_so_many(archive, federation, rng))
        short = {name: size for name, size in federation.sizes.items() if len(given[name]) < size}
        notes += [
            f"{name} has {len(given[name])} patients, not {size}: the set had no more of the class drawn."
            for name, size in short.items()
        ]
    if set(federation.split_sides.values()) >= {"train", "validation"}:
        notes.append(f"The archive's own split is kept: {_in_words(federation.split_sides)}.")
    sides = {"split_sides": dict(federation.split_sides)} if federation.split_sides else {}
    sources = {}
    for name, indices in given.items():
        listed = home / f"{name}.indices.txt"
        listed.write_text("\n".join(map(str, indices.tolist())), "utf-8")
        source = {"kind": "medmnist", "task": task.name, "issuer": name, "path": str(path), "indices": str(listed)}
        sources[name] = [source | sides]
    return sources, notes


def _in_words(sides: Mapping[str, str]) -> str:
    words = {"train": "trained on", "validation": "for the figures", "leave_out": "left out"}
    return ", ".join(f"{part} {words[side]}" for part, side in sides.items())


def _so_many(
    archive: ArchiveImages, federation: MedmnistFederation, rng: np.random.Generator
) -> Iterator[tuple[str, Indices]]:
    """For each hospital as many as it is to have, its balance of classes drawn around the archive's (Dirichlet), as far
    as there are any left."""
    numbers = archive.numbers
    classes = np.arange(int(numbers.max()) + 1)
    left = [list(rng.permutation(np.flatnonzero(numbers == one))) for one in classes]
    shares = np.bincount(numbers, minlength=len(classes)) / len(numbers)
    for name, size in federation.sizes.items():
        drawn = np.zeros(len(classes))
        drawn[shares > 0] = rng.dirichlet(federation.label_skew * shares[shares > 0] * len(classes))
        wanted = np.rint(size * drawn).astype(int)
        wanted[0] = 0
        while wanted.sum() > size:  # rounded up too often
            wanted[wanted.argmax()] -= 1
        wanted[0] = size - wanted.sum()
        chosen = [left[one].pop() for one in classes for _ in range(min(wanted[one], len(left[one])))]
        yield name, np.array(sorted(chosen), np.int64)


def _all_of(archive: ArchiveImages, federation: MedmnistFederation, rng: np.random.Generator) -> dict[str, Indices]:
    """Every image to one hospital: of each class the hospitals' shares are drawn around their sizes (Dirichlet; T.-M.
    Hsu, H. Qi, M. Brown, 2019, arXiv:1909.06335), and each of the archive's parts is dealt out in them."""
    sizes = np.array(list(federation.sizes.values()), np.float64)
    parts, given = np.array(archive.parts), [np.empty(0, np.int64) for _ in sizes]
    for one in np.unique(archive.numbers):
        shares = rng.dirichlet(federation.label_skew * sizes / sizes.sum() * len(sizes))
        for part in np.unique(parts):
            there = rng.permutation(np.flatnonzero((archive.numbers == one) & (parts == part)))
            cuts = np.rint(np.cumsum(shares)[:-1] * len(there)).astype(int)
            given = [np.concatenate(both) for both in zip(given, np.split(there, cuts), strict=True)]
    return {name: np.sort(indices) for name, indices in zip(federation.sizes, given, strict=True)}
