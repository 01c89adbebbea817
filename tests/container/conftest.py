"""Both images, built from wheels that `make wheels` made, on a base that debootstrap makes; a federation of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.container.engine import BASE, Engine, packages
from tests.container.federation import Federation, federation

ROOT = Path(__file__).parent.parent.parent
SITE_IMAGE, SERVER_IMAGE = "localhost/consilium-site", "localhost/consilium-server"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if not list((ROOT / "wheels").glob("consilium_fl-*.whl")):
        pytest.fail("there are no wheels; say: make e2e-container")
    packages()
    made = Engine(Path(tempfile.mkdtemp(prefix="consilium-engine-")))
    try:
        made.podman("import", str(_base()), BASE)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def site_image(engine: Engine) -> str:
    engine.build(SITE_IMAGE, ROOT / "client" / "container" / "Containerfile", ROOT)
    return SITE_IMAGE


@pytest.fixture(scope="session")
def server_image(engine: Engine) -> str:
    engine.build(SERVER_IMAGE, ROOT / "server" / "container" / "Containerfile", ROOT)
    return SERVER_IMAGE


@pytest.fixture(scope="module")
def small(engine: Engine, site_image: str, server_image: str, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Federation]:  # fmt: skip
    """A server and two hospitals, everything up and admitted."""
    with federation(engine, tmp_path_factory.mktemp("federation"), site_image, server_image) as made:
        yield made


def _base() -> Path:
    """A Debian with Python as an archive. It takes a minute to make, so it is kept; remove it to have a newer one."""
    kept = Path(os.environ.get("CONSILIUM_BASE", Path(tempfile.gettempdir()) / "consilium-base.tar"))
    if not kept.exists():
        folder = Path(tempfile.mkdtemp(prefix="consilium-base-"))
        wanted = ["--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm"]
        subprocess.run(["debootstrap", *wanted, str(folder / "base"), _mirror()], check=True, stdout=subprocess.DEVNULL)
        archive = ["tar", "-C", str(folder / "base"), "--numeric-owner", "-cf", str(folder / "base.tar"), "."]
        subprocess.run(archive, check=True)
        shutil.move(folder / "base.tar", kept)
        shutil.rmtree(folder)
    return kept


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
