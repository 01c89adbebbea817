"""A published set of images with a table, as a source of a hospital.

What people publish has columns of any name, files without their endings, and classes in words. All that is wrong with a
set is told before anything is written.

Tested in ``tests/client/cli/test_importing.py``.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from client.errors import SiteMisconfigured
from client.pixels.refusal import UnreadableDicom
from client.reading.dicom import read_header
from client.setup import site_file
from client.setup.provisioning import provision
from client.setup.set_table import Files, columns, guess
from client.site import SiteSettings, load
from client.sources.files.manifest_rows import ManifestRow, label_words, manifest_rows, read_manifest
from client.sources.labels.rows import TextTable, listed, shown
from client.sources.settings import ManifestSource
from tasks import task as tasks
from tasks.answers import Answer, Classes, Grade, Measure
from tasks.machine.disk import write_secret, write_whole
from tasks.task import Task

_PREFIX = 132  # a DICOM file's preamble and "DICM" (PS3.10 7.1)
ASKED = {
    "file": "the image's file",
    "patient": "the patient (the file's column if every image counts as a patient of its own)",
    "label": "the label",
}
"""The columns that every set has."""


@dataclass(frozen=True)
class PublishedSet:
    """A table and the folder that its files are named from.

    Attributes:
        listing: the table's file.
        task: that its images are to teach.
    """

    listing: Path
    folder: Path
    task: Task
    table: TextTable
    files: Files

    def guess(self, what: str, taken: Iterable[str]) -> str:
        """The column that probably is the ``file``, ``patient``, ``label`` or ``split`` one, "" for none."""
        return guess(self.table, what, taken, self.files, self.task)

    def described(self) -> list[str]:
        """A line for each column: its name, and what is most frequent in it."""
        return [f"{one.name}: {', '.join(map(shown, one.texts))}" for one in columns(self.table)]

    def require_columns(self, said: Mapping[str, str]) -> None:
        """Refuse columns that are not there, and those of ``ASKED`` that nobody has named.

        Raises:
            SiteMisconfigured: all at once, with a guess for each.
        """
        problems, taken = [], [column for column in said.values() if column in self.table.columns]
        for what, column in said.items():
            if column and column not in self.table.columns:
                problems.append(f"--{what}: there is no column {shown(column)}")
            elif not column:
                best = self.guess(what, taken)
                taken.append(best)
                looks = f"; {best!r} looks like it" if best else ""
                problems.append(f"--{what} is missing: the column of {ASKED[what]}{looks}")
        if problems:
            lines = "\n  ".join(self.described())
            raise SiteMisconfigured(
                "\n".join(problems) + f"\nThe columns, and what is most frequent in each:\n  {lines}"
            )

    def unclear_words(self, plain: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Words of the label's column of which neither the source nor the task says what they mean, and how many rows
        have each."""
        source = _checked(plain)
        words = Counter(row[source.label_column].strip() for row in self.table.rows)
        known = label_words(source, self.task, words)
        return [(word, number) for word, number in words.most_common() if word and word.casefold() not in known]


@dataclass(frozen=True)
class Imported:
    """What becomes of a set.

    Attributes:
        source: as it stands in ``site.yaml``.
        rows: how many rows there are, and what became of them.
        notes: sentences that a person should read.
    """

    source: dict[str, Any]
    rows: dict[str, int]
    notes: list[str]


def opened(listing: Path, folder: Path | None, task: str) -> PublishedSet:
    """A set as it lies on disk.

    Raises:
        SiteMisconfigured: there is no such task or no file, or the table cannot be read.
    """
    if task not in tasks.names():
        raise SiteMisconfigured(f"--task: there is no task {task!r}; there are {', '.join(tasks.names())}")
    where = (folder or listing.parent).resolve()
    return PublishedSet(listing.resolve(), where, tasks.get(task), read_manifest(listing, []), Files(where))


def take(published: PublishedSet, plain: Mapping[str, Any], site: Path, settings: SiteSettings | None) -> Imported:
    """Check a set as a whole, and turn it into a source. Of DICOM files the labels file is written, beside
    ``site.yaml``.

    Args:
        plain: the fields of a ``ManifestSource``; an empty one counts as not said.
        settings: of the hospital, ``None`` if it does not exist yet.

    Raises:
        SiteMisconfigured: with all that is wrong.
    """
    source = _checked({key: value for key, value in plain.items() if value})
    rows = manifest_rows(source, published.task)
    notes = [_missing_files(source, rows), *_notes(published, source)]
    there = [row for row in rows if (source.path / row.file).is_file()]
    counts: Counter[str] = Counter(ROWS=len(rows), FILE_ABSENT=len(rows) - len(there))
    if there and _is_dicom(source.path / there[0].file):
        written = _as_dicom(source, there, published.task, site, counts)
    else:
        written = _as_derived(source, there, published.task, settings, counts)
    return Imported(written, dict(+counts), [note for note in notes if note])


def add(site: Path, source: Mapping[str, Any], name: str, task: Task) -> list[Path]:
    """Add the source to ``site.yaml``; a simulated hospital that does not exist yet is founded. Returns what was
    written.

    Raises:
        SiteMisconfigured: the file would no longer be valid.
    """
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


def _checked(plain: Mapping[str, Any]) -> ManifestSource:
    try:
        return ManifestSource.model_validate(plain)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise SiteMisconfigured("this is no source:\n  " + "\n  ".join(wrong)) from None


