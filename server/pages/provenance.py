"""Which code and libraries computed a study, and how to repeat it.

Tested in ``tests/server/pages/test_report.py``.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.protocol.study import release

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("client", "conf", "server", "tasks")
_LIBRARIES = ("torch", "numpy", "flwr", "monai", "opacus", "dp-accounting", "pydicom")
_PATHS = ("output_dir", "data_root", "tracking.uri", "hydra.run.dir", "runtime.authority", "runtime.certificate")


@cache
def code_digest() -> str:
    """SHA-256 over every source and configuration file of this installation, by path: equal code, equal digest."""
    sha = hashlib.sha256()
    paths = (path for package in _PACKAGES for path in (_ROOT / package).rglob("*"))
    files = [path for path in paths if path.suffix in (".py", ".yaml", ".j2")]
    for path in sorted(files):
        sha.update(f"{path.relative_to(_ROOT).as_posix()}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return sha.hexdigest()


def versions() -> dict[str, str]:
    """Consilium's release and the libraries that a result may depend on."""
    return {"Consilium": release()} | {name: version(name) for name in _LIBRARIES}


def command(words: Sequence[str]) -> str:
    """The command line that repeats a study, without paths of the machine that it was given on.

    Args:
        words: the words after ``consilium``.
    """
    shown = [word for word in words if word.split("=")[0] not in _PATHS]
    place = ["data_root=FOLDER"] if any(word.startswith("data_root=") for word in words) else []
    return shlex.join(["consilium", *shown, *place])


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        flattened |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flattened
