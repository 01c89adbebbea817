"""Gathers the site's pages from where they lie: a hook of MkDocs (``mkdocs.yml``).

Pages are the repository's Markdown files under their own paths. What they link to beside pages (a source file, a
picture) is copied as it is; a link to a folder leads to its README. A page ``reference/MODULE.md`` of the navigation is
the module's docstrings, which are read and not imported.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
REFERENCE = "reference/"
_LINK = re.compile(r"(?<=\]\()([^)#\s:]+)((?:#[^)\s]*)?)(?=\))")


def pages() -> list[str]:
    """Every Markdown file under version control, by its path."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.splitlines() if (ROOT / path).exists()]


def resolved(page: str, target: str) -> str:
    """The path that a link in a page means, from the root."""
    return normpath(str(PurePosixPath(page).parent / target))


def targets(page: str) -> Iterator[str]:
    """What a page links to in the repository."""
    for match in _LINK.finditer((ROOT / page).read_text("utf-8")):
        yield resolved(page, match[1])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages, what they link to, and the reference."""
    names = pages()
    wanted = dict.fromkeys([*names, *(target for page in names for target in targets(page))])
    for name in wanted:
        if (ROOT / name).is_file():
            files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    for entry in _entries(config.nav):
        if entry.startswith(REFERENCE):
            module = entry.removeprefix(REFERENCE).removesuffix(".md")
            files.append(File.generated(config, entry, content=f"# `{module}`\n\n::: {module}\n"))
    return files


def on_page_markdown(markdown: str, page: object, **_: object) -> str:
    """Let links to folders lead to their READMEs."""
    path: str = page.file.src_uri  # type: ignore[attr-defined]

    def led(match: re.Match[str]) -> str:
        readme = PurePosixPath(match[1]) / "README.md"
        return f"{readme}{match[2]}" if (ROOT / resolved(path, str(readme))).is_file() else match[0]

    return _LINK.sub(led, markdown)


def _entries(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, list | dict):
        for value in nav.values() if isinstance(nav, dict) else nav:
            yield from _entries(value)
