"""`client/APPROVING.md` followed, command by command, on a hospital of phantoms."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from tasks.protocol.study import StudyDocument, canonical, digest
from tests.client.hospital import Hospital, draw_archive

PAGE = (Path(__file__).parents[3] / "client" / "APPROVING.md").read_text("utf-8")
WRITTEN = "3f9a41c20b7d"
"""The digest on the page, where a reader's own stands."""


def commands() -> list[list[str]]:
    """The page's commands in their order, as words after ``consilium-site``."""
    blocks = "\n".join(re.findall(r"```\n(.*?)```", PAGE, re.DOTALL))
    return [shlex.split(line, comments=True)[1:] for line in blocks.splitlines() if line.startswith("consilium-site")]


@pytest.fixture
def hospital(tmp_path: Path) -> Hospital:
    return Hospital.provision(tmp_path, draw_archive(tmp_path / "archive"))


def test_every_step_of_the_page_does_what_it_says(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(canonical(document), "utf-8")
    own = {WRITTEN: digest(document)[:12], "study.json": str(tmp_path / "study.json"), "NAME": document.name}
    done: dict[str, str] = {}
    for words in commands():
        if words[0] in ("dashboard", "evidence"):  # the one waits for a browser, the other for running programs
            continue
        result = CliRunner().invoke(app, [*(own.get(word, word) for word in words), "--site", str(hospital.file)])
        assert result.exit_code == 0, (words, result.output)
        done[" ".join(words[:2])] = result.output
    review = done["review study.json"]
    headings = re.findall(r"^\| ([A-Z][^|]+?) \|", PAGE, re.MULTILINE)
    assert len(headings) == 6
    assert [heading for heading in headings if heading not in review] == []
    assert own[WRITTEN] in review
    assert "Dr. A. Example" in done[f"approve {WRITTEN}"]
    assert "evoked" in done[f"revoke {WRITTEN}"]
    assert hospital.settings.stop_file.exists()
