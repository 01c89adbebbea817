"""Both images, built from wheels that `make wheels` made, on a base that debootstrap makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_PACKAGES = ("buildah", "podman", "debootstrap", "runc")
_BASE = "localhost/consilium-test-base"


@dataclass(frozen=True)
class Engine:
    """Podman and buildah with a store of their own."""

    store: Path

    def _tool(self, name: str) -> list[str]:
        own = ["--root", str(self.store / "images"), "--runroot", str(self.store / "run")]
        return [name, "--storage-driver", os.environ.get("CONSILIUM_STORAGE", "vfs"), *own]

    def build(self, image: str, file: Path) -> None:
        """Build an image of ours; nothing but the wheels is in the context."""
        words = [
            "bud",
            "--isolation",
            "chroot",
            "--build-arg",
            f"BASE={_BASE}",
            "-t",
            image,
            "-f",
            str(file),
            str(ROOT),
        ]
        subprocess.run([*self._tool("buildah"), *words], check=True)

    def import_base(self, archive: Path) -> None:
        subprocess.run([*self._tool("podman"), "import", str(archive), _BASE], check=True)

    def run(self, image: str, *words: str, options: tuple[str, ...] = ()) -> str:
        """What a container prints that is run as compose.yaml runs it. runc, and limits that a container may set."""
        hardened = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
        hardened += ["--pids-limit", "256", "--memory", "1g", "--tmpfs", "/tmp:rw,noexec,nosuid,size=64m"]
        here = ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        command = [*self._tool("podman"), *here, "run", "--rm", *limits, *hardened, *options, image, *words]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert ended.returncode == 0, ended.stderr[-2000:]
        return ended.stdout


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip("images are built here by root on Debian only")
    if not list((ROOT / "wheels").glob("consilium_fl-*.whl")):
        pytest.fail("there are no wheels; say: make e2e-container")
    if any(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None for name in _PACKAGES):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES], check=True)
    folder = tmp_path_factory.mktemp("engine")
    made = Engine(folder)
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm",
         str(folder / "base"), _mirror()],
        check=True,
    )  # fmt: skip
    subprocess.run(
        ["tar", "-C", str(folder / "base"), "--numeric-owner", "-cf", str(folder / "base.tar"), "."], check=True
    )
    made.import_base(folder / "base.tar")
    yield made
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def site_image(engine: Engine) -> str:
    engine.build("localhost/consilium-site", ROOT / "client" / "container" / "Containerfile")
    return "localhost/consilium-site"


@pytest.fixture(scope="session")
def server_image(engine: Engine) -> str:
    engine.build("localhost/consilium-server", ROOT / "server" / "container" / "Containerfile")
    return "localhost/consilium-server"


def _mirror() -> str:
    """Where this machine gets its own packages from."""
    lines = [
        line
        for path in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
        if path.exists()
        for line in path.read_text("utf-8").splitlines()
        if line.startswith(("URIs:", "deb "))
    ]
    return next(word for word in lines[0].split() if "://" in word)
