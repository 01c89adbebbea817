"""The documentation builds without a warning: no link or anchor leads nowhere, no page is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documentation.gather import ROOT, pages, resolved, targets

LEFT_OUT = {"tasks/template/labels.md"}  # of no task yet


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    words = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        str(ROOT / "mkdocs.yml"),
        "--site-dir",
        str(folder),
    ]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=quiet, cwd=ROOT, timeout=300, check=False)


def test_the_site_builds_and_nothing_on_it_comes_from_elsewhere(tmp_path: Path) -> None:
    ended = build(tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.html")}
    expected = {page.removesuffix(".md") + ".html" for page in pages()}
    assert {page.replace("README.html", "index.html") for page in expected} <= made
    assert (tmp_path / "server" / "round.svg").exists()
    text = (tmp_path / "reference" / "server.api.html").read_text("utf-8")
    assert "load_model" in text
    assert re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?://[^"]+"', text) == []


def test_every_page_has_its_place(tmp_path: Path) -> None:
    nav = (ROOT / "mkdocs.yml").read_text("utf-8")
    assert {page for page in pages() if f": {page}\n" not in nav} == LEFT_OUT


@pytest.mark.parametrize("page", pages())
def test_links_lead_to_something_in_the_repository(page: str) -> None:
    assert [target for target in targets(page) if not (ROOT / target).exists()] == []


def test_what_a_link_means() -> None:
    assert resolved("client/README.md", "../server/README.md") == "server/README.md"
    assert resolved("README.md", "client/report.py") == "client/report.py"
