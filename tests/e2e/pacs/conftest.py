"""Debian packages, a private network, and the files that the archives have."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.pacs import corpus
from tests.e2e.pacs.network import private

_PACKAGES = {
    "/usr/sbin/Orthanc": "orthanc orthanc-dicomweb",
    "dcmqrscp": "dcmtk",
    "ip": "iproute2",
    "dciodvfy": "dicom3tools",
}


@pytest.fixture(scope="session")
def debian_packages() -> None:
    """Install what is missing; skip where that is impossible."""
    missing = [package for program, package in _PACKAGES.items() if shutil.which(program) is None]
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"needs the Debian packages {' '.join(missing)}; only root on Debian can install them")
    names = " ".join(missing).split()
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names], check=True)


@pytest.fixture(scope="package", autouse=True)
def own_network(debian_packages: None) -> Iterator[None]:
    """Nothing that these tests start can be reached from another machine."""
    try:
        with private():
            yield
    except PermissionError:
        pytest.skip("needs root: Debian's archives listen on all addresses, so they get a network of their own")


@pytest.fixture(scope="session")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dicom/`` and ``labels.csv``."""
    folder = tmp_path_factory.mktemp("hospital")
    assert len(corpus.fill(folder)) >= 35
    return folder


@pytest.fixture(scope="session")
def files(hospital: Path) -> list[Path]:
    return sorted((hospital / "dicom").glob("*.dcm"))
