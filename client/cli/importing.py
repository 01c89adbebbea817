"""Import a published set: one command from a folder of images and a table to a hospital's source.

Tested in ``tests/client/cli/test_importing.py``.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import click
import typer
import yaml
from pydantic import ValidationError

from client.cli.output import HERE, AsJson, SiteFile, answer, table
from client.cohort.remedies import WORDS
from client.errors import SiteMisconfigured
from client.setup import published_set, site_file
from client.setup.provisioning import provision
from client.site import load
from client.sources.files.manifest_rows import ManifestRow, label_words, manifest_rows, read_manifest
from client.sources.labels.rows import TextTable, shown
from client.sources.settings import PUBLISHED_SIDES, ManifestSource
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.task import Task

_ASKED = {
    "file": "the image's file",
    "patient": "the patient (the file's column if every image counts as a patient of its own)",
    "label": "the label",
}


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
    side: Annotated[
        list[str] | None, typer.Option("--side", help="WORD=train|validation|leave_out, of that column.")
    ] = None,
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
    asked = _task(task)
    settings = load(site) if site.exists() else None
    if settings is None and not name:
        raise SiteMisconfigured(f"{site} does not exist: name a simulated hospital with --name, or set --site PATH")
    where = (folder or listing.parent).resolve()
    text = read_manifest(listing, [])
    files = published_set.Files(where)
    said = _columns(text, files, asked, {"file": file, "patient": patient, "label": label})
    source: dict[str, Any] = {"kind": "manifest", "task": task, "issuer": settings.name if settings else name}
    source |= {"path": str(where), "table": str(listing.resolve())}
    source |= {f"{what}_column": column for what, column in said.items()}
    source |= {"file_pattern": pattern or files.pattern(text.rows, said["file"])}
    source |= {"positive": _words(positive), "negative": _words(negative), "left_out_labels": _words(leave_out)}
    source |= {"split_column": split, "split_sides": _pairs(side, "--side")}
    source |= {"mask_columns": _pairs(mask, "--mask"), "finding_columns": _pairs(finding, "--finding")}
    checked = _checked(source)
    _ask_words(text, checked, asked, source)
    checked = _checked({key: value for key, value in source.items() if value})
    rows = manifest_rows(checked, asked)
    note = published_set.missing_files(checked, rows)
    written, counts = _written(
        checked, rows, asked, site, settings is not None and settings.simulated, settings is None
    )
    made = _write(site, written, name, asked)
    shown_counts = [(word, number, WORDS.get(word, "")) for word, number in counts.items()]
    notes = [note] if note else []
    if split == "" and (unused := published_set.guess(text, "split", said.values(), files, asked)):
        notes.append(f"Column {unused!r} looks like a published split; --split {unused} would keep it")
    if said["patient"] == said["file"]:
        notes.append("Every image counts as a patient of its own: two images of one person may be on both sides")
    lines = [f"wrote {path}" for path in made]
    lines += [f"Note: {one}" for one in notes] + [f"Next: consilium-site ingest --site {site}"]
    answer(
        as_json,
        {"source": written, "rows": counts, "made": made, "notes": notes},
        table(f"{listing.name} for {task}", ("", "number", "what to do"), shown_counts, numbers=("number",)),
        yaml.safe_dump([written], sort_keys=False, allow_unicode=True),
        *lines,
    )


def _task(name: str) -> Task:
    if name not in tasks.names():
        raise SiteMisconfigured(f"--task: there is no task {name!r}; there are {', '.join(tasks.names())}")
    return tasks.get(name)


def _columns(text: TextTable, files: published_set.Files, task: Task, said: dict[str, str]) -> dict[str, str]:
    """The columns as said or asked for.

    Raises:
        SiteMisconfigured: some are said and not there, or not said and nobody can be asked; all at once.
    """
    problems = [
        f"--{what}: there is no column {shown(column)}"
        for what, column in said.items()
        if column and column not in text.columns
    ]
    found = {what: column for what, column in said.items() if column in text.columns}
    for what in said:
        if said[what]:
            continue
        best = published_set.guess(text, what, found.values(), files, task)
        if sys.stdin.isatty():
            found[what] = _ask(text, what, best)
        else:
            problems.append(
                f"--{what} is missing: the column of {_ASKED[what]}" + (f"; {best!r} looks like it" if best else "")
            )
            found |= {what: best} if best else {}
    if problems:
        has = "\n  ".join(f"{one.name}: {', '.join(map(shown, one.texts))}" for one in published_set.columns(text))
        raise SiteMisconfigured("\n".join(problems) + f"\nThe columns, and what is most frequent in each:\n  {has}")
    return {what: found[what] for what in said}


def _ask(text: TextTable, what: str, best: str) -> str:
    for one in published_set.columns(text):
        click.echo(f"  {one.name}: {', '.join(map(shown, one.texts))}", err=True)
    choice = click.Choice(list(text.columns))
    return str(
        click.prompt(f"Column of {_ASKED[what]}", type=choice, default=best or None, show_choices=False, err=True)
    )


def _ask_words(text: TextTable, source: ManifestSource, task: Task, said: dict[str, Any]) -> None:
    """Ask what each word of the label's column means that nobody has said; without a terminal it is an error later."""
    known = label_words(source, task)
    words = Counter(row[source.label_column].strip() for row in text.rows)
    strange = [word for word, _ in words.most_common() if word and word.casefold() not in known]
    if not sys.stdin.isatty() or len(strange) > len(PUBLISHED_SIDES):
        return
    meaning = {"yes": "positive", "no": "negative", "leave out": "left_out_labels"}
    for word in strange:
        question = f"{task.question} {shown(word)} ({words[word]} rows) means"
        said[meaning[click.prompt(question, type=click.Choice(list(meaning)), err=True)]].append(word)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(options: list[str] | None, name: str) -> dict[str, str]:
    pairs = [option.partition("=") for option in options or []]
    if wrong := [before for before, equals, after in pairs if not (before and equals and after)]:
        raise SiteMisconfigured(f"{name} needs NAME=VALUE, not {', '.join(map(shown, wrong))}")
    return {before.strip(): after.strip() for before, _, after in pairs}


