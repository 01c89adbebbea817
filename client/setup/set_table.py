"""The table of a published set: which column says what, and by which pattern it names its files.

Columns are guessed from their names and from what is in them; a guess is only ever proposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from client.errors import SiteMisconfigured
from client.sources.labels.rows import TextTable
from client.sources.settings import PUBLISHED_SIDES
from tasks.task import Task

_NAMES = {
    "file": r"file|image|img|path|scan|dicom|volume",
    "patient": r"patient|subject|case|participant|person|pid\b",
    "label": r"label|class|diagnos|target|finding|patholog|malignan|truth|outcome|grade",
    "split": r"split|subset|partition|\bset\b|\bpart\b|usage",
}
_MOST_WORDS = 20
"""A column with more distinct texts than this has no classes."""
_SAMPLE = 300


@dataclass(frozen=True)
class Column:
    """A column that may be asked for, and the texts that are most frequent in it."""

    name: str
    texts: tuple[str, ...]


def columns(table: TextTable) -> list[Column]:
    """The columns of a table, each with its most frequent texts."""
    counted = [(name, Counter(row[name].strip() for row in table.rows)) for name in table.columns]
    return [Column(name, tuple(text for text, _ in texts.most_common(4) if text)) for name, texts in counted]


def guess(table: TextTable, what: str, taken: Iterable[str], files: Files, task: Task) -> str:
    """The column that probably is the ``file``, ``patient``, ``label`` or ``split`` one; "" if none looks like it."""
    free = [name for name in table.columns if name not in set(taken) and any(row[name].strip() for row in table.rows)]
    if what == "file":
        found = {name: files.share(row[name] for row in table.rows[:_SAMPLE]) for name in free}
        best = max(found, key=lambda name: found[name], default="")
        return best if best and found[best] > 0.5 else _named(free, what)
    if what == "label":
        free = [name for name in free if len(_texts(table, name)) <= _MOST_WORDS]
        with_classes = [name for name in free if _texts(table, name) & {word.casefold() for word in task.categories}]
        return next(iter(with_classes), "") or _named(free, what)
    if what == "split":
        free = [name for name in free if _texts(table, name) & PUBLISHED_SIDES.keys()]
    return _named(free, what)


def _texts(table: TextTable, name: str) -> set[str]:
    return {row[name].strip().casefold() for row in table.rows}


def _named(names: Sequence[str], what: str) -> str:
    return next((name for name in names if re.search(_NAMES[what], name.casefold())), "")


class Files:
    """The files under a folder, by their names with and without folder and ending."""

    def __init__(self, folder: Path) -> None:
        """Go through the folder.

        Raises:
            SiteMisconfigured: there is no file in it.
        """
        self.folder = folder
        self.paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        if not self.paths:
            raise SiteMisconfigured(f"there is no file under {folder}; is this the folder of the images?")
        self._by_name: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            name = PurePosixPath(path).name
            for key in dict.fromkeys([name, _stem(name)]):
                self._by_name.setdefault(key, []).append(path)

    def share(self, cells: Iterable[str]) -> float:
        """The fraction of cells that name a file, 0 to 1."""
        found = [cell.strip() in self.paths or PurePosixPath(cell.strip()).name in self._by_name for cell in cells]
        return sum(found) / max(1, len(found))

    def pattern(self, rows: Sequence[Mapping[str, str]], column: str) -> str:
        """The pattern by which most rows name a file; ``{}`` if none is better.

        The cell may lack folder and ending; a folder on the way may be the text of another column.
        """
        found: dict[str, set[str]] = {}
        for row in rows[:_SAMPLE]:
            for pattern, path in self._patterns(row, column):
                found.setdefault(pattern, set()).add(path)
        return max(found, key=lambda one: (len(found[one]), one == "{}", -len(one)), default="{}")

    def _patterns(self, row: Mapping[str, str], column: str) -> Iterator[tuple[str, str]]:
        """Patterns by which a row names a file, and which."""
        cell = row[column].strip()
        if cell in self.paths:
            yield "{}", cell
        for path in self._by_name.get(PurePosixPath(cell).name, ()) if cell else ():
            before, found, ending = path.rpartition(cell)
            if not found:
                continue
            folders = [_escaped(part) for part in before.split("/")]
            yield f"{'/'.join(folders)}{{}}{_escaped(ending)}", path
            for name, text in row.items():
                if name != column and text.strip() in before.split("/")[:-1] and not set(name) & set("{}.[]!:"):
                    named = [f"{{{name}}}" if part == text.strip() else _escaped(part) for part in before.split("/")]
                    yield f"{'/'.join(named)}{{}}{_escaped(ending)}", path


def _stem(name: str) -> str:
    return name.removesuffix(".gz").rpartition(".")[0] or name


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
