"""The hospital's certificate: kept if it is for its own key, by its own server's authority."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_ssh_private_key

from client.link import gateway, supernode
from client.link.credential import Credential
from server.deployment import pki
from server.deployment.server_dir import ServerDir, ServerSettings, make
from tasks.protocol import enrolment


def server(folder: Path) -> ServerDir:
    made = make(folder, ServerSettings(host="localhost"))
    pki.create_authority(made)
    return made


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    return server(tmp_path / "home")


@pytest.fixture
def mine(tmp_path: Path, home: ServerDir) -> Credential:
    key = tmp_path / "link" / "node.key"
    key.parent.mkdir()
    key.write_bytes(enrolment.new_key())
    return Credential(key, home.authority)


def issued(home: ServerDir, key: bytes) -> str:
    public = load_ssh_private_key(key, None).public_key()
    certificate = pki.issue_client(home, "hospital", "alder", public, 30)  # type: ignore[arg-type]
    return certificate.public_bytes(Encoding.PEM).decode()


def test_its_own_is_kept_and_shown(home: ServerDir, mine: Credential) -> None:
    assert not mine.there
    pem = issued(home, mine.key.read_bytes())
    assert mine.keep(pem)
    assert (mine.there, mine.certificate.read_text()) == (True, pem)
    assert stat.S_IMODE(mine.certificate.stat().st_mode) == 0o600
    assert isinstance(mine.context(), ssl.SSLContext)
    assert {path.name for path in mine.key.parent.iterdir()} == {"node.key", "node.crt"}, "no key is left behind"
    newer = issued(home, mine.key.read_bytes())
    assert mine.keep(newer)
    assert mine.certificate.read_text() == newer


def test_anything_else_is_not(home: ServerDir, mine: Credential, tmp_path: Path) -> None:
    own = issued(home, mine.key.read_bytes())
    mine.keep(own)
    stranger = issued(home, enrolment.new_key())
    elsewhere = issued(server(tmp_path / "other"), mine.key.read_bytes())
    for pem in (
        stranger,
        elsewhere,
        "",
        "x",
        "-----BEGIN CERTIFICATE-----",
        own[:-60],
        "ä",
        None,
        7,
        [own],
        {"x": own},
    ):
        assert not mine.keep(pem)
    assert mine.certificate.read_text() == own


@pytest.mark.parametrize("content", [b"", b"\xff", b"x" * 100])
def test_a_damaged_one_is_worth_as_much_as_none(mine: Credential, content: bytes) -> None:
    mine.certificate.write_bytes(content)
    assert not mine.there
    assert isinstance(mine.context(), ssl.SSLContext)


def test_one_of_a_former_key_is_not_shown(home: ServerDir, mine: Credential) -> None:
    mine.keep(issued(home, mine.key.read_bytes()))
    mine.key.write_bytes(enrolment.new_key())
    assert not mine.there
    assert isinstance(mine.context(), ssl.SSLContext)


def test_the_gateway_waits_for_it_and_keeps_the_last_one(
    home: ServerDir, mine: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, told = issued(home, mine.key.read_bytes()), list[str]()
    answers = [{}, {"state": "unknown"}, {"certificate": "x"}, {"state": "admitted", "certificate": own}]
    monkeypatch.setattr(gateway, "admission", lambda link: answers.pop(0))
    monkeypatch.setattr(supernode, "AGAIN_S", 0.0)
    words = ["--superlink", "localhost:9", "--root-certificates", str(mine.authority), "--isolation", "process",
             "--auth-supernode-private-key", str(mine.key), "--host", "127.0.0.1"]  # fmt: skip
    assert isinstance(supernode.secured(words, told.append), ssl.SSLContext)
    assert (len(told), answers, mine.certificate.read_text()) == (3, [], own)
    answers.append({})  # the server is away
    supernode.secured(words, told.append)
    assert len(told) == 3
