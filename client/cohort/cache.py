"""Prepared examples on the hospital's disk: one safetensors file each, within a budget. They contain no code.

Tested in ``tests/client/cohort/test_preparation.py``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Container, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.cohort import inputs
from client.errors import CacheDamaged, CacheFull
from client.site import SiteSettings
from tasks.machine.disk import private_tree, write_private
from tasks.task import Task

LEAST_FREE = 10**9
"""Bytes left free on the disk, whatever the budget."""
_GIGABYTE = 10**9
_UNDER_WAY_S = 3600


class ExampleCache:
    """One task's examples of a hospital. Several threads may save at once."""

    def __init__(self, site: SiteSettings, task: Task) -> None:
        self._folder = site.catalog / "examples" / task.name
        self._inputs = site.catalog / "inputs"
        self._task = task
        self._budget = int(site.max_cache_gigabytes * _GIGABYTE)
        self._least = 4 * math.prod(task.example_shape)
        self._lock = threading.Lock()
        self._used: int | None = None

    def name(self, *made_of: str) -> str:
        """The name of the example made from these by this version of the task."""
        parts = [self._task.name, self._task.example_version, self._task.example_shape, *made_of]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def path(self, name: str) -> Path:
        """Path of the example of that name, whether or not it exists."""
        return self._folder / name[:2] / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether it exists and was not truncated by a full disk or a power failure."""
        try:
            return self.path(name).stat().st_size > self._least
        except OSError:
            return False

    def save(self, name: str, example: NDArray[np.float32], masks: NDArray[np.bool_] | None = None) -> None:
        """Keep an example of the task's shape, and masks of its structures on the same grid, where somebody has
        outlined them.

        Raises:
            CacheFull: it does not fit into the budget, or the disk has less than a gigabyte left.
        """
        tensors = {"example": np.ascontiguousarray(example, dtype=np.float32)}
        if masks is not None:
            tensors["masks"] = np.ascontiguousarray(masks, dtype=np.uint8)
        data, path = save(tensors), self.path(name)
        self._take(len(data))
        write_private(path, data)  # a crash leaves a whole file or none

    def delete(self, names: Iterable[str]) -> None:
        """Delete examples and everything computed from them."""
        gone = set(names)
        for name in gone:
            self.path(name).unlink(missing_ok=True)
        if gone:
            for path in self._inputs.glob(f"*-{self._task.name}-*.safetensors"):
                inputs.forget(path, gone)

    def sweep(self, known: Container[str]) -> None:
        """Delete leftovers of interrupted ingests that are not in the index, once an hour old: newer ones may belong to
        an ingest in progress. Restrict the permissions of the rest, which an older release left open to others."""
        private_tree(self._folder.parent)
        private_tree(self._inputs)
        for entry in _files(self._folder):
            left = entry.name.endswith(".partial") or entry.name.partition(".")[0] not in known
            if left and entry.stat().st_mtime < time.time() - _UNDER_WAY_S:
                Path(entry.path).unlink(missing_ok=True)

    def used(self) -> int:
        """Bytes of all examples."""
        return sum(entry.stat().st_size for entry in _files(self._folder))

    def _take(self, size: int) -> None:
        with self._lock:
            if self._used is None:
                self._used = self.used()
            self._used += size
            free = shutil.disk_usage(_existing(self._folder)).free
            if self._used > self._budget:
                raise CacheFull(
                    f"the examples of {self._task.name} would exceed max_cache_gigabytes={self._budget / 1e9:g} "
                    "of site.yaml; raise it, or narrow the source's scope. What was read is kept"
                )
            if free - size < LEAST_FREE:
                raise CacheFull(f"less than 1 GB is free on the disk of {self._folder}; what was read is kept")


def load_example(path: Path) -> NDArray[np.float32]:
    """One prepared example, float32 of the task's ``example_shape``.

    Raises:
        CacheDamaged: the file is gone or does not hold what was written.
    """
    return _load(path)[0]


def load_masks(path: Path) -> NDArray[np.bool_] | None:
    """The masks of a prepared example, bool of shape (structures, *example_shape[1:]); ``None`` where nobody has
    outlined anything.

    Raises:
        CacheDamaged: see ``load_example``.
    """
    masks = _load(path)[1]
    return None if masks is None else masks.astype(np.bool_)


def _load(path: Path) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    try:
        tensors = load(path.read_bytes())
        return tensors["example"], tensors.get("masks")
    except (OSError, SafetensorError, KeyError) as error:
        raise CacheDamaged(
            f"cannot read the prepared example {path}: {error}; delete it and run: consilium-site ingest"
        ) from error


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    if not folder.exists():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
