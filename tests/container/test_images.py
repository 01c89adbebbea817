"""What compose.yaml and the Containerfiles promise, asked of running containers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.container.conftest import ROOT, Engine

SITE, SERVER = ROOT / "client" / "container", ROOT / "server" / "container"
PYTHON = ("--entrypoint", "python3")
LOOK = """
import json, os
from importlib.util import find_spec
def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror
    return ""
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines() if ":" in line)
listening = [line for name in ("tcp", "tcp6") for line in open(f"/proc/net/{name}") if " 0A " in line]
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapEff"], 16),
    "no_new_privileges": status["NoNewPrivs"].strip(),
    "writes": {path: refused(path) for path in ("/x", "/opt/consilium/x", "/etc/x", "/tmp/x")},
    "networks": os.listdir("/sys/class/net"),
    "listening": listening,
    "environment": dict(os.environ),
    "modules": {name: find_spec(name) is not None for name in ("mlflow", "pip", "torch", "flwr")},
}))
"""


@pytest.fixture(scope="module")
def seen(engine: Engine, site_image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        engine.run(site_image, "-c", LOOK, options=("--network=none", *PYTHON)).splitlines()[-1]
    )
    return found


def test_nobody_in_the_hospitals_container_is_root_or_can_become_it(seen: dict[str, Any]) -> None:
    assert seen["uid"] == 10001
    assert seen["capabilities"] == 0
    assert seen["no_new_privileges"] == "1"


def test_nothing_can_be_written_but_where_it_belongs(seen: dict[str, Any]) -> None:
    assert seen["writes"].pop("/tmp/x") == ""
    assert set(seen["writes"].values()) == {"Read-only file system"}


def test_without_a_network_there_is_none_and_nothing_listens(seen: dict[str, Any]) -> None:
    assert seen["networks"] == ["lo"]
    assert seen["listening"] == []


def test_nothing_calls_home_and_nothing_can_be_installed(seen: dict[str, Any]) -> None:
    assert seen["environment"]["FLWR_TELEMETRY_ENABLED"] == "0"
    assert seen["environment"]["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert seen["environment"]["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert seen["modules"] == {"mlflow": False, "pip": False, "torch": True, "flwr": True}


def test_a_hospital_is_founded_in_the_container(engine: Engine, site_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounted = ("--network=none", "-v", f"{tmp_path}:/state")
    engine.run(site_image, "init", "--name", "alder", "--site", "site.yaml", options=mounted)
    assert {"site.yaml", "site.key", "ledger.sqlite", "journal.sqlite"} <= {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "site.key").stat().st_mode & 0o077 == 0
    assert "genuine" in engine.run(site_image, "ledger", "verify", options=mounted)


def test_a_server_is_founded_in_its_container(engine: Engine, server_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    mounted = ("--network=none", "-v", f"{tmp_path}:/server")
    engine.run(server_image, "init", "--home", "/server", "--host", "federation.example.org", options=mounted)
    assert (tmp_path / "invitation.json").exists()
    nginx = (*mounted, "--entrypoint", "nginx")
    engine.run(server_image, "-t", "-q", "-c", "/server/fence/nginx.conf", "-e", "/tmp/error.log", options=nginx)


@pytest.mark.parametrize("folder", [SITE, SERVER], ids=["site", "server"])
def test_containerfiles_are_clean(folder: Path) -> None:
    # DL3008: a base's own mirror decides the version of nginx; DL3042: --no-cache-dir is given
    words = ["hadolint", "--ignore", "DL3008", str(folder / "Containerfile")]
    ended = subprocess.run(words, capture_output=True, text=True, env=_path())
    assert ended.returncode == 0, ended.stdout


@pytest.mark.parametrize("folder", [SITE, SERVER], ids=["site", "server"])
def test_compose_files_are_understood_and_harden_every_service(folder: Path) -> None:
    words = ["podman-compose", "-f", str(folder / "compose.yaml"), "config"]
    ended = subprocess.run(words, capture_output=True, text=True, env=_path() | {"DICOM": "/data"})
    assert ended.returncode == 0, ended.stderr
    services = yaml.safe_load(ended.stdout)["services"]
    for service in services.values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_trainer_has_no_way_out_and_the_gateway_no_data() -> None:
    told = yaml.safe_load((SITE / "compose.yaml").read_text("utf-8"))
    gateway, trainer = told["services"]["gateway"], told["services"]["trainer"]
    assert trainer["networks"] == ["inside"]
    assert told["networks"]["inside"]["internal"] is True
    assert not [volume for volume in gateway["volumes"] if "/data" in volume or volume.startswith("state:")]
    assert not [service for service in told["services"].values() if "ports" in service]
    assert [volume for volume in trainer["volumes"] if "/link" in volume] == [
        "./link/trainer.secret:/state/link/trainer.secret:ro"
    ]


def test_kubernetes_manifests_are_valid(tmp_path: Path) -> None:
    words = ["kubernetes-validate", "--strict", str(SITE / "kubernetes.yaml")]
    ended = subprocess.run(words, capture_output=True, text=True, env=_path())
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _path() -> dict[str, str]:
    """Programs of this environment first."""
    return {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin", "HOME": "/tmp"}
