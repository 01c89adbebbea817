"""A certificate for each admitted hospital: for its key, by its name, and worth nothing once it is revoked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from server.deployment import hospital_certificates, people, pki, register
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.runtime.flower_private import Control
from tasks.protocol import enrolment
from tests.server.deployment.superlink import SuperLink


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(made)
    return made


def admitted(home: ServerDir, superlink: SuperLink, name: str = "alder") -> enrolment.Request:
    request = enrolment.request(name, enrolment.new_key(), 200)
    register.admit(home, cast(Control, superlink), request)
    return request


def told(home: ServerDir, request: enrolment.Request) -> dict[str, Any]:
    path = home.admission / f"{enrolment.key_fingerprint(request).replace(' ', '')}.json"
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def test_it_is_issued_at_admission_for_the_hospital_s_own_key(home: ServerDir) -> None:
    request = admitted(home, SuperLink())
    issued = x509.load_pem_x509_certificate(told(home, request)["certificate"].encode())
    issued.verify_directly_issued_by(x509.load_pem_x509_certificate(home.authority.read_bytes()))
    assert issued.public_key() == load_pem_public_key(request.public_key.encode())
    assert issued.subject.rfc4514_string() == "CN=alder,OU=hospital"
    purposes = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert people.person_in(issued) is None
    assert pki.days_left_of(issued) > 3600
    assert len(json.dumps(told(home, request))) < 4096, "a hospital reads no more"


def test_it_stays_until_it_is_about_to_end_or_is_lost(home: ServerDir) -> None:
    request = admitted(home, SuperLink())
    before = told(home, request)
    register.publish(home)
    assert told(home, request) == before
    one = home.hospitals()["alder"]
    key = load_pem_public_key(request.public_key.encode())
    short = pki.issue_client(home, "hospital", "alder", key, 30, hospital_certificates._serial(one))  # type: ignore[arg-type]
    for known in (short.public_bytes(pki.serialization.Encoding.PEM).decode(), "", "x", None, 7):
        renewed = hospital_certificates.certificate(home, one, known)
        assert renewed is not None
        assert pki.days_left_of(x509.load_pem_x509_certificate(renewed.encode())) > 3600
    path = next(home.admission.glob("[0-9a-f]*.json"))
    path.write_text("{")
    register.publish(home)
    anew = x509.load_pem_x509_certificate(told(home, request)["certificate"].encode())
    assert anew.serial_number == x509.load_pem_x509_certificate(before["certificate"].encode()).serial_number


@pytest.mark.parametrize("lost", [False, True])
def test_whoever_is_revoked_is_on_the_list_whatever_was_lost(home: ServerDir, lost: bool) -> None:
    superlink = SuperLink()
    request, other = admitted(home, superlink), admitted(home, superlink, "birch")
    serial = x509.load_pem_x509_certificate(told(home, request)["certificate"].encode()).serial_number
    if lost:
        for path in home.admission.glob("*.json"):
            path.unlink()
    superlink.away = True
    register.revoke(home, cast(Control, superlink), "alder")
    assert pki.revocations(home).keys() == {serial}
    assert "certificate" not in told(home, request)
    assert "certificate" in told(home, other)
    register.publish(home)
    assert pki.revocations(home).keys() == {serial}


def test_a_key_that_is_not_known_gets_none_until_it_is(home: ServerDir) -> None:
    superlink = SuperLink()
    request = admitted(home, superlink)
    with home.changing() as hospitals:  # as an older release has written it
        hospitals[:] = [one.__class__(one.name, one.node, one.key, one.admitted, 200) for one in hospitals]
    for path in home.admission.glob("*.json"):
        path.unlink()
    register.publish(home)
    assert told(home, request).keys() == {"state", "since"}
    register.reconcile(home, cast(Control, superlink))
    assert "certificate" in told(home, request)


def test_two_processes_that_publish_at_once_agree(home: ServerDir) -> None:
    """`admit` and the program that plays studies both do; the wrong version writes one file twice at once."""
    request = admitted(home, SuperLink())
    for path in home.admission.glob("*.json"):
        path.unlink()
    program = "import sys, pathlib; from server.deployment import register, server_dir as s; " \
        "home = s.read(pathlib.Path(sys.argv[1])); [register.publish(home) or " \
        "[path.unlink(missing_ok=True) for path in home.admission.glob('*.json')] for _ in range(60)]; " \
        "register.publish(home)"  # fmt: skip
    words = [sys.executable, "-c", program, str(home.path)]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for one in both:
        assert one.wait(60) == 0, one.stderr and one.stderr.read()
    assert told(home, request)["state"] == "admitted"
