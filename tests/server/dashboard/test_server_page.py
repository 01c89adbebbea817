"""The coordinator's page: what is on disk is shown, whatever of it is damaged, and on loopback only."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from server.cli.main import app
from server.dashboard.server_page import ServerPage, last_lines
from server.deployment.server_dir import Hospital, ServerDir, read
from server.deployment.study_logs import file_of
from tasks.machine.dashboard import LocalPage

RUN = CliRunner()
HOSTILE = "<script>alert(1)</script>\x1b[31m"


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    path = tmp_path / "home"
    assert RUN.invoke(app, ["init", "--host", "federation.example.org", "--home", str(path)]).exit_code == 0
    assert RUN.invoke(app, ["researcher", "rosalind", "--home", str(path)]).exit_code == 0
    made = read(path)
    made.register({"alder": Hospital("alder", 1, "ab12 cd34", "2026-11-30T10:00:00", 200)})
    for name, state, error in (("done-1", "finished", ""), ("torn-1", "failed", HOSTILE)):
        (made.path / "studies" / name / "federated").mkdir(parents=True)
        facts = {"study": name, "finished": False, "state": state, "asked_by": "rosalind", "run": 7, "error": error}
        (made.path / "studies" / name / "study.json").write_text(
            json.dumps(facts | {"config": {"federation": {"rounds": 9}}})
        )
        (made.path / "studies" / name / "federated" / "checkpoint.json").write_text(json.dumps({"rounds": [{}, {}]}))
    (made.path / "studies" / "broken").mkdir()
    (made.path / "studies" / "broken" / "study.json").write_text("{")
    (made.logs / file_of(7)).write_text("\n".join(f"round {n} {HOSTILE}" for n in range(40)))
    waiting = [{"run": 8, "study": "", "task": HOSTILE, "by": "rosalind", "since": "2026-11-30"}]
    (made.runs / "queue.json").write_text(json.dumps({"at_once": 5, "running": ["done-1"], "waiting": waiting}))
    return made


def words(html: str) -> str:
    return " ".join(re.sub(r"<style>.*</style>|<[^>]+>", " ", html).split())


def test_it_shows_studies_hospitals_queue_and_logs(home: ServerDir) -> None:
    html = ServerPage(home.path)()
    shown = words(html)
    assert "The server is not running" in shown
    assert "done-1 finished 2 of 9 rosalind" in shown
    assert "torn-1 failed 2 of 9 rosalind" in shown
    assert "broken damaged 0" in shown
    assert "alder unknown 2026-11-30 200 ab12 cd34" in shown
    assert "1 run 8" in shown
    assert "rosalind researcher" in shown
    assert "round 39" in shown
    assert "round 20" not in shown, "the last lines only"
    assert "nobody: set notify" in shown


def test_text_of_others_is_text(home: ServerDir) -> None:
    html = ServerPage(home.path)()
    assert "<script" not in html
    assert "\x1b" not in html


def test_what_is_damaged_hides_nothing_else(home: ServerDir) -> None:
    (home.runs / "queue.json").write_text("{")
    assert "Nothing runs, and nothing waits" in words(ServerPage(home.path)())
    (home.path / "hospitals.json").write_text("{")
    assert "restore it from your backup" in words(ServerPage(home.path)())


def test_a_long_log_is_read_from_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"x" * 10**6 + b"\nthe end \xff\n")
    assert last_lines(tmp_path / "log").splitlines()[-1] == "the end \N{REPLACEMENT CHARACTER}"
    (tmp_path / "log").write_bytes(b"")
    assert last_lines(tmp_path / "log") == ""


def test_it_is_served_on_loopback_only(home: ServerDir) -> None:
    refused = RUN.invoke(app, ["dashboard", "--home", str(home.path), "--listen", "0.0.0.0:0"])
    assert refused.exit_code == 2
    assert "this machine only" in refused.stderr
    with LocalPage("127.0.0.1:0", ServerPage(home.path)) as served:
        answer = httpx.get(served.url, trust_env=False)
        assert (answer.status_code, "done-1" in answer.text) == (200, True)
