"""Extract what is said to people, and bring the catalogues up to date: ``make catalogues``.

New messages come in untranslated, which ``tests/tasks/machine/test_language.py`` refuses; those that nobody says any
longer go. Nothing is guessed: a translation belongs to one message exactly.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tasks" / "machine" / "catalogues"
LOCALES = ("de", "zh_CN")
_KEYWORDS = {"say": None, "say_many": (1, 2), "later": None, "gettext": None, "ngettext": (1, 2), "_": None}
_HEADER = "# Consilium's texts for people. Extracted by `make catalogues`; translated by hand.\n#"


def messages() -> Catalog:
    """Every message of the source, with the files that say it; ids of plurals are pairs."""
    catalog = Catalog(fuzzy=False)
    for file, message in (*_in_source(), *_elsewhere()):
        catalog.add(message, locations=[(file, 0)])
    return catalog


def _in_source() -> Iterator[tuple[str, str | tuple[str, ...]]]:
    for package in ("client", "server", "tasks"):
        for path in sorted((ROOT / package).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".j2":
                found = extract_from_file("jinja2.ext:babel_extract", path, _KEYWORDS, options={"trimmed": "true"})
            elif path.suffix == ".py" and _speaks(path):
                found = extract_from_file(_calls, path, _KEYWORDS)
            else:
                continue
            for _, message, *_rest in found:
                yield name, message


def _calls(
    file: IO[bytes], keywords: Mapping[str, object], tags: object, options: object
) -> Iterator[tuple[int, str, tuple[str | None, ...], list[str]]]:
    """Babel's method for Python finds no call within an f-string; the syntax tree has them all."""
    calls = [node for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
        if isinstance(node.func, ast.Name) and node.func.id in keywords:
            texts = [each.value if isinstance(each, ast.Constant) else None for each in node.args]
            yield node.lineno, node.func.id, tuple(text if isinstance(text, str) else None for text in texts), []


def _speaks(path: Path) -> bool:
    return path.name == "language.py" or "machine.language import" in path.read_text("utf-8")


def _elsewhere() -> Iterator[tuple[str, str]]:
    """What is said without a call that names it: of each task, and of each reason why an image is not used."""
    from client.cohort import remedies
    from client.oversight.settings import MEANINGS
    from server.pages import reporting
    from server.pages.report import EXPLAINED
    from server.results import answers, console
    from tasks import contract as contracts
    from tasks import task as tasks
    from tasks.metrics import foresight
    from tasks.protocol import survey
    from tasks.task import QUESTION

    for name in tasks.names():
        if not (ROOT / "tasks" / name / "__init__.py").exists():
            continue  # a set of MedMNIST: only simulated hospitals are asked about it
        task = tasks.get(name)
        parts = [*task.questions, *(structure.label for structure in task.structures)]
        names = [each for answer in task.questions.values() for each in getattr(answer, "names", ())]
        for word in (*task.classes, *names, *parts):
            if word != QUESTION:
                yield f"tasks/{name}/__init__.py", word.replace("_", " ")
        yield f"tasks/{name}/__init__.py", task.question
        for rule in contracts.of_task(name).rules:
            if rule.remedy:
                yield f"tasks/{name}/contract.yaml", rule.remedy
    for remedy in remedies.WORDS.values():
        yield "client/cohort/remedies.py", remedy
    for meaning in MEANINGS.values():
        yield "client/oversight/settings.py", meaning
    for text in EXPLAINED.values():
        yield "server/pages/report.py", text
    for item in (*reporting.ITEMS, *reporting.WHERE.values()):
        for text in (item,) if isinstance(item, str) else (item.asks, item.where, item.missing):
            if text:
                yield "server/pages/reporting.py", text
    for name in (*console.WORDS.values(), *(figure for each in answers.FIGURES.values() for figure in each)):
        yield "server/results/console.py", console.WORDS.get(name, name)
    for word in survey.WORDS.values():
        yield "tasks/protocol/survey.py", word
    for figure in (*foresight.FORESEEN.values(), foresight.ASSUMED_ANSWERS):
        yield "tasks/metrics/foresight.py", figure


def read(locale: str) -> Catalog:
    """A catalogue as it stands; empty where there is none yet."""
    path = FOLDER / f"{locale}.po"
    return read_po(BytesIO(path.read_bytes()), locale=locale) if path.exists() else Catalog(locale)


def write(catalog: Catalog, locale: str) -> None:
    """A catalogue in order of its files, without line numbers: they would change with every edit."""
    text = BytesIO()
    write_po(text, catalog, width=120, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
    (FOLDER / f"{locale}.po").write_bytes(text.getvalue())


def main() -> None:
    """Bring every catalogue up to date, and tell what it misses."""
    current = messages()
    for locale in LOCALES:
        old, new = read(locale), Catalog(locale, project="Consilium", fuzzy=False, header_comment=_HEADER)
        new.creation_date = new.revision_date = old.creation_date
        for message in current:
            if message.id:
                kept = old.get(message.id if isinstance(message.id, str) else message.id[0])
                new.add(message.id, kept.string if kept and kept.id == message.id else None, message.locations)
        write(new, locale)
        missing = sum(1 for message in new if message.id and not _translated(message.string))
        print(f"{locale}: {len(new)} messages, {missing} to translate")


def _translated(string: object) -> bool:
    return all(string) if isinstance(string, tuple) else bool(string)


if __name__ == "__main__":
    main()
