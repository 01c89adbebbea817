"""The command ``consilium-site evidence``.

Tested in ``tests/client/evidence/test_papers.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client.cli.link import LISTEN, GatewayAddress, require_address
from client.cli.output import HERE, AsJson, SiteFile, answer, opened, table
from client.errors import SiteMisconfigured
from client.evidence.installation import Books, Installation
from client.evidence.papers import pack
from client.link import security
from client.site import load
from tasks.machine import evidence as papers
from tasks.machine.disk import write_whole


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the papers.")],
    gateway: GatewayAddress = LISTEN,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Write papers for those who must sign: impact assessment, record of processing, what leaves, attack risk.

    Each sentence names a check of `security`, a row of ledger or audit log, or a line of site.yaml or of a study's
    document; what none of them tells is marked as missing. They are input, not legal advice, and stay in the hospital.
    """
    require_address(gateway)
    if folder.exists():
        raise SiteMisconfigured(f"{folder} exists: name a folder that does not, so that nothing older is mixed in")
    if not load(site).ledger.exists():
        raise SiteMisconfigured("there is no ledger here, which the papers rest on: run this where the trainer runs")
    checklist = security.checklist(load(site), site, gateway)
    with opened(site) as (settings, records):
        found = Installation(settings, site, checklist, Books.of(records, settings))
    made = pack(found)
    files = papers.write(folder, made)
    for name, lines in found.documents.items():
        (folder / "documents").mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / "documents" / name, "".join(f"{line}\n" for line in lines).encode(), 0o600)
    rows, facts = papers.summary(made)
    shown = table(f"Evidence of {settings.name}", ("paper", "sentences", "missing"), rows, ("sentences", "missing"))
    answer(as_json, facts | {"index": files[0]}, shown, f"Read {files[0]}. It stays in the hospital.")
