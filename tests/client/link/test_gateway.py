"""Enrolment at the hospital: what is made, for whom it is readable, and what is refused in words."""

from __future__ import annotations

import json
import socket
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.errors import SiteMisconfigured
from client.link import gateway
from client.site import SiteSettings
from server.deployment import pki
from server.deployment.server_dir import ServerSettings, make
from tasks.machine.disk import open_to_others
from tasks.protocol import enrolment
from tasks.protocol.enrolment import Invitation


@pytest.fixture(scope="module")
def invitation(tmp_path_factory: pytest.TempPathFactory) -> Invitation:
    home = make(tmp_path_factory.mktemp("server"), ServerSettings(host="localhost"))
    pki.create_authority(home)
    return Invitation(server="localhost:9", certificate_authority=home.authority.read_text())


def test_a_request_carries_the_public_size_and_the_link_is_for_its_owner(
    provision_hospital: Callable[..., SiteSettings], invitation: Invitation
) -> None:
    settings = provision_hospital(public_size=300)
    settings.link.mkdir(mode=0o755)
    asked = gateway.enroll(settings, invitation)
    assert enrolment.read_request(asked.model_dump_json()).public_size == 300
    assert {path.name for path in settings.link.iterdir()} == {
        *("node.key", "deputy.key", "authority.crt", "trainer.secret")
    }
    assert list(open_to_others(settings.link)) == []


@pytest.mark.parametrize(
    ("size", "told"),
    [(None, "add the line `public_size: N`"), (10_000_001, "above the maximum of 10000000")],
    ids=["none", "huge"],
)
def test_a_hospital_without_a_size_that_a_server_takes_is_told_so_before_a_key_is_made(
    provision_hospital: Callable[..., SiteSettings], invitation: Invitation, size: int | None, told: str
) -> None:
    settings = provision_hospital(public_size=size, simulated=True)
    with pytest.raises(SiteMisconfigured, match=told):
        gateway.enroll(settings, invitation)
    assert not settings.link.exists()


def _enroll(site: Path, invitation: Path, *more: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["enroll", "--site", str(site), "--invitation", str(invitation), *more])
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended.exit_code, ended.output


def test_the_command_tells_what_is_to_be_read_aloud(
    provision_hospital: Callable[..., SiteSettings], invitation: Invitation, tmp_path: Path
) -> None:
    settings = provision_hospital(public_size=300)
    file = tmp_path / "invitation.json"
    file.write_text(invitation.model_dump_json())
    code, told = _enroll(tmp_path / "site.yaml", file, "--json")
    asked = enrolment.request_in(tmp_path / "st-anne.request.json")
    assert code == 0
    assert json.loads(told)["key"] == enrolment.key_fingerprint(asked)
    assert json.loads(told)["key"] == enrolment.own_fingerprint((settings.link / "node.key").read_bytes())
    assert json.loads(told)["public_size"] == asked.public_size == 300


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"{}", b"[" * 60_000, b'{"server": 3}', b"x" * 100_000])
def test_what_is_no_invitation_ends_in_a_sentence(
    provision_hospital: Callable[..., SiteSettings], tmp_path: Path, content: bytes
) -> None:
    provision_hospital(public_size=300)
    file = tmp_path / "invitation.json"
    file.write_bytes(content)
    code, told = _enroll(tmp_path / "site.yaml", file)
    assert (code, "SiteMisconfigured" in told, "invitation" in told) == (2, True, True)


def test_whose_terms_the_ledger_does_not_have_is_told_before_it_is_admitted(
    tmp_path: Path, provision_hospital: Callable[..., SiteSettings], invitation: Invitation
) -> None:
    """It would be admitted, and the first study would fail there."""
    file = tmp_path / "invitation.json"
    file.write_text(invitation.model_dump_json())
    settings = provision_hospital(server="localhost:9", public_size=20)
    site = tmp_path / "site.yaml"
    site.write_text(site.read_text().replace("public_size: 20", "public_size: 30"))
    code, told = _enroll(site, file)
    assert code == 2
    assert "public_size is 20 in the ledger and 30 in site.yaml" in told
    assert "ledger rebase --by" in told
    assert not (tmp_path / f"{settings.name}.request.json").exists()
    settings.ledger.rename(tmp_path / "elsewhere")  # the gateway's machine has none, and says nothing of it
    assert _enroll(site, file)[0] == 0


