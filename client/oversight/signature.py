"""Decisions in the audit log, signed with a person's name.

Tested in ``tests/client/oversight/test_approvals.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

from client.errors import SiteMisconfigured
from client.ledger.audit_log import AuditLog, Event, Fact, Kind

_LONGEST = 200


def sign(audit_log: AuditLog, kind: Kind, by: str, facts: Mapping[str, Fact]) -> Event:
    """Enter a decision with the name of the person who made it.

    Raises:
        SiteMisconfigured: ``by`` names nobody, or it or a fact has a UID or a path in it.
    """
    try:
        return audit_log.append_event(kind, {**facts, "by": require_name(by)})
    except ValueError as error:
        raise SiteMisconfigured(f"{error}: neither the study nor --by may contain one") from None


def require_name(by: str) -> str:
    """The name as it is entered.

    Raises:
        SiteMisconfigured: it names nobody.
    """
    if not by.strip() or not by.isprintable() or len(by) > _LONGEST:
        raise SiteMisconfigured(f"set --by to the name of who decides: at most {_LONGEST} printable characters")
    return by.strip()
