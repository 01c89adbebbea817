"""Who asks for a study: a signature that holds names a researcher, and whatever else comes is refused, with reasons."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from server.deployment import people, pki, signing
from server.deployment.people import Person
from server.deployment.server_dir import ServerDir, ServerSettings, make
from server.errors import NotSigned

STUDY = {"seed": 7, "text": "ä"}


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(made)
    pki.issue_server(made)
    return made


@pytest.fixture
def rosalind(home: ServerDir) -> Path:
    return people.issue(home, "rosalind")


def test_a_researcher_s_name_comes_with_the_study(home: ServerDir, rosalind: Path) -> None:
    assert signing.read(home, 1, signing.signed(STUDY, rosalind, rosalind)) == signing.Asked(
        STUDY, Person("rosalind", "researcher")
    )


def test_the_server_goes_on_with_a_study_in_nobody_s_name(home: ServerDir) -> None:
    text = signing.signed(STUDY, home.certificate_key, home.certificate)
    assert signing.read(home, 1, text) == signing.Asked(STUDY, None)


@pytest.mark.parametrize("text", ["", "{}", json.dumps(STUDY), "[" * 100_000, "\x00", '{"text": "{}"}'])
def test_what_bears_no_signature_is_refused(home: ServerDir, text: str) -> None:
    with pytest.raises(NotSigned, match="is not signed"):
        signing.read(home, 1, text)


@pytest.mark.parametrize("part", ["text", "certificate", "signature"])
def test_what_was_changed_is_refused(home: ServerDir, rosalind: Path, part: str) -> None:
    envelope = json.loads(signing.signed(STUDY, rosalind, rosalind))
    at = len(envelope[part]) // 2
    envelope[part] = envelope[part][:at] + ("A" if envelope[part][at] != "A" else "B") + envelope[part][at + 1 :]
    with pytest.raises(NotSigned):
        signing.read(home, 1, json.dumps(envelope))


def test_another_s_signature_under_a_researcher_s_certificate_is_refused(home: ServerDir, rosalind: Path) -> None:
    mallory = people.issue(home, "mallory")
    with pytest.raises(NotSigned, match="signature is not valid"):
        signing.read(home, 1, signing.signed(STUDY, mallory, rosalind))


def test_another_authority_s_researcher_is_refused(home: ServerDir, tmp_path: Path) -> None:
    other = make(tmp_path / "other", ServerSettings(host="localhost"))
    pki.create_authority(other)
    pki.issue_server(other)
    stranger = people.issue(other, "rosalind")
    for key, certificate in ((stranger, stranger), (other.certificate_key, other.certificate)):
        with pytest.raises(NotSigned, match="signature is not valid"):
            signing.read(home, 1, signing.signed(STUDY, key, certificate))


def test_who_was_shut_out_or_whose_time_is_over_is_refused(home: ServerDir, rosalind: Path) -> None:
    text = signing.signed(STUDY, rosalind, rosalind)
    people.revoke(home, "rosalind")
    with pytest.raises(NotSigned, match="was revoked"):
        signing.read(home, 1, text)
    late = people.issue(home, "late", days=-1)
    with pytest.raises(NotSigned, match="has expired"):
        signing.read(home, 1, signing.signed(STUDY, late, late))


def test_a_text_is_good_for_one_run(home: ServerDir, rosalind: Path) -> None:
    """Whoever lists runs reads what others have signed. The wrong version keeps in mind signatures, and of one text
    there are as many good ones as anybody likes."""
    text = signing.signed(STUDY, rosalind, rosalind)
    signing.read(home, 1, text)
    assert signing.read(home, 1, text).name == "rosalind", "the same run may be played again"
    with pytest.raises(NotSigned, match="submitted before, as run 1"):
        signing.read(home, 2, text)
    envelope = json.loads(text)
    again = json.loads(signing.signed(STUDY, rosalind, rosalind)) | {"text": envelope["text"]}
    with pytest.raises(NotSigned):
        signing.read(home, 2, json.dumps(again))


@pytest.mark.parametrize("days", [-2.0, 1.0])
def test_a_text_of_another_day_is_refused(
    home: ServerDir, rosalind: Path, days: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + timedelta(days=days)

    with monkeypatch.context() as patch:
        patch.setattr(signing, "datetime", Clock)
        text = signing.signed(STUDY, rosalind, rosalind)
    with pytest.raises(NotSigned, match="too old, or a clock is wrong"):
        signing.read(home, 1, text)


def test_a_certificate_of_another_kind_is_refused_like_any_other(home: ServerDir, rosalind: Path) -> None:
    """The authority's own has none of the extensions that a person's has, and an Ed25519 key signs in another way."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.x509.oid import NameOID

    key = ed25519.Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "rosalind")])
    start = datetime.now(UTC)
    odd = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(days=1))
        .sign(key, None)
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    envelope = json.loads(signing.signed(STUDY, rosalind, rosalind))
    for certificate in (
        home.authority.read_text(),
        odd,
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
    ):
        with pytest.raises(NotSigned, match="signature is not valid"):
            signing.read(home, 1, json.dumps(envelope | {"certificate": certificate}))


def test_a_mark_that_a_kill_left_empty_refuses_nobody(home: ServerDir, rosalind: Path) -> None:
    text = signing.signed(STUDY, rosalind, rosalind)
    signing.read(home, 1, text)
    (mark,) = home.runs.glob("*.asked")
    mark.write_text("")
    assert signing.read(home, 1, text).name == "rosalind"
    assert [path.name for path in home.runs.iterdir()] == [mark.name], "no draft is left"
