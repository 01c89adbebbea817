"""The server's checklist on an initialised server that is not running; tests/e2e/deployment asks one that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.deployment.server_dir import ServerDir, read

RUN = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    path = tmp_path / "home"
    assert RUN.invoke(app, ["init", "--host", "federation.example.org", "--home", str(path)]).exit_code == 0
    assert RUN.invoke(app, ["researcher", "rosalind", "--home", str(path)]).exit_code == 0
    return read(path)


def asked(home: ServerDir, code: int) -> dict[str, str]:
    """The state of each claim."""
    ended = RUN.invoke(app, ["security", "--home", str(home.path), "--json"])
    assert ended.exit_code == code, ended.output
    return {one["promise"]: one["state"] for claims in json.loads(ended.stdout).values() for one in claims}


def test_a_new_server_keeps_its_promises(home: ServerDir) -> None:
    states = asked(home, 0)
    assert states.pop("SuperLink, studies, MLflow and nginx run as they should") == "warn"  # it is not running
    assert set(states.values()) == {"ok"}
    assert "Nobody but its owner reads rosalind's certificate" in states


def test_what_was_changed_is_found(home: ServerDir) -> None:
    written = home.path / "fence" / "nginx.conf"
    written.write_text(written.read_text().replace("ssl_verify_client on;", "ssl_verify_client off;"))
    (home.path / "pki" / "authority.key").chmod(0o644)
    (home.path / "studies").chmod(0o755)
    states = asked(home, 1)
    failed = {promise for promise, state in states.items() if state == "fail"}
    assert failed == {
        "The reverse proxy lets through what is listed and nothing else",
        "Nobody but its owner reads the authority's key",
        "No other user can read the server's folders",
    }


def test_a_researchers_door_on_every_address_is_to_be_looked_at(tmp_path: Path) -> None:
    words = ["init", "--host", "f.example.org", "--researchers", "0.0.0.0:8444", "--home", str(tmp_path / "home")]
    assert RUN.invoke(app, words).exit_code == 0
    assert asked(read(tmp_path / "home"), 0)["The researchers' endpoint is on an internal network"] == "warn"
