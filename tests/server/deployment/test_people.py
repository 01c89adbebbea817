"""People, roles and certificates: a role is as good as the authority's signature, and renewing changes neither."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.deployment import people, pki, signing
from server.deployment.people import Person
from server.deployment.server_dir import Hospital, ServerDir, ServerSettings, make
from server.errors import NotAllowed, NotSigned, ServerMisconfigured


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(made)
    pki.issue_server(made)
    return made


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


@pytest.mark.parametrize("role", people.ROLES)
def test_a_role_stands_in_the_certificate(home: ServerDir, role: people.Role) -> None:
    path = people.issue(home, "ada", role)
    assert people.person_in(certificate(path)) == Person("ada", role)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [person for person, _ in people.everybody(home)] == [Person("ada", role)]
    assert people.role_of(home, "ada") == role


@pytest.mark.parametrize("name", ["", "../ada", "a b", "ada,OU=coordinator", "ada+OU=coordinator", "x" * 41, "ä"])
def test_what_is_no_name_gets_no_certificate(home: ServerDir, name: str) -> None:
    with pytest.raises(ServerMisconfigured, match="a name has at most 40 letters"):
        people.issue(home, name)
    assert not people.exists(home, name)


def test_a_hospital_s_name_is_no_person_s(home: ServerDir) -> None:
    home.register({"alder": Hospital("alder", 1, "k", "now", 5)})
    with pytest.raises(ServerMisconfigured, match="is a hospital"):
        people.issue(home, "alder")


@pytest.mark.parametrize("role", ["hospital", "Coordinator", "coordinator ", "admin"])
def test_another_role_is_nobody_s(home: ServerDir, role: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = pki.issue_client(home, role, "eve", key.public_key(), 1)
    assert people.person_in(issued) is None
    file = home.path / "eve.pem"
    file.write_bytes(people._both(key, issued))
    with pytest.raises(NotSigned, match="not a researcher's"):
        signing.read(home, 1, signing.signed({}, file, file))


def test_a_reader_signs_nothing(home: ServerDir) -> None:
    me = people.issue(home, "ada", "reader")
    for number, study in enumerate(({"seed": 1}, {"stop": "busi-1"})):
        with pytest.raises(NotSigned, match="ada is a reader"):
            signing.read(home, number, signing.signed(study, me, me))


def test_a_renewed_certificate_has_key_name_and_role_of_the_old_one_which_is_revoked(home: ServerDir) -> None:
    path = people.issue(home, "ada", "coordinator", days=3)
    old, key = certificate(path), serialization.load_pem_private_key(path.read_bytes(), None)
    queued = signing.signed({"seed": 1}, path, path)
    (home.path / "old.pem").write_bytes(path.read_bytes())

    assert people.renew(home, "ada") == (path, Person("ada", "coordinator"))

    new = certificate(path)
    assert new.public_key() == old.public_key() == key.public_key()
    assert (people.person_in(new), new.serial_number != old.serial_number) == (Person("ada", "coordinator"), True)
    assert new.not_valid_after_utc > datetime.now(UTC) + timedelta(days=360)
    assert pki.revocations(home).keys() == {old.serial_number}
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.read(home, 1, signing.signed({}, path, path)).name == "ada"
    assert signing.read(home, 2, queued).name == "ada", "what waits in the queue need not be submitted again"


def test_the_old_one_signs_nothing_new_and_nothing_of_somebody_who_was_shut_out(
    home: ServerDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, old = people.issue(home, "ada"), home.path / "old.pem"
    old.write_bytes(path.read_bytes())
    queued = signing.signed({"seed": 1}, path, path)
    people.renew(home, "ada")
    with monkeypatch.context() as patch:
        patch.setattr(signing, "datetime", later(minutes=5))
        text = signing.signed({}, old, old)
    with pytest.raises(NotSigned, match="was revoked"):
        signing.read(home, 1, text)
    people.revoke(home, "ada")
    with pytest.raises(NotSigned, match="was revoked"):
        signing.read(home, 2, queued)


def later(minutes: float) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(minutes=minutes)

    return Clock


def test_one_that_has_expired_is_renewed_and_one_that_was_revoked_is_not(home: ServerDir) -> None:
    path = people.issue(home, "ada", days=-1)
    people.renew(home, "ada")
    assert signing.read(home, 1, signing.signed({}, path, path)).name == "ada"
    people.revoke(home, "ada")
    with pytest.raises(ServerMisconfigured, match="no certificate of 'ada'"):
        people.renew(home, "ada")


@pytest.mark.parametrize("content", [b"", b"-----BEGIN X-----", b"\xff"])
def test_a_file_that_cannot_be_read_is_not_renewed(home: ServerDir, content: bytes) -> None:
    people.issue(home, "ada").write_bytes(content)
    with pytest.raises(ServerMisconfigured):
        people.renew(home, "ada")
    assert pki.revocations(home) == {}
    assert list(people.everybody(home)) == []


def test_the_list_keeps_when_and_why(home: ServerDir) -> None:
    people.issue(home, "ada")
    people.renew(home, "ada")
    before = {serial: entry.revocation_date_utc for serial, entry in pki.revocations(home).items()}
    people.revoke(home, "ada")
    after = pki.revocations(home)
    assert {serial: after[serial].revocation_date_utc for serial in before} == before
    assert sorted(str(pki.reason_of(entry)) for entry in after.values()) == ["None", "ReasonFlags.superseded"]
    assert pki.revoke(home, after) is False


@pytest.mark.parametrize(
    ("who", "asked_by", "may"),
    [
        (Person("ada", "researcher"), "ada", True),
        (Person("ada", "researcher"), "rosalind", False),
        (Person("ada", "researcher"), None, False),
        (Person("ada", "coordinator"), "rosalind", True),
        (Person("ada", "coordinator"), None, True),
        (Person("ada", "reader"), "ada", False),
    ],
)
def test_who_may_act_on_a_study(who: Person, asked_by: str | None, may: bool) -> None:
    if may:
        who.require_own("busi-1", asked_by)
    else:
        with pytest.raises(NotAllowed):
            who.require_own("busi-1", asked_by)
