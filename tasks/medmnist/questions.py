"""The tasks: an archive's table as a question, its answer and its codes.

Tested in ``tests/tasks/medmnist/test_tasks.py``.
"""

from __future__ import annotations

from tasks.answers import YES_OR_NO, Answer, Classes, Grade
from tasks.codes import Code
from tasks.medmnist.example import SIDE, VOLUME, augment, read_volume, reader_of
from tasks.medmnist.table import ARCHIVES, LabelledSet
from tasks.task import Finding, Sequence, Task

_SCHEME, _LONGEST = "99MEDMNIST", 64
_PROCEDURE = Code("SCT", "363679005", "Imaging")


def _code(name: str, number: int, label: str) -> Code:
    """Of a label: the set has no codes of its own."""
    return Code(_SCHEME, f"{name.replace('mnist', '')}-{number}", label.replace("_", " ").capitalize()[:_LONGEST])


def _answer(name: str, archive: LabelledSet) -> Answer:
    codes = tuple(_code(name, number, label) for number, label in enumerate(archive.labels))
    if archive.kind == "classes":
        return Classes(archive.labels, archive.event, codes)
    return Grade(archive.labels, archive.event[0], codes) if archive.kind == "grade" else YES_OR_NO


def _classes(archive: LabelledSet) -> tuple[str, str]:
    if archive.kind == "binary":
        return archive.labels[0], archive.labels[1]
    if archive.kind == "findings":
        return "no_finding", "finding"
    return ("other", archive.event[0]) if len(archive.event) == 1 else ("no_event", "event")


def _task(name: str, archive: LabelledSet) -> Task:
    findings = archive.labels if archive.kind == "findings" else ()
    return Task(
        name=name,
        question=archive.question,
        classes=_classes(archive),
        finding=_code(name, len(archive.labels), _classes(archive)[1]),
        procedure=_PROCEDURE,
        example_shape=(1, *(SIDE,) * 3) if archive.volumes else (archive.colours, SIDE, SIDE),
        example_version=1,
        read_example=read_volume if archive.volumes else reader_of(archive.colours),
        secondary_findings=tuple(Finding(label, _code(name, n, label)) for n, label in enumerate(findings)),
        sequences=(Sequence(VOLUME),) if archive.volumes else (),
        augment=None if archive.volumes else augment,
        answer=_answer(name, archive),
    )


TASKS = {name: _task(name, archive) for name, archive in ARCHIVES.items()}
