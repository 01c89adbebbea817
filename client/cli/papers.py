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
from tasks.machine.language import say, spoken


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the papers.")],
    gateway: GatewayAddress = LISTEN,
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Write papers for those who must sign: impact assessment, record of processing, what leaves, attack risk.

    Each sentence names a check of `security`, a row of ledger or audit log, or a line of site.yaml or of a study's
    document; what none of them tells is marked as missing. They are input, not legal advice, and stay in the hospital.
    They are in the language that `lang` of site.yaml names.
    """
    require_address(gateway)
    if folder.exists():
        raise SiteMisconfigured(f"{folder} exists: name a folder that does not, so that nothing older is mixed in")
    settings = load(site)
    if not settings.ledger.exists():
        raise SiteMisconfigured("there is no ledger here, which the papers rest on: run this where the trainer runs")
    checklist = security.checklist(settings, site, gateway)
    with opened(site) as (_, records):
        books = Books.of(records, settings)
    with spoken(settings.lang):  # with --json as well: the papers are for people
        found = Installation(settings, site, checklist, books)
        made = pack(found)
        files = papers.write(folder, made)
        rows, facts = papers.summary(made)
        columns = (say("paper"), say("sentences"), say("missing"))
        shown = table(say("Evidence of {name}", name=settings.name), columns, rows, columns[1:])
        where = say("Read {page}. It stays in the hospital.", page=files[0])
    for name, lines in found.documents.items():
        (folder / "documents").mkdir(mode=0o700, exist_ok=True)
        write_whole(folder / "documents" / name, "".join(f"{line}\n" for line in lines).encode(), 0o600)
    answer(as_json, facts | {"index": files[0]}, shown, where)
