"""Creates a new task's files from those of the task ``template``: ``consilium new-task NAME --kind KIND``."""

from __future__ import annotations

import keyword
import re
import shutil
from pathlib import Path

from tasks.answers import Answer, Classes, Grade, Kind, Measure
from tasks.template import TASK as TEMPLATE

ROOT = Path(__file__).parents[1]
_PLACES = ("tasks", "tasks/phantoms", "tests/tasks/phantoms")
"""Where a task has a folder of its name, and the template one to copy."""
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40
_HEAD = ["| task | question | classes |", "|---|---|---|"]
_NAMED = """\
        names=("none", "mild", "severe"),
        event=EVENT,
        codes=(
            Code("SCT", "260413007", "None"),
            Code("SCT", "255604002", "Mild"),
            Code("SCT", "24484000", "Severe"),
        ),
"""
_MEASURED = """\
        code=Code("SCT", "410668003", "Length"),
        unit=Code("UCUM", "mm", "millimeter"),
        low=0.0,
        high=50.0,
        event_above=20.0,
        units=(("cm", 10.0),),
"""
_ANSWERS: dict[Kind, tuple[type[Answer], str]] = {
    "classes": (Classes, _NAMED.replace("EVENT", '("severe",)')),
    "grade": (Grade, _NAMED.replace("EVENT", '"severe"')),
    "measure": (Measure, _MEASURED),
}
"""Of each kind but yes or no: its class, and how a new task declares it."""
_PERMITTED: dict[Kind, str] = {
    "classes": "one of none, mild, severe",
    "grade": "0 to 2 or one of none, mild, severe",
    "measure": "a number in mm, 0 to 50, or with its unit, one of mm, cm",
}
"""What its labels may say."""
_OWN = re.compile(r"\btemplate\b")


class NewTaskRefused(ValueError):
    """Nothing was written; the message has every reason, one per line, with the remedy."""


def create(name: str, root: Path = ROOT, kind: Kind = "binary") -> list[Path]:
    """Write a task that passes ``tests/tasks/test_every_task.py`` as it is, with a placeholder for its question.

    Args:
        name: of the task and its folder: lower-case letters, digits and underscores.
        root: of a checkout of the source.
        kind: of its answer, see ``tasks/answers.py``.

    Returns:
        What was written: the task's folder, those of its phantoms and their tests, its choice in ``conf/task/``, and
        the table of tasks with its new row.

    Raises:
        NewTaskRefused: the name is invalid or taken, or ``root`` is not a checkout.
        OSError: it cannot be written; what was written before is removed.
    """
    folder, phantoms, tests = (root / place / name for place in _PLACES)
    choice, table = root / "conf" / "task" / f"{name}.yaml", root / "tasks" / "README.md"
    if problems := [*_checkout(root, table), *_naming(name), *_taken(name, [folder, phantoms, tests, choice])]:
        raise NewTaskRefused("\n".join(problems))
    rows = _with_row(table.read_text("utf-8"), name)
    try:
        for place in _PLACES:
            _copy(root / place / "template", root / place / name, name)
        if kind != "binary":
            _declare(folder, kind)
        choice.write_text(f"defaults: [_task]\nname: {name}\n", "utf-8")
        table.write_text(rows, "utf-8")
    except OSError:
        for made in (folder, phantoms, tests):
            shutil.rmtree(made, ignore_errors=True)
        choice.unlink(missing_ok=True)
        raise
    return [folder, phantoms, tests, choice, table]


def _checkout(root: Path, table: Path) -> list[str]:
    templates = [root / place / "template" for place in _PLACES]
    wanted = [templates[0] / "labels.md", *templates[1:], root / "conf" / "task"]
    missing = [str(path) for path in wanted if not path.exists()]
    if missing:
        return [f"{root} is not a checkout of Consilium's source, it lacks {', '.join(missing)}: set --root FOLDER"]
    if "\n".join(_HEAD) not in table.read_text("utf-8"):
        return [f"{table} has no table that begins with {_HEAD[0]!r}: restore it, the new task's row goes there"]
    return []


def _naming(name: str) -> list[str]:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        return [
            f"{name!r} cannot name a task: use at most {_LONGEST} lower-case letters, digits and single underscores, a "
            "letter first, and no Python keyword, such as thyroid_ultrasound"
        ]
    return []


def _taken(name: str, paths: list[Path]) -> list[str]:
    modules = [path.with_suffix(".py") for path in paths if path.suffix == ""]
    there = [str(path) for path in (*paths, *modules) if path.exists() and _NAME.fullmatch(name)]
    return [f"{', '.join(there)} already exists, and nothing is overwritten; choose another name"] if there else []


def _with_row(text: str, name: str) -> str:
    """The text with one more row in the table of tasks, in the order of names."""
    lines = text.split("\n")
    start = lines.index(_HEAD[0]) + len(_HEAD)
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith("|"))
    row = f"| `{name}` | {TEMPLATE.question} | {TEMPLATE.classes[0]}, {TEMPLATE.classes[1]} |"
    return "\n".join(
        [*lines[:start], *sorted([*lines[start:end], row], key=lambda line: line.split("`")[1]), *lines[end:]]
    )


def _declare(folder: Path, kind: Kind) -> None:
    """Give a new task an answer of another kind than yes or no."""
    init, labels = folder / "__init__.py", folder / "labels.md"
    answer, arguments = _ANSWERS[kind]
    imported = f"from tasks.answers import {answer.__name__}\nfrom tasks.codes"
    start = init.read_text("utf-8").replace("from tasks.codes", imported, 1).rpartition(")")[0]
    declared = f"    answer={answer.__name__}(  # CHANGE, here and in labels.md\n{arguments}    ),\n"
    init.write_text(f"{start}{declared})\n", "utf-8")
    card = labels.read_text("utf-8")
    labels.write_text(card.replace("\n\nCHANGE", f"\n**Answer.** {_PERMITTED[kind]}.\n\nCHANGE", 1), "utf-8")


def _copy(template: Path, folder: Path, name: str) -> None:
    folder.mkdir()
    for path in sorted(template.iterdir()):
        if path.is_file():
            (folder / path.name).write_text(_OWN.sub(name, path.read_text("utf-8")), "utf-8")
