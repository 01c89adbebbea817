"""Podman, buildah and podman-compose with a store, networks and settings of their own.

Their output goes to files: a program that podman leaves in the background would hold a pipe open for ever.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

BASE = "localhost/consilium-test-base"
PACKAGES = ("buildah", "podman", "runc", "netavark", "aardvark-dns", "iptables", "catatonit", "debootstrap", "iproute2")
_PROGRAMS = ("buildah", "podman", "runc", "iptables", "catatonit", "debootstrap", "ip")
_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "{folder}/libpod"
[network]
network_config_dir = "{folder}/networks"
"""
_STORAGE = """
[storage]
driver = "{driver}"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""


def told(
    words: list[str], environment: dict[str, str], given: str = "", folder: Path | None = None, code: int | None = 0
) -> str:
    """What a command prints that ends with this exit code; ``None`` takes any."""
    with (
        tempfile.TemporaryFile("w+") as asked,
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        asked.write(given)
        asked.seek(0)
        ended = subprocess.run(
            words, stdin=asked, stdout=out, stderr=err, env=environment, cwd=folder, timeout=900, check=False
        )
        out.seek(0)
        err.seek(0)
        said, wrong = out.read(), err.read()
    assert code is None or ended.returncode == code, (
        f"{' '.join(words)[:300]}: code {ended.returncode}\n{said[-2000:]}\n{wrong[-4000:]}"
    )
    return said


def packages() -> None:
    """Install what of Debian is missing; skip where that cannot be."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("images are built here by root on Debian only")
    if any(shutil.which(name, path=_PATH) is None for name in _PROGRAMS):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES], check=True)


class Engine:
    """One store in a folder, which :meth:`close` empties.

    Overlay is many times faster than vfs, which copies each layer, but cannot lie on an overlay itself.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        driver = os.environ.get("CONSILIUM_STORAGE", "overlay")
        (folder / "containers.conf").write_text(_CONTAINERS.format(folder=folder), "utf-8")
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder, driver=driver), "utf-8")
        self.environment = {
            "PATH": _PATH,
            "HOME": str(folder),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",  # health checks are asked by hand here; there is no systemd to ask them
        }

    def podman(self, *words: str, given: str = "", code: int | None = 0) -> str:
        return told(["podman", *words], self.environment, given, code=code)

    def succeeds(self, *words: str) -> bool:
        """Whether a podman command ends with exit code 0."""
        return "yes" in told(["sh", "-c", 'podman "$@" >&2 && echo yes', "sh", *words], self.environment, code=None)

    def compose(self, folder: Path, project: str, *words: str, code: int | None = 0, **variables: str) -> str:
        """podman-compose on the compose.yaml of a folder."""
        command = ["podman-compose", "-p", project, *words]
        return told(command, self.environment | variables, folder=folder, code=code)

    def build(self, image: str, file: Path, context: Path) -> None:
        words = ["buildah", "bud", "--isolation", "chroot", "--build-arg", f"BASE={BASE}", "-t", image]
        told([*words, "-f", str(file), str(context)], self.environment)

    def run(self, image: str, *words: str, options: tuple[str, ...] = (), given: str = "", code: int | None = 0) -> str:
        """What one container prints, hardened as compose.yaml hardens it."""
        hardened = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        hardened += ["--pids-limit", "256", "--memory", "1g", "--tmpfs", "/tmp:rw,noexec,nosuid,size=64m"]
        return self.podman("run", "--rm", "-i", *hardened, *options, image, *words, given=given, code=code)

    def close(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "10", code=None)
        for mount in (self.folder / "images" / "overlay", self.folder / "images"):
            subprocess.run(["umount", str(mount)], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)
