"""Import a published set: one command from a folder of images and a table to a hospital's source."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
import typer
import yaml
from rich.console import RenderableType

from client.cli.output import HERE, AsJson, SiteFile, answer, table
from client.cohort.remedies import WORDS
from client.errors import SiteMisconfigured
from client.setup import published_set
from client.setup.published_set import PublishedSet
from client.site import load

_MOST_ASKED = 12
"""With more words that mean nothing yet, the column is probably not the label's."""
_MEANINGS = {"yes": "positive", "no": "negative", "leave out": "left_out_labels"}


def import_set(
    listing: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV or TSV, one line an image.")],
    task: Annotated[str, typer.Option("--task", help="The clinical question, a folder of tasks/.")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Folder of the images. Default: the table's.")] = None,
    file: Annotated[str, typer.Option("--file", help="Column that names the image's file.")] = "",
    patient: Annotated[str, typer.Option("--patient", help="Column that tells patients apart.")] = "",
    label: Annotated[str, typer.Option("--label", help="Column with the label.")] = "",
    positive: Annotated[str, typer.Option("--positive", help="Words that mean yes, with commas between.")] = "",
    negative: Annotated[str, typer.Option("--negative", help="Words that mean no.")] = "",
    leave_out: Annotated[str, typer.Option("--leave-out", help="Words of images that are not used.")] = "",
    split: Annotated[str, typer.Option("--split", help="Column of the published split, to keep it.")] = "",
    side: Annotated[list[str] | None, typer.Option("--side", help="WORD=train|validation|leave_out, of it.")] = None,
    pattern: Annotated[str, typer.Option("--pattern", help="How a file is named, such as 'images/{}.png'.")] = "",
    mask: Annotated[list[str] | None, typer.Option("--mask", help="STRUCTURE=COLUMN of mask files.")] = None,
    finding: Annotated[list[str] | None, typer.Option("--finding", help="FINDING=COLUMN with 0, 1 or nothing.")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the simulated hospital, if there is no site.yaml.")] = "",
    site: SiteFile = HERE,
    as_json: AsJson = False,
) -> None:
    """Make a published set of images a source of this hospital: PNG, JPEG, clips, NIfTI or DICOM with a CSV.

    What is not said is asked for, or, without a terminal, named all at once with a guess. Images that are not DICOM are
    derived data: only a simulated hospital may have them. Without a site.yaml one is written, ready for `ingest`.
    """
    settings = load(site) if site.exists() else None
    if settings is None and not name:
        raise SiteMisconfigured(f"{site} does not exist: name a simulated hospital with --name, or set --site PATH")
    published = published_set.opened(listing, folder, task)
    column = _columns(published, {"file": file, "patient": patient, "label": label})
    source: dict[str, Any] = {"kind": "manifest", "task": task, "issuer": settings.name if settings else name}
    source |= {"path": str(published.folder), "table": str(published.listing)}
    source |= {f"{what}_column": name for what, name in column.items()}
    source |= {"file_pattern": pattern or published.files.pattern(published.table.rows, column["file"])}
    source |= {"positive": _words(positive), "negative": _words(negative), "left_out_labels": _words(leave_out)}
    source |= {"split_column": split, "split_sides": _pairs(side, "--side")}
    source |= {"mask_columns": _pairs(mask, "--mask"), "finding_columns": _pairs(finding, "--finding")}
    _ask_words(published, source)
    imported = published_set.take(published, source, site, settings)
    made = published_set.add(site, imported.source, name, published.task)
    _tell(imported, made, site, as_json)


def _tell(imported: published_set.Imported, made: list[Path], site: Path, as_json: bool) -> None:
    counted = [(word, number, WORDS.get(word, "")) for word, number in imported.rows.items()]
    shown: list[RenderableType] = [
        table("What became of the rows", ("", "number", "what to do"), counted, numbers=("number",)),
        yaml.safe_dump([imported.source], sort_keys=False, allow_unicode=True),
        *(f"wrote {path}" for path in made),
        *(f"Note: {one}" for one in imported.notes),
        f"Next: consilium-site ingest --site {site}",
    ]
    facts = {"source": imported.source, "rows": imported.rows, "made": made, "notes": imported.notes}
    answer(as_json, facts, *shown)


def _columns(published: PublishedSet, said: Mapping[str, str]) -> dict[str, str]:
    """The columns as said or asked for."""
    found = dict(said)
    if sys.stdin.isatty():
        for what in [what for what, column in said.items() if not column]:
            found[what] = _ask(published, what, published.guess(what, filter(None, found.values())))
    published.require_columns(found)
    return found


def _ask(published: PublishedSet, what: str, best: str) -> str:
    for line in published.described():
        click.echo(f"  {line}", err=True)
    choice, question = click.Choice(published.table.columns), f"Column of {published_set.ASKED[what]}"
    return str(click.prompt(question, type=choice, default=best or None, show_choices=False, err=True))


def _ask_words(published: PublishedSet, source: dict[str, Any]) -> None:
    """Ask what each word of the label's column means that nobody has said; without a terminal it is an error later."""
    unclear = published.unclear_words(source) if sys.stdin.isatty() else []
    for word, number in unclear if len(unclear) <= _MOST_ASKED else []:
        question = f"{published.task.question} {word!r} ({number} rows) means"
        source[_MEANINGS[click.prompt(question, type=click.Choice(list(_MEANINGS)), err=True)]].append(word)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(options: list[str] | None, name: str) -> dict[str, str]:
    pairs = [option.partition("=") for option in options or []]
    if wrong := [before for before, equals, after in pairs if not (before and equals and after)]:
        raise SiteMisconfigured(f"{name} needs NAME=VALUE, not {', '.join(map(repr, wrong))}")
    return {before.strip(): after.strip() for before, _, after in pairs}
