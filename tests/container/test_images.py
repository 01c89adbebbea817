"""What each image can do by itself, without a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.container.engine import Engine
from tests.container.test_study import LOOK


@pytest.fixture(params=["site", "server"])
def image(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_image"))


def test_an_image_alone_writes_to_tmp_only_sees_no_network_and_has_no_installer(engine: Engine, image: str) -> None:
    options = ("--network=none", "--entrypoint", "python3")
    tried = ("/tmp/x", "/x", "/run/x", "/var/tmp/x", "/state/x", "/server/x", "/opt/consilium/x")
    found = json.loads(engine.run(image, "-", *tried, "--", options=options, given=LOOK).splitlines()[-1])
    assert [path for path, wrong in found["writes"].items() if not wrong] == ["/tmp/x"]
    assert found["networks"] == ["lo"]
    assert found["listening"] == []
    is_server = image.endswith("server")
    assert found["modules"] == {"mlflow": is_server, "pip": False, "torch": True, "flwr": True, "tasks.phantoms": False}
    assert {user for process in found["processes"] for user in process["ids"]} == {10001}


def test_a_hospital_is_founded_in_the_container(engine: Engine, site_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounted = ("--network=none", "-v", f"{tmp_path}:/state")
    engine.run(site_image, "init", "--name", "alder", "--site", "site.yaml", options=mounted)
    assert {"site.yaml", "site.key", "ledger.sqlite", "audit.sqlite"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "site.key").stat().st_mode & 0o077 == 0
    assert json.loads(engine.run(site_image, "ledger", "verify", "--json", options=mounted))["faults"] == []


def test_a_server_is_founded_in_its_container(engine: Engine, server_image: str, tmp_path: Path) -> None:
    mounted = ("--network=none", "-v", f"{tmp_path}:/server")
    words = ("init", "--home", "/server", "--host", "federation.example.org")
    engine.run(server_image, *words, options=mounted, code=2)  # the folder is somebody else's
    os.chown(tmp_path, 10001, 10001)
    engine.run(server_image, *words, options=mounted)
    assert (tmp_path / "invitation.json").exists()
    nginx = (*mounted, "--entrypoint", "nginx")
    engine.run(server_image, "-t", "-q", "-c", "/server/fence/nginx.conf", "-e", "/tmp/error.log", options=nginx)


def test_health_checks_fail_where_nothing_runs(engine: Engine, site_image: str, server_image: str) -> None:
    server = ("status", "--home", "/nowhere")
    engine.run(server_image, *server, options=("--network=none",), code=2)
    for part in ("gateway", "trainer"):
        words = ("-c", f"consilium-site init --site /tmp/site.yaml --name alder >&2 && "
                       f"consilium-site run --site /tmp/site.yaml --only {part} --healthy")  # fmt: skip
        engine.run(site_image, *words, options=("--network=none", "--entrypoint", "sh"), code=1)
