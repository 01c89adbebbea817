"""What a hospital needs before its first order: settings, key, empty ledger and audit log. Nothing is replaced.

Tested in ``tests/client/cli/test_main.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from client.cohort import ownership
from client.errors import SiteMisconfigured
from client.ledger.records import create_records, open_records
from client.oversight.premises import terms_of
from client.setup.site_file import example
from client.site import NAME, SiteSettings, secret


def write_example(path: Path, name: str) -> None:
    """Write a commented ``site.yaml`` for a hospital of that name.

    Raises:
        FileExistsError: there is one already.
        SiteMisconfigured: no hospital can have that name; nothing was written.
    """
    if not re.fullmatch(NAME, name):
        raise SiteMisconfigured(
            f"--name {name!r}: must be at most 40 letters, digits, - and _, no sign first; nothing was written"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(example(name))


def provision(settings: SiteSettings) -> list[Path]:
    """Create key, ledger and audit log if missing. Returns the created files.

    Raises:
        LedgerBroken: ledger or audit log was lost, so only a backup helps; or one cannot be opened.
        SiteMisconfigured: the secret was lost, or is readable by others.
        TermsChanged: the catalog's patients are counted in another ledger.
    """
    wanted = [settings.key, settings.ledger, settings.audit_log]
    missing = [path for path in wanted if not path.exists()]
    key = secret(settings)
    if settings.audit_log in missing:  # it is made last; an unused ledger alone is a founding that was interrupted
        ownership.claim(settings, None)
        create_records(settings.ledger, settings.audit_log, key, terms_of(settings))
    with open_records(settings.ledger, settings.audit_log, key) as records:
        ownership.claim(settings, records.ledger.account().id)
        return missing
