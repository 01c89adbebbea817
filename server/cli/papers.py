"""The command ``consilium-server evidence``.

Tested in ``tests/server/evidence/test_papers.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import HERE, AsJson, HomeFolder, answer, table
from server.cli.server import QUIET
from server.deployment import security
from server.deployment.server_dir import read
from server.errors import ServerMisconfigured
from tasks.machine import evidence as papers
from tasks.machine.language import Language, say, spoken


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the papers.")],
    study: Annotated[str, typer.Option("--study", help="Only this study; otherwise all of them.")] = "",
    lang: Annotated[Language, typer.Option("--lang", help="Language of the papers.")] = "en",
    home: HomeFolder = HERE,
    as_json: AsJson = False,
) -> None:
    """Write papers for those who must sign: record of processing, attack risk, and outlines for each model.

    The outlines are of annex IV of the EU AI Act and of the FDA's change control plan. Each sentence names a check of
    `security`, the register, or a value in a study's files; what none tells is marked as missing. Not legal advice.
    """
    from server.evidence.installation import Server  # tasks are imported with it
    from server.evidence.papers import pack

    server_dir = read(home)
    if folder.exists():
        raise ServerMisconfigured(f"{folder} exists: name a folder that does not, so that nothing older is mixed in")
    found = Server.of(server_dir, security.checklist(server_dir, QUIET), study)
    with spoken(lang):
        made = pack(found)
        files = papers.write(folder, made)
        rows, facts = papers.summary(made)
        columns = (say("paper"), say("sentences"), say("missing"))
        shown = table(say("Evidence of {name}", name=server_dir.settings.host), columns, rows)
        where = say("Read {page}.", page=files[0])
    answer(as_json, facts | {"index": str(files[0])}, shown, where)
