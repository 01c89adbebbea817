"""Each matter is told once, again when it gets worse, and when it is over; a hook that fails disturbs nothing."""

from __future__ import annotations

import http.server
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.machine import notices
from tasks.machine.notices import Hook, Notice, Notifier, deliver

WRITES = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_PAUSES_S", (3600.0,))
    monkeypatch.setattr(notices, "_SETTLED_S", 0.0)


def notice(level: int = 1, about: str = "alder", ends: bool = True) -> Notice:
    return Notice("hospital", about, level, f"{about} is lost", ends)


def writing(path: Path) -> Hook:
    return Hook(command=[sys.executable, "-c", WRITES, str(path)])


def told(path: Path) -> list[list[tuple[str, str]]]:
    """The states and subjects of each message."""
    if not path.exists():
        return []
    messages = [json.loads(line) for line in path.read_text().splitlines()]
    return [[(one["state"], one["about"]) for one in message["notices"]] for message in messages]


def see(notifier: Notifier, *current: Notice) -> None:
    """Look before and after the hook has been told."""
    notifier._again = 0.0
    notifier.see(current)
    if notifier._delivery is not None and notifier._delivery.thread is not None:
        notifier._delivery.thread.join(60)
    notifier.see(current)
    assert notifier._delivery is None


def test_what_waits_is_told_once_and_again_when_it_is_worse_or_over(tmp_path: Path) -> None:
    log, said = tmp_path / "told", list[str]()
    notifier = Notifier(writing(log), "federation.example.org", tmp_path / "kept.json", said.append)
    for current in ([notice()], [notice()], [notice(2)], [notice(1)], [notice(2), notice(about="birch")], []):
        see(notifier, *current)
    see(notifier)
    see(notifier, notice())
    assert told(log) == [
        [("new", "alder")],
        [("worse", "alder")],
        [("new", "birch")],
        [("over", "alder"), ("over", "birch")],
        [("new", "alder")],
    ]
    first = json.loads(log.read_text().splitlines()[0])
    assert (first["from"], first["text"]) == ("federation.example.org", "federation.example.org: alder is lost")
    assert said == []


def test_what_comes_and_goes_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_SETTLED_S", 600.0)
    log = tmp_path / "told"
    notifier = Notifier(writing(log), "s", tmp_path / "kept.json", pytest.fail)
    for _ in range(3):
        see(notifier, notice())
        see(notifier)
    assert told(log) == [[("new", "alder")]]


def test_that_a_person_has_done_it_is_no_news(tmp_path: Path) -> None:
    log = tmp_path / "told"
    notifier = Notifier(writing(log), "s", tmp_path / "kept.json", pytest.fail)
    see(notifier, notice(ends=False))
    see(notifier)
    see(notifier, notice(ends=False))
    assert told(log) == [[("new", "alder")], [("new", "alder")]]


def test_a_restart_repeats_nothing(tmp_path: Path) -> None:
    log, kept = tmp_path / "told", tmp_path / "kept.json"
    for _ in range(2):
        see(Notifier(writing(log), "s", kept, pytest.fail), notice())
    assert told(log) == [[("new", "alder")]]
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_text("[{")
    see(Notifier(writing(log), "s", kept, pytest.fail), notice())
    assert len(told(log)) == 2


def test_a_hook_that_fails_is_told_of_once_and_tried_again(tmp_path: Path) -> None:
    said: list[str] = []
    notifier = Notifier(Hook(command=[str(tmp_path / "hook")]), "s", tmp_path / "kept.json", said.append)
    see(notifier, notice())
    see(notifier, notice())
    assert len(said) == 1
    assert "hook cannot be started" in said[0]
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/told; exit 0\n")
    hook.chmod(0o700)
    see(notifier, notice())
    assert said[1:] == ["notify: works again"]
    assert len(told(tmp_path / "told")) == 1


def test_a_hook_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_LIMIT_S", 1.0)
    mark = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(mark)!r}).touch(); time.sleep(0.05)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    problem = deliver(Hook(command=[sys.executable, "-c", code]), b"{}")
    assert "did not end within 1 s and was killed" in problem
    assert time.monotonic() - began < 20
    mark.unlink(missing_ok=True)
    time.sleep(0.5)
    assert not mark.exists()


def test_a_hook_that_cannot_be_ended_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_GIVEN_UP_S", 0.0)
    monkeypatch.setattr(notices, "_MOST_HANGING", 2)
    release, began, said = threading.Event(), list[int](), list[str]()

    def hangs(*_: object) -> str:
        began.append(1)
        release.wait(60)
        return ""

    monkeypatch.setattr(notices, "deliver", hangs)
    notifier = Notifier(Hook(command=["x"]), "s", tmp_path / "kept.json", said.append)
    for _ in range(20):
        notifier._again = 0.0
        before = time.monotonic()
        notifier.see([notice()])
        assert time.monotonic() - before < 1
    release.set()
    assert (len(began), said) == (2, ["notify: the hook does not end"])


class Heard(http.server.BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]] = []  # noqa: RUF012
    status = 204

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(self.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[str]:
    Heard.bodies, Heard.status = [], 204
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Heard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook?secret=1"
    server.shutdown()


def test_a_webhook_gets_the_same(webhook: str, tmp_path: Path) -> None:
    see(Notifier(Hook(webhook=webhook), "s", tmp_path / "kept.json", pytest.fail), notice())
    assert [one["notices"][0]["about"] for one in Heard.bodies] == ["alder"]


def test_the_address_may_be_a_secret(webhook: str, tmp_path: Path) -> None:
    file = tmp_path / "webhook"
    file.write_text(webhook + "\n")
    file.chmod(0o600)
    hook = Hook(webhook_file=str(file))
    assert deliver(hook, b"{}") == ""
    Heard.status = 500
    problem = deliver(hook, b"{}")
    assert problem == "the webhook at 127.0.0.1 answers HTTP 500"
    assert "secret" not in problem + hook.whom()
    file.chmod(0o644)
    assert "chmod 600" in deliver(hook, b"{}")
    file.chmod(0o600)
    file.write_text("http://elsewhere.example/hook")
    assert "must be an https:// address" in deliver(hook, b"{}")
    assert "cannot be used" in deliver(Hook(webhook_file=str(tmp_path / "none")), b"{}")


def test_what_does_not_answer_is_said(webhook: str) -> None:
    assert "cannot be reached: ConnectError" in deliver(Hook(webhook="http://127.0.0.1:9/"), b"{}")


@pytest.mark.parametrize(
    "values",
    [
        {"webhook": "http://elsewhere.example/hook"},
        {"webhook": "ftp://127.0.0.1/"},
        {"webhook": "https://"},
        {"webhook": "https://a/", "webhook_file": "/a"},
        {"webhook_file": "relative"},
        {"comand": ["x"]},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Hook(**values)


def test_nobody_is_told_without_a_hook() -> None:
    assert (Hook().is_set, Hook().whom(), deliver(Hook(), b"{}")) == (False, "", "")
    assert Hook(command=["/bin/page", "x"], webhook="https://chat.example.org/T0/secret").whom() == (
        "the command /bin/page and a webhook at chat.example.org"
    )


def test_many_notices_are_one_short_text() -> None:
    news = [notices._as_told(notice(about=f"h{number}"), "new") for number in range(100)]
    content = json.loads(notices._content("s", news))
    assert len(content["notices"]) == 100
    assert content["text"].splitlines()[-1] == "and 80 more"
