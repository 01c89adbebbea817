"""A sum key is believed only with both signatures, of this study, hospital and key."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tasks.protocol import enrolment, sum_key
from tasks.protocol.sum_key import BadSumKey, SumKey

STUDY = "ab" * 32
ENROLLED = enrolment.new_key()
DEPUTY = sum_key.read_deputy(sum_key.new_deputy(ENROLLED))


def _signed(hospital: str = "alder") -> SumKey:
    return sum_key.signed(DEPUTY, hospital, STUDY, X25519PrivateKey.generate().public_key())


def test_the_fingerprint_is_that_of_the_enrolled_key() -> None:
    assert sum_key.fingerprint_of(_signed(), STUDY) == enrolment.own_fingerprint(ENROLLED)
    assert sum_key.own_fingerprint(DEPUTY) == enrolment.own_fingerprint(ENROLLED)


@pytest.mark.parametrize("field", ["hospital", "key", "identity", "deputy", "deputised", "signature"])
def test_a_key_with_any_part_of_another_is_refused(field: str) -> None:
    other = sum_key.read_deputy(sum_key.new_deputy(enrolment.new_key()))
    theirs = sum_key.signed(other, "birch", STUDY, X25519PrivateKey.generate().public_key())
    with pytest.raises(BadSumKey):
        sum_key.fingerprint_of(replace(_signed(), **{field: getattr(theirs, field)}), STUDY)


def test_a_key_of_another_study_is_refused() -> None:
    with pytest.raises(BadSumKey, match="not signed"):
        sum_key.fingerprint_of(_signed(), "cd" * 32)


def test_whoever_has_no_enrolled_key_cannot_deputise_itself() -> None:
    """The wrong version believes the deputy."""
    own = sum_key.read_deputy(sum_key.new_deputy(enrolment.new_key()))
    forged = sum_key.signed(
        replace(own, identity=DEPUTY.identity), "alder", STUDY, X25519PrivateKey.generate().public_key()
    )
    with pytest.raises(BadSumKey):
        sum_key.fingerprint_of(forged, STUDY)


def test_keys_on_other_curves_and_broken_ones_are_refused_by_name() -> None:
    wrong = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = sum_key._der(wrong)
    for field in ("identity", "deputy"):
        with pytest.raises(BadSumKey, match="alder"):
            sum_key.fingerprint_of(replace(_signed(), **{field: base64.b64encode(der).decode()}), STUDY)
    for broken in ("AAAA", "A" * 43 + "="):
        with pytest.raises(BadSumKey, match="alder"):
            sum_key.fingerprint_of(replace(_signed(), key=broken), STUDY)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'{"private_key": 1}'])
def test_a_file_that_is_no_deputy_is_told(content: bytes) -> None:
    with pytest.raises(BadSumKey, match="deputy"):
        sum_key.read_deputy(content)