def test_a_place_where_the_request_cannot_be_written_is_told(
    provision_hospital: Callable[..., SiteSettings], invitation: Invitation, tmp_path: Path
) -> None:
    provision_hospital(public_size=300)
    file = tmp_path / "invitation.json"
    file.write_text(invitation.model_dump_json())
    code, told = _enroll(tmp_path / "site.yaml", file, "--out", str(tmp_path / "no" / "request.json"))
    assert (code, "create the folder first" in told) == (2, True)


@pytest.fixture
def linked(provision_hospital: Callable[..., SiteSettings], invitation: Invitation) -> gateway.Link:
    settings = provision_hospital(public_size=300)
    gateway.enroll(settings, invitation)
    return gateway._files(settings)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, '{"state": "revoked", "since": "2026-11-30T10:00:00+00:00"}', "has revoked this hospital (2026-11-30 10"),
        (200, '{"state": "revoked", "since": "\\u001b[2J"}', "has revoked this hospital (at an unknown time)"),
        (200, '{"state": "unknown"}', "has not admitted this hospital"),
        (200, '{"state": "admitted", "since": "2026-11-30"}', ""),
        (404, '{"state": "unknown"}', ""),
        (503, "", ""),
        (200, "<html>", ""),
        (200, "[" * 4000, ""),
        (200, '["revoked"]', ""),
        (200, "", ""),
    ],
)
def test_who_is_refused_is_told_in_a_sentence_and_whatever_else_comes_is_no_refusal(
    linked: gateway.Link, monkeypatch: pytest.MonkeyPatch, status: int, body: str, told: str
) -> None:
    asked: list[str] = []

    def answer(_: gateway.Link, path: str) -> tuple[SimpleNamespace, bytes]:
        asked.append(path)
        return SimpleNamespace(status=status), body.encode()

    monkeypatch.setattr(gateway, "_asked", answer)
    sentence = gateway.refusal(linked)
    assert sentence.startswith(f"{linked.server} {told}") if told else sentence == ""
    assert "\x1b" not in sentence
    key = enrolment.own_fingerprint(linked.key.read_bytes()).replace(" ", "")
    assert asked == [f"/admission/{key}"]


def test_a_server_that_is_away_refuses_nobody(linked: gateway.Link) -> None:
    assert gateway.refusal(replace(linked, server="localhost:9")) == ""


@pytest.fixture
def proxy() -> Iterator[tuple[int, list[str]]]:
    """A proxy on loopback that asks for a password: its port, and the logins that it was given."""
    logins: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                lines = connection.recv(4096).decode().split("\r\n")
                given = dict(line.split(": ", 1) for line in lines[1:] if ": " in line).get("Proxy-Authorization", "")
                login = b64decode(given.removeprefix("Basic ")).decode()
                logins.append(login)
                known = lines[0] == "CONNECT federation.example.org:8443 HTTP/1.1" and login == "hos@pital:pa:ss wörd"
                told = "200 Connection established" if known else "407 Proxy Authentication Required"
                connection.sendall(f"HTTP/1.1 {told}\r\n\r\n".encode())

    def until_closed() -> None:
        with suppress(OSError):
            serve()

    threading.Thread(target=until_closed, daemon=True).start()
    yield listening.getsockname()[1], logins
    listening.close()


@pytest.mark.parametrize(
    ("login", "known"),
    [("hos%40pital:pa%3Ass%20w%C3%B6rd@", True), ("hos%40pital:wrong@", False), ("hos%40pital@", False), ("", False)],
    ids=["right", "wrong", "no password", "none"],
)
def test_a_proxy_is_told_user_and_password(
    proxy: tuple[int, list[str]], login: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, logins = proxy
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://{login}127.0.0.1:{port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if known:
        gateway.connect("federation.example.org:8443")
    else:
        with pytest.raises(OSError, match="HTTPS_PROXY") as refused:
            gateway.connect("federation.example.org:8443")
        assert "wrong" not in str(refused.value), "no password in a message"
    assert len(logins) == 1
    assert bool(logins[0]) == bool(login)
