"""What a registered model needs to run: the releases that are installed here, in the three forms that MLflow reads.

Tested in ``tests/server/tracking/test_tracker.py``.
"""

from __future__ import annotations

import json
import platform
import re
from importlib.metadata import requires, version

_DISTRIBUTION, _EXTRA = "consilium-fl", "server"
REQUIREMENTS, PYTHON, CONDA = "requirements.txt", "python_env.yaml", "conda.yaml"
"""The files' names in a model's folder."""


def requirements(package: str = "") -> list[str]:
    """Consilium, what it depends on, and the package that declares the network, each pinned to the release here.

    >>> requirements("my-net 1.0")[-1]
    'my-net==1.0'

    Args:
        package: with its version, such as ``my-net 1.0``; "" where the network is Consilium's own.
    """
    wanted = [line for line in requires(_DISTRIBUTION) or () if _is_needed(line)]
    names = sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted}, key=str.lower)
    consilium = f"{_DISTRIBUTION}[{_EXTRA}]=={_public(_DISTRIBUTION)}"
    own = [package.replace(" ", "==")] if package else []
    return [consilium, *(f"{name}=={_public(name)}" for name in names), *own]


def _is_needed(line: str) -> bool:
    return "extra ==" not in line or f'extra == "{_EXTRA}"' in line


def _public(name: str) -> str:
    """Without the local part, such as ``+cpu``: no index has that."""
    return version(name).partition("+")[0]


def files(package: str = "") -> dict[str, str]:
    """The files by name; JSON is YAML. Nothing in them says where packages come from."""
    python, lines = platform.python_version(), requirements(package)
    pip = {"python": python, "build_dependencies": ["pip", "setuptools"], "dependencies": [f"-r {REQUIREMENTS}"]}
    conda = {"name": "consilium", "dependencies": [f"python={python}", "pip", {"pip": lines}]}
    return {REQUIREMENTS: "\n".join([*lines, ""]), PYTHON: json.dumps(pip), CONDA: json.dumps(conda)}
