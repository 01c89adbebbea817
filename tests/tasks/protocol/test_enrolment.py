"""Request and invitation: what was changed on the way is refused, and nothing secret is in either."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import given
from hypothesis import strategies as st

from server.deployment import pki
from server.deployment.server_dir import ServerSettings, make
from tasks.protocol import enrolment
from tasks.protocol.enrolment import BadEnrolment, Invitation, Request

KEY = enrolment.new_key()


@pytest.fixture
def request_text() -> str:
    return enrolment.request("alder", KEY, 300).model_dump_json()


def test_a_request_is_read_as_it_was_written(request_text: str) -> None:
    read = enrolment.read_request(request_text)
    assert read == enrolment.request("alder", KEY, 300).model_copy(update={"signature": read.signature})
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
        ({"public_key": "no key"}, "not a readable key in PEM"),
        ({"public_size": 3000}, "was changed after"),
        ({"public_size": 0}, "public_size"),
        ({"public_size": enrolment.LARGEST + 1}, "public_size"),
        ({"public_size": True}, "public_size"),
        ({"public_size": "300"}, "public_size"),
        ({"public_size": 300.0}, "public_size"),
    ],
)
def test_a_request_that_was_changed_is_refused(request_text: str, changed: dict[str, object], told: str) -> None:
    with pytest.raises(BadEnrolment, match=told):
        enrolment.read_request(json.dumps(json.loads(request_text) | changed))


def test_another_key_cannot_be_slipped_in(request_text: str) -> None:
    other = enrolment.request("alder", enrolment.new_key(), 300)
    with pytest.raises(BadEnrolment, match="was changed after"):
        enrolment.read_request(json.dumps(json.loads(request_text) | {"public_key": other.public_key}))


def test_a_key_on_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with pytest.raises(BadEnrolment, match="P-384"):
        enrolment.request("alder", key, 300)
    with pytest.raises(BadEnrolment, match="not a private key"):
        enrolment.request("alder", b"nonsense", 300)


@pytest.mark.parametrize("text", ["", "[]", "{}", "x" * (enrolment.MOST_BYTES + 1), '{"kind": "consilium-request"}'])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BadEnrolment):
        enrolment.read_request(text)
    with pytest.raises(BadEnrolment):
        enrolment.read_invitation(text)


def test_fingerprints_are_of_the_key_and_of_the_authority(tmp_path: Path) -> None:
    home = make(tmp_path, ServerSettings(host="localhost"))
    pki.create_authority(home)
    invitation = Invitation(server="localhost:8443", certificate_authority=home.authority.read_text())
    assert enrolment.read_invitation(invitation.model_dump_json()) == invitation
    told = {
        enrolment.authority_fingerprint(invitation),
        enrolment.key_fingerprint(enrolment.request("alder", KEY, 300)),
    }
    assert len(told) == 2
    assert all(len(one.split()) == 8 for one in told)
    same: Request = enrolment.request("birch", KEY, 300)
    assert enrolment.key_fingerprint(same) in told


def test_an_invitation_without_a_certificate_is_refused() -> None:
    with pytest.raises(BadEnrolment, match="certificate cannot be read"):
        enrolment.read_invitation(Invitation(server="h:1", certificate_authority="none").model_dump_json())


@pytest.mark.parametrize(
    ("begins", "ends", "issues", "told"),
    [
        (-9, -3, True, "ask for a new invitation, or set this machine's clock right"),
        (3, 9, True, "ask for a new invitation, or set this machine's clock right"),
        (-9, 9, False, "a server's own and not the authority's"),
    ],
    ids=["ended", "not begun", "no authority"],
)
def test_an_authority_by_which_no_connection_would_stand_is_refused_at_once(
    begins: int, ends: int, issues: bool, told: str
) -> None:
    key, name, now = ec.generate_private_key(ec.SECP384R1()), x509.Name([]), datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 5, now + timedelta(begins), now + timedelta(ends))
    made = made.add_extension(x509.BasicConstraints(issues, None), critical=True)
    pem = made.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(BadEnrolment, match=told):
        enrolment.read_invitation(Invitation(server="h:1", certificate_authority=pem).model_dump_json())


def test_a_second_authority_cannot_travel_behind_the_first(tmp_path: Path) -> None:
    """Its fingerprint would not be read on the telephone, and OpenSSL would believe it."""
    texts = []
    for name in ("one", "two"):
        home = make(tmp_path / name, ServerSettings(host="localhost"))
        pki.create_authority(home)
        texts.append(home.authority.read_text())
    both = Invitation(server="localhost:8443", certificate_authority="".join(texts))
    with pytest.raises(BadEnrolment, match="2 certificates"):
        enrolment.read_invitation(both.model_dump_json())
    with pytest.raises(BadEnrolment, match="2 certificates"):
        enrolment.authority_fingerprint(both)
    beside = both.model_copy(update={"certificate_authority": f"{texts[0]}\nand something else\n"})
    assert enrolment.read_invitation(beside.model_dump_json()).certificate_authority == texts[0]


def _foreign_keys() -> dict[str, str]:
    kinds: dict[str, PrivateKeyTypes] = {
        "rsa": rsa.generate_private_key(65537, 1024),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "x25519": x25519.X25519PrivateKey.generate(),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "dsa": dsa.generate_private_key(1024),
    }
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {name: key.public_key().public_bytes(*form).decode() for name, key in kinds.items()}


UNKNOWN = (
    f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(bytes.fromhex('300b300706032a030405000302000100')).decode()}\n"
)
FOREIGN = _foreign_keys() | {"unknown algorithm": UNKNOWN + "-----END PUBLIC KEY-----\n"}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_key_of_another_kind_is_refused_in_words(request_text: str, kind: str) -> None:
    with pytest.raises(BadEnrolment, match="consilium-site enroll"):
        enrolment.read_request(json.dumps(json.loads(request_text) | {"public_key": FOREIGN[kind]}))


def test_a_file_of_any_kind_and_size_is_refused_in_words(tmp_path: Path, request_text: str) -> None:
    path = tmp_path / "file"
    path.write_text(request_text)
    assert enrolment.request_in(path).public_size == 300
    for content in (b"\xff\xfe", b"", b"\0" * 100, b"[" * 60_000, b"{" * 70_000, b"1" * 5000):
        path.write_bytes(content)
        for read in (enrolment.request_in, enrolment.invitation_in):
            with pytest.raises(BadEnrolment):
                read(path)
    for read in (enrolment.request_in, enrolment.invitation_in):
        with pytest.raises(BadEnrolment, match="cannot be read as"):
            read(tmp_path)
        with pytest.raises(BadEnrolment, match="has at most 65536 bytes"):
            read(Path("/dev/zero"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
PEM = st.sampled_from([*FOREIGN.values(), "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", ""])


@st.composite
def mutated(draw: st.DrawFn, text: str) -> str:
    """The file with a field exchanged, cut or dropped, or with its bytes changed."""
    facts = json.loads(text)
    field = draw(st.sampled_from([*facts, "more"]))
    old = facts.get(field, "")
    if isinstance(old, str) and draw(st.booleans()):
        at, piece = draw(st.integers(0, len(old))), draw(st.text(max_size=4) | PEM)
        facts[field] = old[:at] + piece + old[draw(st.integers(at, len(old))) :]
    elif draw(st.booleans()):
        facts.pop(field, None)
    else:
        facts[field] = draw(JSON | PEM)
    whole = json.dumps(facts)
    cut = draw(st.integers(0, len(whole) * 4))
    return whole[:cut] + draw(st.text(max_size=2)) if cut < len(whole) else whole


REQUEST = enrolment.request("alder", KEY, 300).model_dump_json()


@given(text=mutated(REQUEST) | st.text())
def test_whatever_stands_in_a_request_it_is_read_as_it_was_signed_or_refused(text: str) -> None:
    with suppress(BadEnrolment):
        found, signed = enrolment.read_request(text), Request.model_validate_json(REQUEST)
        assert found.model_copy(update={"signature": signed.signature}) == signed


@given(data=st.data())
def test_whatever_stands_in_an_invitation_it_is_read_or_refused(data: st.DataObject, invitation: str) -> None:
    with suppress(BadEnrolment):
        assert enrolment.authority_fingerprint(enrolment.read_invitation(data.draw(mutated(invitation))))


@pytest.fixture(scope="module")
def invitation(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = make(tmp_path_factory.mktemp("server"), ServerSettings(host="localhost"))
    pki.create_authority(home)
    return Invitation(server="localhost:8443", certificate_authority=home.authority.read_text()).model_dump_json()
