"""What the papers rest on: checks, the register, and values in the files of studies.

Tested in ``tests/server/evidence/test_papers.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.deployment.server_dir import Hospital, ServerDir
from server.errors import ServerMisconfigured
from server.study.folder import FILE
from tasks.machine import evidence
from tasks.machine.checklist import Checklist
from tasks.machine.evidence import Basis, Sentence, checks_of, missing, said
from tasks.machine.language import say
from tasks.protocol.study import release

NUMBERS = "results.json"
_LONGEST = 300


@dataclass(frozen=True)
class StudyFiles:
    """A study's folder, as JSON values by file; a file that is not there, or cannot be read, has none."""

    path: Path
    values: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, path: Path) -> StudyFiles:
        values: dict[str, dict[str, Any]] = {}
        for name in (FILE, NUMBERS):
            with suppress(OSError, ValueError, RecursionError):
                values[name] = dict(json.loads((path / name).read_text("utf-8")))
        return cls(path, values)

    @property
    def name(self) -> str:
        return self.path.name

    def get(self, file: str, key: str) -> Any:
        """The value under a path with dots; ``None`` where there is none."""
        value: Any = self.values.get(file)
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


@dataclass
class Server:
    """Everything that a paper can rest on, and which of it was used."""

    server_dir: ServerDir
    checklist: Checklist
    studies: Sequence[StudyFiles]
    _used: dict[str, Basis] = field(default_factory=dict)

    @classmethod
    def of(cls, server_dir: ServerDir, checklist: Checklist, only: str = "") -> Server:
        """All studies, or one.

        Raises:
            ServerMisconfigured: there is no study of that name.
        """
        paths = sorted(path.parent for path in (server_dir.path / "studies").glob(f"*/{FILE}"))
        if only and only not in [path.name for path in paths]:
            raise ServerMisconfigured(f"no study {only} in {server_dir.path / 'studies'}: consilium-server status")
        return cls(server_dir, checklist, [StudyFiles.of(path) for path in paths if only in ("", path.name)])

    def checked(self, text: str, *promises: str) -> Sentence:
        """A sentence that rests on all checks whose claims begin so; missing where there is none."""
        keys = checks_of(self.checklist, promises)
        if not keys:
            return missing(
                say("whether the following holds; what it is of does not run here, so nothing checked it: {text}",
                    text=text)
            )  # fmt: skip
        return said(text, *keys)

    def value(self, study: StudyFiles, file: str, key: str) -> str:
        """The key of a value in a study's file.

        Raises:
            KeyError: it has none.
        """
        value = study.get(file, key)
        if value is None:
            raise KeyError(f"{file}: {key}")
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} …"
        text = f"studies/{study.name}/{file}: {key} = {shown}"
        number = next((u.key for u in self._used.values() if u.text == text), None)
        path = study.path.relative_to(self.server_dir.path) / file
        return number or self._use(
            Basis(f"V{len(self._used) + 1}", say("Values in files of studies"), text, f"less {path}")
        )

    def told(self, text: str, study: StudyFiles, *keys: str, file: str = FILE) -> Sentence:
        """A sentence on values of a study's file; missing where the file has none of them."""
        there = [key for key in keys if study.get(file, key) is not None]
        if not there:
            return missing(
                say("{keys}: {file} of {study} does not say it.", keys=", ".join(keys), file=file, study=study.name)
            )
        return said(text, *(self.value(study, file, key) for key in there))

    def hospital(self, one: Hospital) -> str:
        """The key of a hospital in the register."""
        key = f"H{[each.key for each in self.server_dir.ever_admitted()].index(one.key) + 1}"
        facts = {"name": one.name, "key": one.key, "admitted": one.admitted}
        text = say("hospitals.json: {name}, key {key}, admitted {admitted}", **facts)
        if one.revoked:
            text = say(
                "hospitals.json: {name}, key {key}, admitted {admitted}, revoked {revoked}",
                **facts, revoked=one.revoked)  # fmt: skip
        return self._use(Basis(key, say("Register of hospitals"), text, "consilium-server status"))

    def setting(self, name: str) -> str:
        """The key of a setting of ``server.yaml``."""
        text = f"server.yaml: {name}: {getattr(self.server_dir.settings, name)}"
        return self._use(Basis(f"Y-{name.replace('_', '-')}", say("Settings"), text, "less server.yaml"))

    def page(self, file: str) -> str:
        """The key of a page that comes with the release."""
        key = "P-" + file.replace("/", "-").removesuffix(".md")
        text = say("{file} of release {release}", file=file, release=release())
        return self._use(Basis(key, say("Pages of the release"), text))

    def bases(self) -> list[Basis]:
        """All checks, and what else was used."""
        return [*evidence.of_checks(self.checklist), *self._used.values()]

    def _use(self, basis: Basis) -> str:
        self._used[basis.key] = basis
        return basis.key


def by_hospital(study: StudyFiles, key: str) -> Iterator[tuple[str, Any]]:
    """A table of ``results.json`` by hospital."""
    table = study.get(NUMBERS, key)
    yield from table.items() if isinstance(table, dict) else ()
