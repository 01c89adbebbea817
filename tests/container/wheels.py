"""Every wheel of a release, for the Python of the images, whatever Python this machine has.

    python -m tests.container.wheels [ENGINE [cuda]]

If both are of one version, pip works here; otherwise in a container of the images' base, because pip cannot resolve the
dependencies of a Python that it does not run in. TORCH_INDEX is the address of the index that torch comes from. Without
it pip's own index counts, and a build for CUDA is refused before it is downloaded with all that it needs. With ``cuda``
it is the other way about, and the wheels lie in a folder of their own: a build for the processor is refused.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
WHEELS, WHEELS_CUDA, CONTAINERFILE = "wheels", "wheels-cuda", "client/container/Containerfile"
OURS = (".[server]", "./tasks/phantoms")
OURS_CUDA = (".", "./tasks/phantoms")
"""A coordinator trains nothing and has no image for GPUs."""
REMEDY = (
    "The images are for the processor. Name the index of PyTorch's builds for the CPU, whose address is on its "
    "installation page: make wheels TORCH_INDEX=https://... For hospitals with a GPU: make wheels-cuda"
)
REMEDY_CUDA = (
    "torch is a build for the processor. Name the index of PyTorch's builds for your driver's CUDA, whose address is "
    "on its installation page: make wheels-cuda TORCH_INDEX=https://..."
)
_FOR_CUDA = re.compile(r"(nvidia|cuda|triton|cupy)([_-].*)?$", re.IGNORECASE)


class WrongWheels(Exception):
    """What would be put in the images, and what to do instead."""


def base(containerfile: str) -> str:
    """The base image that a Containerfile names."""
    found = re.search(r"^ARG BASE=(\S+)$", containerfile, re.MULTILINE)
    if found is None:
        raise WrongWheels(f"{CONTAINERFILE} names no BASE")
    return found.group(1)


def python_of(image: str) -> tuple[int, int]:
    """Version of Python that an image's name promises."""
    found = re.search(r"python:(\d+)\.(\d+)", image)
    if found is None:
        raise WrongWheels(f"{image} does not say which Python it has; set PYTHON_OF_IMAGE=3.11")
    return int(found.group(1)), int(found.group(2))


def refuse_cuda(names: Iterable[str]) -> None:
    """Refuse packages that are for CUDA, and builds of torch for it (PEP 440: ``+cu``).

    Args:
        names: names of packages or files.

    Raises:
        WrongWheels: naming all.
    """
    wrong = sorted(name for name in names if _FOR_CUDA.match(name.split("-")[0]) or "+cu" in name.replace("%2B", "+"))
    if wrong:
        raise WrongWheels(f"{', '.join(wrong)}: for CUDA. {REMEDY}")


def require_cuda(names: Iterable[str]) -> None:
    """Refuse what has no build for CUDA in it.

    Raises:
        WrongWheels: a GPU would never be used.
    """
    try:
        refuse_cuda(names)
    except WrongWheels:
        return
    raise WrongWheels(REMEDY_CUDA)


def needs(report: dict[str, Any]) -> list[str]:
    """Names of what pip would install, and of what that needs on Linux, by pip's installation report."""
    found = []
    for one in report["install"]:
        metadata = one["metadata"]
        found.append(f"{metadata['name']}-{metadata['version']}")
        required = [text for text in metadata.get("requires_dist", []) if "extra ==" not in text]
        found += [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required]
    return found


def words(python: str, index: str, *, cuda: bool = False) -> list[list[str]]:
    """Commands of pip: torch alone, from the index that is named for it, then everything else."""
    folder, ours = (WHEELS_CUDA, OURS_CUDA) if cuda else (WHEELS, OURS)
    pip = [python, "-m", "pip", "wheel", "--quiet", "--constraint", "constraints.txt", "--wheel-dir", folder]
    torch = [*pip, "--no-deps", *(["--index-url", index] if index else []), "torch"]
    return [torch, [*pip, "--find-links", folder, *ours]]


def in_container(engine: str, image: str, commands: Sequence[Sequence[str]]) -> list[str]:
    """The commands in a container of the base image, which writes to this checkout."""
    script = " && ".join(" ".join(command) for command in commands)
    user = [] if "podman" in engine else ["--user", f"{os.getuid()}:{os.getgid()}"]
    mounted = ["--volume", f"{ROOT}:/source:z", "--workdir", "/source", "--env", "HOME=/tmp"]
    return [engine, "run", "--rm", *user, *mounted, image, "sh", "-c", script]


def make(engine: str, index: str, *, cuda: bool = False) -> None:
    """Fill the folder of wheels.

    Raises:
        WrongWheels: a package is for CUDA, or with ``cuda`` none is; or nothing here can run the images' Python.
    """
    fit = require_cuda if cuda else refuse_cuda
    image = base((ROOT / CONTAINERFILE).read_text("utf-8"))
    wanted = python_of(f"python:{given}" if (given := os.environ.get("PYTHON_OF_IMAGE")) else image)
    fit(_ahead(index))
    if sys.version_info[:2] == wanted:
        for command in words(sys.executable, index, cuda=cuda):
            subprocess.run(command, cwd=ROOT, check=True)
    elif shutil.which(engine):
        subprocess.run(in_container(engine, image, words("python3", index, cuda=cuda)), check=True)
    else:
        version, here = (".".join(map(str, one)) for one in (wanted, sys.version_info[:2]))
        raise WrongWheels(
            f"the images have Python {version}, this is {here}, and there is no {engine}: install it, name another "
            f"(ENGINE=docker), or make the environment with python{version}"
        )
    fit(path.name for path in (ROOT / (WHEELS_CUDA if cuda else WHEELS)).iterdir())


def _ahead(index: str) -> list[str]:
    """What torch would be, and what it needs, by its metadata, before gigabytes are downloaded."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        named = ["--index-url", index] if index else []
        told = ["--constraint", "constraints.txt", "--report", str(report), "torch"]
        subprocess.run([*pip, *named, *told], cwd=ROOT, check=True)
        return needs(json.loads(report.read_text("utf-8")))


if __name__ == "__main__":
    try:
        make(
            sys.argv[1] if len(sys.argv) > 1 else "podman",
            os.environ.get("TORCH_INDEX", ""),
            cuda=sys.argv[2:] == ["cuda"],
        )
    except WrongWheels as error:
        sys.exit(str(error))
