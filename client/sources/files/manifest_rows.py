"""The rows of a manifest: what each says of its file, and everything that is wrong with them, at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from client.errors import SiteMisconfigured
from client.sources.labels.rows import TextTable, listed, names, read_table, shown
from client.sources.labels.table import (
    Findings,
    finding_of,
    label_of,
    meanings,
    permitted,
    permitted_findings,
    wrong_findings,
)
from client.sources.record import Side
from client.sources.settings import PUBLISHED_SIDES, ManifestSource
from client.sources.text_file import text_of
from tasks.answers import Answer, NoSuchAnswer
from tasks.task import Task

LEFT_OUT: Literal["leave_out"] = "leave_out"


@dataclass(frozen=True)
class ManifestRow:
    """One file of a manifest.

    Attributes:
        file: as the manifest names it, from the source's folder.
        patient: "" if the cell is empty.
        label: the truth of the task's question; ``None`` if the cell is empty or one of ``left_out_labels``.
        left_out: whether it is one of those.
        side: that the published split gives the patient, ``None`` where it gives none.
        held_out: whether the published split keeps the patient out of training and validation.
        findings: of the task's secondary findings, empty where the source names no column.
        masks: of each structure of the task the cell that names its files; empty where the source names no column.
    """

    file: str
    patient: str
    label: float | None
    left_out: bool
    side: Side | None
    held_out: bool
    findings: Findings
    masks: tuple[str, ...]


def read_manifest(table: Path, columns: Iterable[str]) -> TextTable:
    """A manifest with these columns; a CSV, or a TSV where its name says so.

    Raises:
        SiteMisconfigured: it cannot be read or lacks some of the columns.
    """
    text = read_table(table, delimiter="\t" if table.suffix.lower() == ".tsv" else "")
    if missing := sorted(set(columns) - set(text.columns)):
        has = names(text.columns) if text.columns else "none: it is empty"
        raise SiteMisconfigured(f"{table} lacks the column(s) {names(missing)}; it has {has}")
    return text


def manifest_rows(source: ManifestSource, task: Task) -> list[ManifestRow]:
    """The rows that belong to this source, in the file's order.

    Raises:
        SiteMisconfigured: the manifest cannot be read or lacks columns; or, all at once, rows name a file outside the
            folder, words that are no label or side, findings that are no answer, or a patient on two sides.
    """
    table = read_manifest(source.manifest, _columns(source))
    lines = dict(_mine(source, table))
    words = {cells[source.label_column] for cells in lines.values()}
    labels, parts = label_words(source, task, words), _sides(source)
    rows = {line: _row(source, task, cells, labels, parts) for line, cells in lines.items()}
    if wrong := [*_wrong_words(source, task, lines, labels, parts), *_wrong_rows(source, task, lines=lines, rows=rows)]:
        raise SiteMisconfigured(f"{source.manifest}:\n  " + "\n  ".join(wrong))
    sides = {row.patient: (row.side, row.held_out) for row in rows.values() if row.side or row.held_out}
    return [_on_side(row, *sides.get(row.patient, (None, False))) for row in rows.values()]


def _columns(source: ManifestSource) -> list[str]:
    split = [source.split_column] if source.split_column else []
    more = [*source.pattern_columns, *source.where, *source.finding_columns.values(), *source.mask_columns.values()]
    return [source.file_column, source.patient_column, source.label_column, *split, *more]


def _mine(source: ManifestSource, table: TextTable) -> Iterator[tuple[int, dict[str, str]]]:
    members = None if source.patients is None else {line.strip() for line in text_of(source.patients).splitlines()}
    for line, row in zip(table.lines, table.rows, strict=True):
        wanted = all(row[column] in values for column, values in source.where.items())
        if wanted and (members is None or row[source.patient_column].strip() in members):
            yield line, row


def label_words(source: ManifestSource, task: Task, words: Iterable[str]) -> dict[str, float | None]:
    """What each of some words of the label column means, in lower case; ``None`` for those whose images are not used.
    Of a yes-or-no question words that are not among them as well."""
    left_out: dict[str, float | None] = {word.strip().casefold(): None for word in source.left_out_labels}
    if task.answer.kind != "binary":
        texts = {word.strip().casefold(): word for word in words}
        named = {word.strip().casefold(): name for word, name in source.label_words.items()}
        read = {word: label_of(named.get(word, text), task.answer, task.classes) for word, text in texts.items()}
        return {word: truth for word, truth in read.items() if truth is not None} | left_out
    said: dict[str, float | None] = {**dict.fromkeys(source.positive, 1), **dict.fromkeys(source.negative, 0)}
    said |= left_out
    # What the source says goes before what the task says: its "1" may be the other class.
    return {**meanings(task.classes), **{word.strip().casefold(): meaning for word, meaning in said.items()}}


def _sides(source: ManifestSource) -> dict[str, str]:
    return {**PUBLISHED_SIDES, **{word.strip().casefold(): side for word, side in source.split_sides.items()}}


def _row(
    source: ManifestSource,
    task: Task,
    cells: dict[str, str],
    labels: Mapping[str, float | None],
    parts: Mapping[str, str],
) -> ManifestRow:
    """A row; a word without a meaning counts as an empty cell here and is an error elsewhere."""
    word = cells[source.label_column].strip().casefold()
    part = parts.get(cells.get(source.split_column, "").strip().casefold(), "")
    return ManifestRow(
        file=source.file_of(cells) if cells[source.file_column].strip() else "",
        patient=cells[source.patient_column].strip(),
        label=labels.get(word),
        left_out=word in labels and labels[word] is None,
        side=cast(Side, part) if part in ("train", "validation") else None,
        held_out=part == LEFT_OUT,
        findings=_findings(source, cells, task),
        masks=tuple(cells[source.mask_columns[one.name]] for one in task.structures if source.mask_columns),
    )


def _findings(source: ManifestSource, cells: dict[str, str], task: Task) -> Findings:
    if not source.finding_columns:
        return ()
    columns = [(source.finding_columns.get(finding.name), finding.answer) for finding in task.secondary_findings]
    try:
        return tuple(None if column is None else finding_of(cells[column], answer) for column, answer in columns)
    except NoSuchAnswer:
        return ()


def _wrong_words(
    source: ManifestSource,
    task: Task,
    lines: dict[int, dict[str, str]],
    labels: Mapping[str, float | None],
    parts: Mapping[str, str],
) -> Iterator[str]:
    """One sentence for each column with words that mean nothing: a set of 10,000 images has three of them, not 10,000
    faults."""
    if unknown := _unknown(source.label_column, labels, lines):
        yield (
            f"{source.label_column} has words that no class has: {unknown}. Say under `positive`, `negative` or "
            f"`left_out_labels` what each means; {', '.join(task.classes)}, 0 and 1 are known"
            if task.answer.kind == "binary"
            else f"{source.label_column} has words that are no answer: {unknown}. Say under `label_words` or "
            f"`left_out_labels` what each means; known is {permitted(task.answer, task.classes)}"
        )
    if source.split_column and (unknown := _unknown(source.split_column, parts, lines)):
        yield (
            f"{source.split_column} has words that no part of a split has: {unknown}. Say under `split_sides` whether "
            "each is train, validation or leave_out"
        )


def _unknown(column: str, known: Mapping[str, object], lines: dict[int, dict[str, str]]) -> str:
    words = Counter(cells[column].strip() for cells in lines.values())
    strange = [(word, n) for word, n in words.most_common() if word and word.casefold() not in known]
    more = f" and {len(strange) - 10} more" if len(strange) > 10 else ""
    return (
        ", ".join(f"{shown(word)} ({n}, first in line {_first(column, word, lines)})" for word, n in strange[:10])
        + more
    )


def _first(column: str, word: str, lines: dict[int, dict[str, str]]) -> int:
    return next(line for line, cells in lines.items() if cells[column].strip() == word)


def _wrong_rows(
    source: ManifestSource, task: Task, lines: dict[int, dict[str, str]], rows: dict[int, ManifestRow]
) -> Iterator[str]:
    answers = task.questions
    of_findings: dict[str, Answer] = {column: answers[name] for name, column in source.finding_columns.items()}
    unclear = [
        f"line {line}: {', '.join(wrong)}"
        for line, cells in lines.items()
        if (wrong := wrong_findings(cells, of_findings))
    ]
    if unclear:
        yield f"{permitted_findings(of_findings)}:\n  {listed(unclear)}"
    outside = [
        f"line {line}: {shown(name)}" for line, row in rows.items() for name in _paths(row) if not _is_inside(name)
    ]
    if outside:
        yield f"a file must be named from the folder {source.path}, and lie in it:\n  {listed(outside)}"
    if split := _on_two_sides(rows.values()):
        yield (
            f"{source.split_column} puts a patient into several parts, and nobody may be trained on and scored; "
            f"correct it, or tell patients apart by another column than {source.patient_column}:\n  {listed(split)}"
        )


def _paths(row: ManifestRow) -> Iterator[str]:
    yield row.file
    yield from (name.strip() for cell in row.masks for name in cell.split(";") if name.strip())


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def _on_two_sides(rows: Iterable[ManifestRow]) -> Sequence[str]:
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.patient and (row.side or row.held_out):
            parts[row.patient].add(row.side or LEFT_OUT)
    return [f"{shown(patient)}: {', '.join(sorted(some))}" for patient, some in parts.items() if len(some) > 1]


def _on_side(row: ManifestRow, side: Side | None, held_out: bool) -> ManifestRow:
    """The row with its patient's side, where only another row of the patient tells it."""
    return replace(row, side=side, held_out=held_out)
