"""The files that are shipped: what they promise, before anything runs."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.container.engine import packages

ROOT = Path(__file__).parent.parent.parent
SITE, SERVER = ROOT / "client" / "container", ROOT / "server" / "container"
BOTH = pytest.mark.parametrize("folder", [SITE, SERVER], ids=["site", "server"])
HERE = {"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin", "HOME": "/tmp"}


def compose(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "compose.yaml").read_text("utf-8"))
    return found


@BOTH
def test_containerfiles_are_clean(folder: Path) -> None:
    # DL3008: a base's own mirror decides the version of nginx
    words = ["hadolint", "--ignore", "DL3008", str(folder / "Containerfile")]
    ended = subprocess.run(words, capture_output=True, text=True, env=HERE)
    assert ended.returncode == 0, ended.stdout


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> jsonschema.protocols.Validator:
    """The Compose specification as Debian's docker-compose has it, which is fetched and not installed. It is of 2021,
    before a file could say its project's name; it refuses every word that it does not know."""
    packages()
    folder = tmp_path_factory.mktemp("docker-compose")
    subprocess.run(["apt-get", "download", "-qq", "docker-compose"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg", "-x", str(next(folder.glob("*.deb"))), str(folder)], check=True)
    found = json.loads(next(folder.rglob("compose_spec.json")).read_text("utf-8"))
    found["properties"]["name"] = {"type": "string"}
    return jsonschema.Draft201909Validator(found)


@BOTH
def test_compose_files_keep_to_the_specification(folder: Path, schema: jsonschema.protocols.Validator) -> None:
    told = compose(folder)
    assert [error.message for error in schema.iter_errors(told)] == []
    wrong = copy.deepcopy(told)
    next(iter(wrong["services"].values()))["cap_dorp"] = ["ALL"]
    assert not schema.is_valid(wrong)


@BOTH
def test_compose_files_are_understood_and_harden_every_service(folder: Path) -> None:
    words = ["podman-compose", "-f", str(folder / "compose.yaml"), "config"]
    ended = subprocess.run(words, capture_output=True, text=True, env=HERE | {"DICOM": "/data"})
    assert ended.returncode == 0, ended.stderr
    for service in yaml.safe_load(ended.stdout)["services"].values():
        assert service["user"] == "10001:10001"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert {"mem_limit", "cpus", "pids_limit", "healthcheck"} <= service.keys()
        assert not service.keys() & {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"}


def test_the_trainer_has_no_way_out_and_the_gateway_no_data() -> None:
    told = compose(SITE)
    gateway, trainer = told["services"]["gateway"], told["services"]["trainer"]
    assert trainer["networks"] == ["inside"]
    assert told["networks"]["inside"]["internal"] is True
    assert not [volume for volume in gateway["volumes"] if "/data" in volume or volume.startswith("state:")]
    assert not [service for service in told["services"].values() if "ports" in service]
    assert [volume for volume in trainer["volumes"] if "/link" in volume] == [
        "./link/trainer.secret:/state/link/trainer.secret:ro,z",
        "./link/deputy.key:/state/link/deputy.key:ro,z",
    ]


def test_an_archive_is_reached_through_a_relay_that_reaches_nothing_else() -> None:
    words = ["podman-compose", "-f", str(SITE / "compose.yaml"), "-f", str(SITE / "compose.archive.yaml"), "config"]
    given = {"DICOM": "/data", "ARCHIVE": "pacs.hospital.example", "ARCHIVE_PORT": "2762"}
    ended = subprocess.run(words, capture_output=True, text=True, env=HERE | given)
    assert ended.returncode == 0, ended.stderr
    services = yaml.safe_load(ended.stdout)["services"]
    relay, trainer = services["relay"], services["trainer"]
    assert relay["entrypoint"] == ["python", "-m", "client.link.relay"]
    assert relay["command"] == ["10.231.94.6:2762", "pacs.hospital.example:2762"]
    assert trainer["extra_hosts"] == ["pacs.hospital.example:10.231.94.6"]
    assert list(trainer["networks"]) == ["inside"], "still without a route out"
    assert set(relay["networks"]) == {"inside", "egress"}
    assert "volumes" not in relay, "no data, no secret"
    assert (relay["user"], relay["read_only"], relay["cap_drop"]) == ("10001:10001", True, ["ALL"])
    assert "ports" not in relay


def test_a_gpu_is_the_trainers_alone_and_changes_nothing_else() -> None:
    words = ["podman-compose", "-f", str(SITE / "compose.yaml")]
    given = {"DICOM": "/data", "GPU": "1"}

    def services(*more: str) -> dict[str, Any]:
        ended = subprocess.run([*words, *more, "config"], capture_output=True, text=True, env=HERE | given)
        assert ended.returncode == 0, ended.stderr
        found: dict[str, Any] = yaml.safe_load(ended.stdout)["services"]
        return found

    plain, gpu = services(), services("-f", str(SITE / "compose.gpu.yaml"))
    assert gpu["gateway"] == plain["gateway"]
    trainer = gpu["trainer"]
    (device,) = trainer.pop("deploy")["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["1"], "capabilities": ["gpu"]}
    assert trainer.pop("image") == "consilium-site-cuda"
    assert trainer["environment"].pop("NVIDIA_DRIVER_CAPABILITIES") == "compute,utility"
    assert trainer == {name: value for name, value in plain["trainer"].items() if name != "image"}


def test_selinux_lets_both_containers_at_their_files_and_leaves_the_images_labels_alone() -> None:
    """Files that two containers share have a shared label (z); an archive is labelled only if somebody says so."""
    for service in compose(SITE)["services"].values():
        for volume in service["volumes"]:
            if volume.startswith("./"):
                assert volume.endswith((":z", ",z")), volume
    (images,) = [volume for volume in compose(SITE)["services"]["trainer"]["volumes"] if ":/data:" in volume]
    assert images.endswith(":ro${DICOM_LABEL:-}")


def test_both_containers_and_their_checklist_know_where_the_gateway_listens() -> None:
    services = compose(SITE)["services"]
    assert len({service["environment"]["CONSILIUM_GATEWAY"] for service in services.values()}) == 1
    assert not [service for service in services.values() if "--gateway" in service["command"]]
