"""A package as pip leaves it behind, without pip: modules and metadata in a folder of ``sys.path``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ENTRY = "my_package.net:build"
BUILD = "def build(shape, outputs):\n    return "
SMALL = BUILD + "nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, outputs))"


def install(
    patch: pytest.MonkeyPatch,
    folder: Path,
    code: str = SMALL,
    *,
    name: str = "my-net",
    version: str = "1.0",
    entry: str = ENTRY,
) -> None:
    """Install a package of one module, ``net``, which may use ``torch`` and ``nn``. Another one's code is forgotten."""
    package = folder / entry.split(".")[0]
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "net.py").write_text(f"import torch\nfrom torch import nn\n\n{code}\n")
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (metadata / "entry_points.txt").write_text(f"[consilium.models]\nmy_net = {entry}\n")
    for known in [known for known in sys.modules if known.split(".")[0] == package.name]:
        patch.delitem(sys.modules, known)
    patch.syspath_prepend(folder)
