"""The labels file: a CSV with a column that identifies what is labelled, a column ``label``, and secondary findings.

Tested in ``tests/client/sources/labels/test_rows.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydicom.datadict import tag_for_keyword

from client.errors import SiteMisconfigured
from client.sources.labels.rows import TextTable, listed, names, read_table, shown
from client.sources.visit import Sighting, Visit
from tasks.answers import YES_OR_NO, Answer, Measure, NoSuchAnswer
from tasks.task import Finding

Findings = tuple[float | None, ...]
"""For each of a task's secondary findings its truth, see ``tasks/answers.py``, or ``None`` if it is not known."""

KEYS = ("SOPInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")
"""DICOM keywords by which a row may identify its images, most specific first."""


@dataclass(frozen=True)
class Labels:
    """Labels by the value of one DICOM attribute.

    Attributes:
        path: of the file or folder that they come from.
        key: keyword of that attribute.
        values: the truth of the task's own question by its value, see ``tasks/answers.py``.
        left_out: what was wrong with the file, counted by reason.
        findings: secondary findings, likewise; who has none is not among them.
        warnings: sentences about what a person should look at.
        known_as: by which of the numbers here an image's patient is known who has another number now; "" if by none.
        successors: numbers into which some of those here were merged.
    """

    path: Path
    key: str
    values: dict[str, float]
    left_out: Counter[str]
    findings: dict[str, Findings] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    known_as: Callable[[Sighting], str] = lambda sighting: ""
    successors: frozenset[str] = frozenset()


def read_labels(
    path: Path, classes: tuple[str, str], secondary: Sequence[Finding] = (), answer: Answer = YES_OR_NO
) -> Labels:
    """Read a labels file.

    A label of a yes-or-no question is the name of a class, or 0 or 1; of another one what ``answer`` reads, a measured
    value with its unit behind it or in a column ``label_unit``. A row that repeats another is dropped; a key whose rows
    contradict each other has no label at all. Both are counted. A secondary finding is read likewise, or empty, in a
    column of its name, which may be missing; of several rows those that know it count, and it is not known where they
    contradict each other.

    Raises:
        SiteMisconfigured: the file cannot be read, has rows that are not as its header says, lacks a column, or has
            labels or findings that are no answer to their question, such as values beyond the declared range; with line
            numbers.
    """
    table = read_table(path)
    key = next((k for k in KEYS if k in table.columns), None)
    if key is None or "label" not in table.columns:
        has = f"it has {names(table.columns)}" if table.columns else "it is empty"
        raise SiteMisconfigured(f"{path} needs a column 'label' and one of {', '.join(KEYS)}; {has}")
    values, left_out = _collect(path, table, key, classes, secondary=secondary, answer=answer)
    findings, contradicted = _findings(table.rows, key, secondary)
    left_out += Counter(CONTRADICTING_FINDINGS=contradicted)
    return Labels(
        path=path,
        key=key,
        values=values,
        left_out=left_out,
        findings=findings,
        warnings=_unread_columns(path, set(table.columns), secondary),
    )


def following(labels: Labels, visit: Visit | None, issuer: str) -> Labels:
    """The labels, told whose numbers have changed; only labels by PatientID need that."""
    if labels.key != "PatientID" or visit is None:
        return labels
    successors = set[str]()
    for name in labels.values:
        while (name := visit.surviving.get(name, "")) and name not in successors:
            successors.add(name)
    known_as = visit.known_as(issuer, labels.values)
    return replace(labels, known_as=known_as, successors=frozenset(successors - labels.values.keys()))


def renamed(labels: Labels, seen: Iterable[Sighting]) -> Labels:
    """The labels under the numbers that their patients have now. A number into which patients with different labels
    were merged has none, which is counted as ``CONTRADICTING_LABEL_ROWS``."""
    if labels.key != "PatientID":
        return labels
    present: set[str] = set()
    before: dict[str, set[str]] = {}
    for one in seen:
        present.add(one.patient)
        if one.patient and one.patient not in labels.values and (name := labels.known_as(one)) in labels.values:
            before.setdefault(one.patient, set()).add(name)
    values, findings, left_out = dict(labels.values), dict(labels.findings), Counter(labels.left_out)
    for number, earlier in before.items():
        if len({labels.values[name] for name in earlier}) > 1:
            left_out["CONTRADICTING_LABEL_ROWS"] += 1
            continue
        values[number] = labels.values[min(earlier)]
        if min(earlier) in findings:
            findings[number] = findings[min(earlier)]
    for name in set().union(*before.values()) - present:
        del values[name]
    return replace(labels, values=values, findings=findings, left_out=left_out)


def meanings(classes: tuple[str, str]) -> dict[str, int]:
    """Permitted label texts of a yes-or-no question, in lower case, and the class each means."""
    return {"0": 0, "1": 1, classes[0].casefold(): 0, classes[1].casefold(): 1}


def label_of(text: str, answer: Answer, classes: tuple[str, str], unit: str = "") -> float | None:
    """The truth that a label says; ``None`` if it is none."""
    if answer.kind == "binary":
        return meanings(classes).get(text.strip().casefold())
    try:
        return _read(answer, text, unit)
    except NoSuchAnswer:
        return None


