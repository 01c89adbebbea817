"""Request and invitation: what was changed on the way is refused, and nothing secret is in either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import pki
from server.home import ServerSettings, make
from tasks import enrolment
from tasks.enrolment import BadEnrolment, Invitation, Request

KEY = enrolment.new_key()


@pytest.fixture
def request_text() -> str:
    return enrolment.request("alder", KEY).model_dump_json()


def test_a_request_is_read_as_it_was_written(request_text: str) -> None:
    read = enrolment.read_request(request_text)
    assert read == enrolment.request("alder", KEY).model_copy(update={"signature": read.signature})
    assert read.hospital == "alder"


def test_nothing_secret_travels(request_text: str) -> None:
    private = serialization.load_ssh_private_key(KEY, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    number = private.private_numbers().private_value
    assert "PRIVATE" not in request_text
    assert str(number) not in request_text
    assert f"{number:x}" not in request_text


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hospital": "birch"}, "was changed after"),
        ({"release": "9"}, "was changed after"),
        ({"hospital": "../x"}, "hospital"),
        ({"signature": "AAAA"}, "was changed after"),
        ({"signature": "?"}, "was changed after"),
        ({"colour": "blue"}, "colour"),
        ({"public_key": "no key"}, "was changed after"),
    ],
)
def test_a_request_that_was_changed_is_refused(request_text: str, changed: dict[str, str], told: str) -> None:
    with pytest.raises(BadEnrolment, match=told):
        enrolment.read_request(json.dumps(json.loads(request_text) | changed))


def test_another_key_cannot_be_slipped_in(request_text: str) -> None:
    other = enrolment.request("alder", enrolment.new_key())
    with pytest.raises(BadEnrolment, match="was changed after"):
        enrolment.read_request(json.dumps(json.loads(request_text) | {"public_key": other.public_key}))


def test_a_key_on_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with pytest.raises(BadEnrolment, match="P-384"):
        enrolment.request("alder", key)
    with pytest.raises(BadEnrolment, match="not a private key"):
        enrolment.request("alder", b"nonsense")


@pytest.mark.parametrize("text", ["", "[]", "{}", "x" * (enrolment.MOST_BYTES + 1), '{"kind": "consilium-request"}'])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadEnrolment):
        enrolment.read_request(text)
    with pytest.raises(BadEnrolment):
        enrolment.read_invitation(text)


def test_fingerprints_are_of_the_key_and_of_the_authority(tmp_path: Path) -> None:
    home = make(tmp_path, ServerSettings(host="localhost"))
    pki.found_authority(home)
    invitation = Invitation(server="localhost:8443", certificate_authority=home.authority.read_text())
    assert enrolment.read_invitation(invitation.model_dump_json()) == invitation
    told = {enrolment.authority_fingerprint(invitation), enrolment.key_fingerprint(enrolment.request("alder", KEY))}
    assert len(told) == 2
    assert all(len(one.split()) == 8 for one in told)
    same: Request = enrolment.request("birch", KEY)
    assert enrolment.key_fingerprint(same) in told


def test_an_invitation_without_a_certificate_is_refused() -> None:
    with pytest.raises(BadEnrolment, match="certificate cannot be read"):
        enrolment.read_invitation(Invitation(server="h:1", certificate_authority="none").model_dump_json())