def _checked(source: dict[str, Any]) -> ManifestSource:
    try:
        return ManifestSource.model_validate(source)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise SiteMisconfigured("this is no source:\n  " + "\n  ".join(wrong)) from None


def _written(
    source: ManifestSource, rows: list[ManifestRow], task: Task, site: Path, simulated: bool, new: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """The source as it is to stand in site.yaml, and what became of the rows."""
    there = [row for row in rows if (source.path / row.file).is_file()]
    counts: Counter[str] = Counter(ROWS=len(rows), FILE_ABSENT=len(rows) - len(there))
    if there and published_set.is_dicom(source.path / there[0].file):
        if source.split_column:
            raise SiteMisconfigured("--split: DICOM files are a hospital's own, whose key divides the patients")
        labels = site.resolve().parent / f"{source.manifest.stem}.labels.csv"
        if labels.exists():
            raise SiteMisconfigured(f"{labels} exists already; remove it if it is from an earlier attempt")
        counts.update(published_set.write_dicom_labels(labels, source, there, task))
        folder = {"kind": "folder", "task": task.name, "issuer": source.issuer, "path": str(source.path)}
        return folder | {"labels": str(labels)}, dict(+counts)
    if not (simulated or new):
        raise SiteMisconfigured(
            f"{source.manifest} lists images that are not DICOM. They were derived for research and tell nothing of "
            "how they were acquired: only a hospital with `simulated: true` may have them. Give it a site.yaml of "
            "its own: --site NEW --name NAME"
        )
    counts.update(LABEL_LEFT_OUT=sum(row.left_out for row in there), HELD_OUT=sum(row.held_out for row in there))
    for label, words in enumerate(task.classes):
        counts[words] = sum(row.label == label and not row.held_out for row in there)
    written = source.model_dump(mode="json", exclude_defaults=True)
    return {"kind": "manifest", **written}, dict(+counts)


def _write(site: Path, source: dict[str, Any], name: str, task: Task) -> list[Path]:
    """Add the source; a hospital that does not exist yet is founded."""
    if site.exists():
        text = site_file.with_source(site.read_text("utf-8"), source, site)
        draft = site.with_name(f".{site.name}.import")
        try:
            draft.write_text(text, "utf-8")
            load(draft)
        finally:
            draft.unlink(missing_ok=True)
        write_whole(site, text.encode())
        return [site]
    site.parent.mkdir(parents=True, exist_ok=True)
    model = "scatter_linear_3d" if task.sequences else "scatter_linear"
    text = site_file.with_source(site_file.simulated_example(name, task.name, model), source, site)
    with site.open("x", encoding="utf-8") as file:
        file.write(text)
    return [site, *provision(load(site))]
