"""The hospital's units: each program sees what it needs, and no more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.setup.systemd import services
from client.site import SiteSettings, TrainerSettings, load
from client.sources.settings import DimseSource
from tests.tasks.machine.test_systemd import complaints, exposure, settings


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The folder of units of a hospital as `init` makes it."""
    words = ["init", "--site", str(tmp_path / "site.yaml"), "--name", "alder", "--systemd"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    assert "install.sh" in ended.output.replace("\n", "")
    return tmp_path / "systemd"


def test_the_gateway_has_no_data_and_the_trainer_no_way_out(units: Path) -> None:
    site = units.parent
    gateway = settings((units / "consilium-gateway.service").read_text())
    trainer = settings((units / "consilium-trainer.service").read_text())
    assert gateway["ReadWritePaths"] == [str(site / "link")]
    hidden = {path.removeprefix("-") for path in gateway["InaccessiblePaths"]}
    records = ("ledger.sqlite", "audit.sqlite", "audit.people.sqlite", "site.key", "catalog", "kept", "weights")
    assert hidden == {"/data/dicom", *(str(site / name) for name in records)}
    assert "IPAddressDeny" not in gateway
    assert (trainer["IPAddressDeny"], trainer["IPAddressAllow"]) == (["any"], ["localhost"])
    assert trainer["ReadWritePaths"] == [str(site)]
    assert {"-/data/dicom", f"-{site}/site.yaml", f"-{units}"} <= set(trainer["ReadOnlyPaths"])
    assert trainer["InaccessiblePaths"] == [f"-{site}/link/node.key"]
    assert trainer["After"] == ["network-online.target consilium-gateway.service"]
    assert gateway["EnvironmentFile"] == [f"-{site}/gateway.env"], "where a proxy's password may be"
    memory = load(site / "site.yaml").max_memory_mb
    assert trainer["MemoryMax"] == [f"{7168 + memory}M"]


def test_only_the_trainer_sees_a_gpu_and_only_where_it_uses_one(
    tmp_path: Path, provision_hospital: Callable[..., SiteSettings]
) -> None:
    settled = provision_hospital()
    for device in ("cpu", "auto", "cuda:1"):
        changed = settled.model_copy(update={"trainer": TrainerSettings(device=device)})
        gateway, trainer = services(changed, tmp_path / "site.yaml")
        assert gateway.devices == ()
        assert ("char-nvidia-uvm" in trainer.devices) is (device != "cpu")


def test_systemd_has_nothing_to_complain_about(units: Path) -> None:
    files = sorted(units.glob("*.service"))
    assert len(files) == 2
    assert complaints(*files) == ""
    assert all(exposure(path) < 2 for path in files)


def test_the_trainer_reaches_an_archive_by_its_address(
    tmp_path: Path, provision_hospital: Callable[..., SiteSettings]
) -> None:
    def archive(host: str, *senders: str) -> DimseSource:
        told = {"kind": "dimse", "task": "breast_ultrasound", "issuer": "x", "host": host, "port": 104}
        return DimseSource.model_construct(**told, called_ae="A", senders=list(senders))

    settled = provision_hospital()
    for hosts, peers in ((["192.0.2.7"], ["192.0.2.7"]), (["192.0.2.7", "pacs.example.org"], None)):
        changed = settled.model_copy(update={"sources": [*settled.sources, *map(archive, hosts)]})
        _, trainer = services(changed, tmp_path / "site.yaml")
        assert trainer.peers == peers
    moving = settled.model_copy(update={"sources": [archive("192.0.2.7", "STORE@192.0.2.8", "A@192.0.2.7")]})
    _, trainer = services(moving, tmp_path / "site.yaml")
    assert trainer.peers == ["192.0.2.7", "192.0.2.8"], "what sends by C-MOVE comes in"


@pytest.mark.parametrize(
    ("notify", "peers"),
    [
        ({"webhook": "https://192.0.2.9/hook"}, ["192.0.2.9"]),
        ({"webhook": "http://localhost:8080/hook"}, []),
        ({"webhook": "https://chat.example.org/hook"}, None),
        ({"webhook_file": "/srv/hook"}, None),
        ({"command": ["/usr/bin/true"]}, []),
    ],
)
def test_the_trainer_reaches_a_webhook(
    tmp_path: Path, provision_hospital: Callable[..., SiteSettings], notify: dict[str, object], peers: list[str] | None
) -> None:
    _, trainer = services(provision_hospital(notify=notify), tmp_path / "site.yaml")
    assert trainer.peers == peers


def test_units_follow_the_settings(units: Path) -> None:
    site = units.parent / "site.yaml"
    site.write_text(site.read_text().replace("max_memory_mb: 1024", "max_memory_mb: 2048"))
    ended = CliRunner().invoke(app, ["init", "--site", str(site), "--systemd"])
    assert ended.exit_code == 0, ended.output
    assert settings((units / "consilium-trainer.service").read_text())["MemoryMax"] == ["9216M"]
