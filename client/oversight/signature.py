"""Decisions in the audit log, signed with a person's name, and whether two signatures are two people's.

A name is what somebody typed: it proves nothing. Beside it stands the account that this person logged in with, where
the kernel knows it. Whoever can read ``site.key`` and write the audit log can forge either.
"""

from __future__ import annotations

import pwd
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from client.errors import SiteMisconfigured
from client.ledger.audit_log import AuditLog, Event, Fact, Kind

_LONGEST = 200
_LOGIN = Path("/proc/self/loginuid")
_NOBODY_LOGGED_IN = 2**32 - 1
_ACCOUNT = re.compile(r"[A-Za-z0-9_.@$+-]{1,64}")
_TITLES = frozenset({"dr", "prof", "med", "mr", "mrs", "ms", "phd", "md"})


@dataclass(frozen=True)
class Signature:
    """Who signed, as far as this machine knows.

    Attributes:
        by: the name that was typed.
        account: the login account, see ``login_account``; "" where it is not known.
    """

    by: str
    account: str
    at: datetime


def sign(audit_log: AuditLog, kind: Kind, by: str, facts: Mapping[str, Fact], *, in_person: bool = True) -> Event:
    """Enter a decision with the name of the person who made it, and the account that this person logged in with. One
    that a program made in nobody's name (``in_person=False``) has no account.

    Raises:
        SiteMisconfigured: ``by`` names nobody, or it or a fact has a UID or a path in it.
    """
    known = {"account": account} if in_person and (account := login_account()) else {}
    try:
        return audit_log.append_event(kind, {**facts, "by": require_name(by), **known})
    except ValueError as error:
        raise SiteMisconfigured(f"{error}: neither the study nor --by may contain one") from None


def signature_of(event: Event) -> Signature:
    """Who signed an event."""
    return Signature(str(event.facts["by"]), str(event.facts.get("account", "")), event.at)


def require_name(by: str) -> str:
    """The name as it is entered.

    Raises:
        SiteMisconfigured: it names nobody.
    """
    if not by.strip() or not by.isprintable() or len(by) > _LONGEST:
        raise SiteMisconfigured(f"set --by to the name of who decides: at most {_LONGEST} printable characters")
    return by.strip()


def login_account() -> str:
    """The account that whoever runs this process has logged in with; "" where nobody knows it.

    The kernel notes it at login (``/proc/self/loginuid``, proc(5)) and keeps it through ``sudo``, ``su`` and
    ``runuser``; afterwards only root can change it. ``SUDO_USER`` and ``LOGNAME`` are not asked: anybody can set them.
    In most containers, and in programs that no login has started, it is not known.
    """
    with suppress(OSError, ValueError):
        if (number := int(_LOGIN.read_text("ascii"))) != _NOBODY_LOGGED_IN:
            return _called(number)
    return ""


def _called(number: int) -> str:
    with suppress(KeyError):
        name = pwd.getpwuid(number).pw_name
        if _ACCOUNT.fullmatch(name):  # one of a directory may look like a path, which the audit log refuses
            return name
    return f"uid-{number}"


def why_one_person(one: Signature, other: Signature) -> str:
    """Why two signatures count as one person's; "" if they count as two.

    Names are compared without case, accents' encoding, order of the words, punctuation and titles, and one that only
    leaves out some words of the other is the same: ``Noor, Ada`` is ``Dr. Ada Noor``, and so is ``noor``. One login
    account is one person, whatever names it types.
    """
    words, others = _words(one.by), _words(other.by)
    if words <= others or others <= words:
        return "the same name"
    if one.account and one.account == other.account:
        return f"the same login account, {one.account}"
    return ""


def _words(name: str) -> frozenset[str]:
    """The words of a name; one that has none but titles and punctuation is itself."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = {word for word in re.findall(r"\w+", unicodedata.normalize("NFKC", folded)) if word not in _TITLES}
    return frozenset(words or {folded.strip()})
