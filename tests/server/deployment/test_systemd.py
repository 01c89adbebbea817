"""The server's unit: it may write to its folder, and systemd finds nothing to complain about."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from server.cli.main import app
from server.deployment.server_dir import read
from server.deployment.systemd import services
from tests.tasks.machine.test_systemd import complaints, exposure, settings


def test_the_server_has_a_unit(tmp_path: Path) -> None:
    home = tmp_path / "home"
    words = ["init", "--host", "federation.example.org", "--home", str(home), "--systemd"]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 0, ended.output
    assert "install.sh" in ended.output
    unit = home / "systemd" / "consilium-server.service"
    found = settings(unit.read_text())
    assert found["ReadWritePaths"] == [str(home)]
    assert found["ReadOnlyPaths"] == [f"-{home}/systemd"]
    assert found["CapabilityBoundingSet"] == [""]
    assert found["MemoryMax"] == [f"{3072 + 1024 * read(home).settings.studies_at_once}M"]
    assert complaints(unit) == ""
    assert exposure(unit) < 2


def test_a_port_below_1024_needs_one_capability(tmp_path: Path) -> None:
    home = tmp_path / "home"
    CliRunner().invoke(app, ["init", "--host", "h", "--home", str(home), "--hospitals", "0.0.0.0:443"])
    assert services(read(home))[0].low_port