def _notes(published: PublishedSet, source: ManifestSource) -> Iterable[str]:
    named = (source.file_column, source.patient_column, source.label_column)
    if not source.split_column and (unused := published.guess("split", named)):
        yield f"Column {unused!r} looks like a published split; --split {unused} would keep it"
    if source.patient_column == source.file_column:
        yield "Every image counts as a patient of its own: two images of one person may be on both sides"


def _as_dicom(
    source: ManifestSource, rows: Sequence[ManifestRow], task: Task, site: Path, counts: Counter[str]
) -> dict[str, Any]:
    if source.split_column:
        raise SiteMisconfigured("--split: DICOM files are a hospital's own, whose key divides the patients")
    labels = site.resolve().parent / f"{source.manifest.stem}.labels.csv"
    if labels.exists():
        raise SiteMisconfigured(f"{labels} exists already; remove it if it is from an earlier attempt")
    counts.update(_write_dicom_labels(labels, source, rows, task))
    folder = {"kind": "folder", "task": task.name, "issuer": source.issuer, "path": str(source.path)}
    return folder | {"labels": str(labels)}


def _as_derived(
    source: ManifestSource,
    rows: Sequence[ManifestRow],
    task: Task,
    settings: SiteSettings | None,
    counts: Counter[str],
) -> dict[str, Any]:
    if settings is not None and not settings.simulated:
        raise SiteMisconfigured(
            f"{source.manifest} lists images that are not DICOM. They were derived for research and tell nothing of "
            "how they were acquired: only a hospital with `simulated: true` may have them. Give it a site.yaml of its "
            "own: --site NEW --name NAME"
        )
    counts.update(LABEL_LEFT_OUT=sum(row.left_out for row in rows), HELD_OUT=sum(row.held_out for row in rows))
    counts.update(dict.fromkeys(task.categories, 0))
    counts.update(task.categories_of(row.label for row in rows if row.label is not None and not row.held_out))
    return {"kind": "manifest", **source.model_dump(mode="json", exclude_defaults=True)}


def _absent(source: ManifestSource, rows: Iterable[ManifestRow]) -> list[str]:
    """The files of rows that are not there."""
    return [row.file for row in rows if not (source.path / row.file).is_file()]


def _is_dicom(path: Path) -> bool:
    """Whether a file is called or begins like DICOM."""
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(_PREFIX)[128:] == b"DICM"
    except OSError:
        return False


def _write_dicom_labels(path: Path, source: ManifestSource, rows: Iterable[ManifestRow], task: Task) -> dict[str, int]:
    """The labels file of a folder of DICOM files that a table lists, mode 0600.

    Volumes are labelled by StudyInstanceUID, images by SOPInstanceUID. A DICOM file says itself whose it is; where the
    table says otherwise, that is counted.

    Returns:
        How many rows were written (``labelled``), and why others were not.

    Raises:
        SiteMisconfigured: no file could be read.
    """
    key = "StudyInstanceUID" if task.sequences else "SOPInstanceUID"
    told: Counter[str] = Counter()
    people: dict[str, set[str]] = {}
    written: dict[str, list[str]] = {}
    for row in rows:
        if row.label is None:
            told["LABEL_LEFT_OUT" if row.left_out else "IMAGE_WITHOUT_LABEL"] += 1
            continue
        try:
            header = read_header(source.path / row.file)
        except UnreadableDicom as error:
            told[str(error.reason)] += 1
            continue
        uid = str(header.get(key, "") or "").strip()
        people.setdefault(row.patient, set()).add(str(header.get("PatientID", "") or ""))
        if uid:
            label = _cell(task.answer, row.label)
            findings = [
                "" if value is None else _cell(finding.answer, value)
                for finding, value in zip(task.secondary_findings, row.findings, strict=bool(row.findings))
            ]
            written.setdefault(uid + "\0" + label, [uid, label, *findings])
            told["labelled"] += 1
        else:
            told["NO_UID"] += 1
    if not written:
        raise SiteMisconfigured(f"no file that {source.manifest} lists could be read: {dict(told)}")
    told["patients that the table joins and the files do not"] = sum(len(some) > 1 for some in people.values())
    named = [finding.name for finding in task.secondary_findings] if source.finding_columns else []
    _write(path, [[key, "label", *named], *written.values()])
    return dict(+told)


def _cell(answer: Answer, truth: float) -> str:
    """A truth as a labels file says it."""
    if isinstance(answer, Classes | Grade):
        return answer.said(truth)
    return f"{truth:.9g} {answer.unit.value}" if isinstance(answer, Measure) else f"{truth:g}"


def _write(path: Path, rows: Iterable[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_secret(path, text.getvalue().encode())


def _missing_files(source: ManifestSource, rows: Sequence[ManifestRow]) -> str:
    """What to say about files that are not there; "" if all are.

    Raises:
        SiteMisconfigured: none is there.
    """
    gone = _absent(source, rows)
    if gone and len(gone) == len(rows):
        raise SiteMisconfigured(
            f"none of the {len(rows)} files that {source.manifest} lists is under {source.path}: {shown(gone[0])} for "
            "instance. Name the right folder with --folder, or say with --pattern how a cell becomes a file's name"
        )
    return (
        f"{len(gone)} of {len(rows)} files are not there:\n  {listed([shown(name) for name in gone])}" if gone else ""
    )