def permitted(answer: Answer, classes: tuple[str, str]) -> str:
    """What a label may say."""
    return f"one of {', '.join(classes)}, 0 or 1" if answer.kind == "binary" else answer.permitted


def finding_of(text: str | None, answer: Answer = YES_OR_NO, unit: str | None = None) -> float | None:
    """The truth in a finding's cell; ``None`` if it is empty.

    Raises:
        NoSuchAnswer: it says something else.
    """
    written = (text or "").strip()
    if not written:
        return None
    value = _read(answer, written, unit or "")
    return int(value) if answer.kind == "binary" else value


def _read(answer: Answer, text: str, unit: str) -> float:
    return answer.read(text, unit) if isinstance(answer, Measure) else answer.read(text)


def unit_of(column: str) -> str:
    """The column with the unit of a measured value's column."""
    return f"{column}_unit"


def wrong_findings(row: dict[str, str], columns: Mapping[str, Answer]) -> list[str]:
    """The cells of a row that are neither an answer to their column's question nor empty, as ``column='text'``."""
    wrong = []
    for column, answer in columns.items():
        try:
            finding_of(row.get(column), answer, row.get(unit_of(column)))
        except NoSuchAnswer:
            wrong.append(f"{column}={shown(row[column])}")
    return wrong


def permitted_findings(columns: Mapping[str, Answer]) -> str:
    """What the cells of findings may say, by column where they differ."""
    by_text: dict[str, list[str]] = {}
    for column, answer in columns.items():
        by_text.setdefault(answer.permitted, []).append(column)
    parts = [f"each of {', '.join(some)} must be {text}" for text, some in by_text.items()]
    return f"{'; '.join(parts)} or empty (not known)".replace("0 or 1 or empty", "0, 1 or empty")


def _collect(
    path: Path,
    table: TextTable,
    key: str,
    classes: tuple[str, str],
    *,
    secondary: Sequence[Finding],
    answer: Answer,
) -> tuple[dict[str, float], Counter[str]]:
    of_findings = {finding.name: finding.answer for finding in secondary}
    labels: list[tuple[str, float]] = []
    wrong: list[str] = []
    without = 0
    for line, row in zip(table.lines, table.rows, strict=True):
        name, text = row[key].strip(), row["label"].strip()
        label = label_of(text, answer, classes, row.get(unit_of("label"), ""))
        unclear = wrong_findings(row, of_findings)
        if name and not text and answer.kind != "binary":
            without += 1
        elif not name or label is None:
            unclear = [f"{key}={shown(name)}", f"label={shown(text)}", *unclear]
        else:
            labels.append((name, label))
        if unclear:
            wrong.append(f"line {line}: {', '.join(unclear)}")
    if wrong:
        rest = f"; {permitted_findings(of_findings)}" if of_findings else ""
        raise SiteMisconfigured(f"{path}: a label must be {permitted(answer, classes)}{rest}:\n  {listed(wrong)}")
    values, left_out = joined(labels)
    return values, left_out + Counter({"ROW_WITHOUT_LABEL": without})


def _findings(rows: list[dict[str, str]], key: str, secondary: Sequence[Finding]) -> tuple[dict[str, Findings], int]:
    """Secondary findings by key, and the number of contradictory rows."""
    seen: dict[str, list[set[float]]] = {}
    for row in rows:
        known = seen.setdefault(row[key].strip(), [set() for _ in secondary])
        for values, finding in zip(known, secondary, strict=True):
            value = finding_of(row.get(finding.name), finding.answer, row.get(unit_of(finding.name)))
            values.update(() if value is None else (value,))
    findings = {name: tuple(min(v) if len(v) == 1 else None for v in known) for name, known in seen.items()}
    contradicted = sum(len(values) > 1 for known in seen.values() for values in known)
    return {name: values for name, values in findings.items() if any(v is not None for v in values)}, contradicted


def _unread_columns(path: Path, columns: set[str], secondary: Sequence[Finding]) -> list[str]:
    """A misspelt finding would otherwise be lost silently; columns named like DICOM attributes are for people."""
    known = [finding.name for finding in secondary]
    read = {"label", *known} | {unit_of(name) for name in ("label", *known)}
    unread = sorted(c for c in columns - read if c and tag_for_keyword(c) is None)
    if not known or not unread:
        return []
    return [
        f"{path.name} has unused column(s) {names(unread)}; the secondary findings of this task are "
        f"called {', '.join(known)}"
    ]


def joined(labels: Iterable[tuple[str, float]]) -> tuple[dict[str, float], Counter[str]]:
    """Labels by name. Duplicates count once, contradictory labels are dropped; the number of each is counted."""
    values: dict[str, float] = {}
    contradicted: set[str] = set()
    left_out: Counter[str] = Counter()
    for name, label in labels:
        if name not in values:
            values[name] = label
        elif values[name] == label:
            left_out["DUPLICATE_LABEL_ROW"] += 1
        else:
            contradicted.add(name)
    left_out["CONTRADICTING_LABEL_ROWS"] += len(contradicted)
    return {k: v for k, v in values.items() if k not in contradicted}, +left_out
