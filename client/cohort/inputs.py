"""Features of a cohort's examples, computed by a network's fixed part: one file, with a row per example, by name.

When a patient is removed, so are that patient's rows, and no other row is recomputed: the time of the next reply must
not reveal that someone has left.

Tested in ``tests/client/cohort/test_alone.py``.
"""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tasks.machine.disk import private_file, private_folder

_ROWS, _NAMES = "inputs", "examples"


def read(path: Path) -> tuple[list[str], Tensor | None]:
    """Names and rows of a file; none if there is no readable file."""
    try:
        with safe_open(path, framework="pt") as file:
            names, rows = json.loads(file.metadata()[_NAMES]), file.get_tensor(_ROWS)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return [], None  # it is made again from the examples
    return (names, rows) if len(names) == len(rows) else ([], None)


def write(path: Path, names: list[str], rows: Tensor) -> None:
    """Replace the file; a crash leaves the old or the new one."""
    private_folder(path.parent)
    unfinished = private_file(path.with_suffix(".partial"))
    save_file({_ROWS: rows.contiguous()}, unfinished, metadata={_NAMES: json.dumps(names)})
    unfinished.replace(path)


def forget(path: Path, gone: Container[str]) -> None:
    """Remove the rows of some examples from a file."""
    names, rows = read(path)
    if rows is None:
        path.unlink(missing_ok=True)
        return
    stay = [row for row, name in enumerate(names) if name not in gone]
    if len(stay) < len(names):
        write(path, [names[row] for row in stay], rows[torch.tensor(stay, dtype=torch.int64)])
