"""Which ledger a catalog's patients are counted in: one only.

Tested in ``tests/client/oversight/test_premises.py``.
"""

from __future__ import annotations

from client.cohort import index
from client.errors import TermsChanged
from client.site import SiteSettings


def claim(site: SiteSettings, ledger: str | None) -> None:
    """Pass if the catalog's patients are counted in this ledger only; the first ledger to ask gets them.

    Two ledgers on one catalog, from a second ``site.yaml`` with another ledger, would each grant the same patients a
    full lifetime budget. Simulated hospitals share a catalog, and have no real patients.

    Args:
        ledger: the id of its first row; ``None`` for one that does not exist yet. Nothing happens before the first
            ingest.

    Raises:
        TermsChanged: another ledger has claimed the catalog.
    """
    if site.simulated or not index.path_of(site).exists():
        return
    with index.connected(site) as connection:
        owner = connection.execute("SELECT ledger FROM owner").fetchone()
        if owner is not None and owner[0] != ledger:
            raise TermsChanged(
                f"the patients of the catalog {site.catalog} are counted in a ledger other than {site.ledger}; two "
                "ledgers would each spend a full budget on them. Set `ledger` and `audit_log` in site.yaml to the "
                "first one, or restore it from a backup. If it is permanently lost, the data protection officer "
                "decides whether these patients may take part again; then delete the catalog and run: "
                "consilium-site ingest"
            )
        if owner is None and ledger is not None:
            with connection:
                connection.execute("INSERT INTO owner VALUES (?)", (ledger,))
