"""Units of systemd: what they say is what systemd reads, and systemd itself finds nothing to complain about."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.machine import systemd
from tasks.machine.systemd import Service

RESTRICTED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "Restart": "always",
    "MemoryMax": "512M",
    "User": "somebody",
}


def settings(text: str) -> dict[str, list[str]]:
    """A unit's settings, each with all of its values."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line:
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def service(folder: Path, **changed: object) -> Service:
    words = {"name": "one", "does": "One", "command": [sys.executable, "-V"], "user": "somebody", "folder": folder}
    return Service(**{**words, "writes": [folder], "memory_mb": 512, **changed})  # type: ignore[arg-type]


def complaints(*units: Path) -> str:
    """What ``systemd-analyze verify`` finds, or a skipped test where systemd is not installed; it need not run."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed: apt-get install systemd")
    words = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    ended = subprocess.run(words, capture_output=True, text=True)
    return ended.stdout + ended.stderr


def exposure(unit: Path) -> float:
    """``systemd-analyze security``: from 0, nothing exposed, to 10."""
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    ended = subprocess.run(words, capture_output=True, text=True)
    return float(ended.stdout.rpartition("service: ")[2].split()[0])


def test_a_program_sees_no_hardware_but_what_it_is_given(tmp_path: Path) -> None:
    plain = settings(systemd.unit(service(tmp_path)))
    assert plain["PrivateDevices"] == ["yes"]
    assert not plain.keys() & {"DevicePolicy", "DeviceAllow"}
    given = settings(systemd.unit(service(tmp_path, devices=["char-nvidia", "char-nvidia-uvm"])))
    assert given["PrivateDevices"] == ["no"]
    assert given["DevicePolicy"] == ["closed"]
    assert given["DeviceAllow"] == ["char-nvidia rw", "char-nvidia-uvm rw"]
    changed = ("PrivateDevices", "DevicePolicy", "DeviceAllow")
    assert {name: value for name, value in given.items() if name not in changed} == {
        name: value for name, value in plain.items() if name not in changed
    }


def test_a_unit_restricts_what_its_program_can_do() -> None:
    found = settings(systemd.unit(service(Path("/srv/one"))))
    assert {name: found[name] for name in RESTRICTED} == {name: [value] for name, value in RESTRICTED.items()}
    assert found["ReadWritePaths"] == ["/srv/one"]
    assert "IPAddressDeny" not in found


def test_a_unit_says_what_it_was_told() -> None:
    told = service(
        Path("/srv/one"),
        reads=[Path("/srv/one/a")],
        hides=[Path("/b")],
        peers=["192.0.2.1"],
        environment=Path("/srv/one/env"),
        after=["two.service"],
        low_port=True,
    )
    found = settings(systemd.unit(told))
    assert found["ReadOnlyPaths"] == ["-/srv/one/a"]
    assert found["InaccessiblePaths"] == ["-/b"]
    assert (found["IPAddressDeny"], found["IPAddressAllow"]) == (["any"], ["localhost 192.0.2.1"])
    assert found["EnvironmentFile"] == ["-/srv/one/env"]
    assert found["After"] == ["network-online.target two.service"]
    assert found["AmbientCapabilities"] == found["CapabilityBoundingSet"] == ["CAP_NET_BIND_SERVICE"]


def test_homes_are_out_of_sight_unless_something_of_ours_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/home/somebody/python")
    assert settings(systemd.unit(service(Path("/srv/one"), command=["/opt/one"])))["ProtectHome"] == ["read-only"]
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    here = service(Path("/srv/one"), command=["/opt/one"])
    assert settings(systemd.unit(here))["ProtectHome"] == ["yes"]
    assert settings(systemd.unit(service(Path("/home/x"), command=["/opt/one"])))["ProtectHome"] == ["read-only"]


def test_systemd_reads_names_as_they_are_meant(tmp_path: Path) -> None:
    """systemd itself reads the unit back: specifiers, quotes and spaces are no syntax in a path."""
    folder = tmp_path / 'a "b" 100%h $HOME'
    folder.mkdir()
    told = service(folder, command=[sys.executable, "-c", f"print({str(folder)!r})"])
    unit = tmp_path / "one.service"
    unit.write_text(systemd.unit(told))
    assert complaints(unit) == ""
    assert "100%%h" in unit.read_text()
    assert "$$HOME" in settings(unit.read_text())["ExecStart"][0]


def test_what_root_runs_is_a_script_without_surprises(tmp_path: Path) -> None:
    folder = tmp_path / "units of one"
    files = systemd.write(folder, [service(tmp_path)], [tmp_path, tmp_path / "in it"])
    assert (
        {path.name for path in files}
        == {"one.service", "somebody.sysusers", "install.sh"}
        == {path.name for path in folder.iterdir()}
    )
    script = (folder / "install.sh").read_text()
    assert subprocess.run(["sh", "-n", str(folder / "install.sh")]).returncode == 0
    assert f"chown -R somebody: {tmp_path}\n" in script
    assert script.index("chown -R somebody") < script.index("chown -R root"), "the script itself stays root's"
    assert "'" in script, "names with spaces are one word"


def test_a_path_in_another_is_not_named_twice() -> None:
    paths = [Path("/a/b"), Path("/a"), Path("/c"), Path("/ab")]
    assert systemd.outermost(paths) == [Path("/a"), Path("/ab"), Path("/c")]
