"""Who signed: what counts as one person, and what the system knows of a login."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.oversight import signature
from client.oversight.signature import Signature, login_account, why_one_person

AT = datetime(2026, 11, 30, tzinfo=UTC)
NAMES = st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "Zs")), min_size=1).filter(str.strip)


def by(name: str, account: str = "") -> Signature:
    return Signature(name, account, AT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (by("Ada Noor"), by("ADA NOOR")),
        (by("Jos\u00e9 Ruiz"), by("Jose\u0301 Ruiz")),
        (by("Prof. Dr. med. Ada Noor"), by("Noor, Ada")),
        (by("Ada Noor"), by("Ada B. Noor")),
        (by("Stra\u00dfer"), by("STRASSER")),
        (by("Ada Noor", "noor"), by("Ben Okafor", "noor")),
        (by("root"), by("Root")),
        (by("Dr."), by("Dr.")),
    ],
)
def test_one_person(one: Signature, other: Signature) -> None:
    assert why_one_person(one, other)
    assert why_one_person(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (by("Ada Noor"), by("Ben Okafor")),
        (by("Ada Noor"), by("Ada Okafor")),
        (by("Ada Noor", "noor"), by("Ben Okafor", "okafor")),
        (by("Ada Noor", "noor"), by("Ben Okafor")),
        (by("\u674e\u96f7"), by("\u97e9\u6885\u6885")),
    ],
)
def test_two_people(one: Signature, other: Signature) -> None:
    assert why_one_person(one, other) == why_one_person(other, one) == ""


@given(NAMES, NAMES)
def test_a_name_is_one_person_with_itself_and_the_order_does_not_matter(one: str, other: str) -> None:
    assert why_one_person(by(one), by(one.upper().lower()) if one.isascii() else by(one))
    assert bool(why_one_person(by(one), by(other))) == bool(why_one_person(by(other), by(one)))


@pytest.mark.parametrize(
    ("noted", "told"), [("4294967295", ""), ("0", "root"), ("4000000123\n", "uid-4000000123"), ("", ""), ("x", "")]
)
def test_the_login_is_what_the_kernel_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: str, told: str
) -> None:
    (tmp_path / "loginuid").write_text(noted)
    monkeypatch.setattr(signature, "_LOGIN", tmp_path / "loginuid")
    monkeypatch.setenv("SUDO_USER", "somebody-else")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    assert login_account() == told, "what anybody can set is not asked"


def test_where_nobody_notes_logins_none_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signature, "_LOGIN", tmp_path / "absent")
    assert login_account() == ""
