"""What ``consilium-site run`` sees of its programs, and who is held back because the server has refused it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.link import watch as watching
from client.link.gateway import Link
from client.site import SiteSettings
from tasks.machine.pulse import Pulse
from tasks.machine.supervision import only_one


class Holding:
    """Remembers what was held, as ``Supervisor`` does."""

    def __init__(self) -> None:
        self.held: list[str] = []

    def hold(self, name: str, why: str) -> None:
        assert name == "gateway"
        self.held.append(why)


def test_only_a_refusal_that_the_server_gives_holds_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = SimpleNamespace(reach="", refusal="you were revoked")
    monkeypatch.setattr(watching, "reach", lambda _: answers.reach)
    monkeypatch.setattr(watching, "refusal", lambda _: answers.refusal)
    monkeypatch.setattr(watching, "_LOOK_S", -1.0)
    found = Link("server:1", tmp_path / "node.key", tmp_path / "a", tmp_path / "b")
    supervisor = Holding()
    made = watching.Watch(found, supervisor, print)  # type: ignore[arg-type]

    def watch() -> None:
        """One look, to its end."""
        made._looking = None
        made()
        assert made._looking is not None
        made._looking.join(60)
        made()

    watch()
    watch()
    assert supervisor.held == ["you were revoked"] * 2
    answers.reach = "server:1 cannot be reached"
    watch()
    assert len(supervisor.held) == 2, "nothing is known now, so nothing changes"
    answers.reach = ""
    watch()
    assert capsys.readouterr().out == "you were revoked\n", "once, although the server was away in between"
    answers.refusal = ""
    watch()
    assert supervisor.held[-1] == ""
    answers.reach = "server:1 cannot be reached"
    watch()
    answers.reach = ""
    assert capsys.readouterr().out == "server:1 can be reached\nserver:1 cannot be reached\n"
    Pulse(found.heard).beat()
    answers.refusal = "you were revoked"
    watch()
    assert supervisor.held[-1] == "", "who is heard is admitted"
    assert "you were revoked" not in capsys.readouterr().out


def test_a_server_that_never_finishes_its_answer_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = threading.Event()
    monkeypatch.setattr(watching, "reach", lambda _: str(slow.wait(60)))
    monkeypatch.setattr(watching, "_LOOK_S", 0.0)
    monkeypatch.setattr(watching, "_LONGEST_LOOK_S", 0.05)
    found = Link("server:1", tmp_path / "node.key", tmp_path / "a", tmp_path / "b")
    watch, began = watching.Watch(found, Holding(), print), time.monotonic()  # type: ignore[arg-type]
    watch()
    watch()
    assert time.monotonic() - began < 5
    time.sleep(0.1)
    watch()
    slow.set()
    assert "server:1 does not finish its answer" in capsys.readouterr().out


def test_status_says_what_each_program_does(provision_hospital: Callable[..., SiteSettings], tmp_path: Path) -> None:
    settings = provision_hospital(public_size=300)
    assert watching.states(settings) == {"gateway and trainer": "not running here"}
    settings.link.mkdir(exist_ok=True)
    states = {
        "gateway": {"pid": None, "well": False, "starts": 3, "held": "it was revoked"},
        "trainer": {"pid": 7, "well": False, "starts": 1},
    }
    (settings.link / "both.json").write_text(json.dumps(states))
    assert watching.states(settings) == {"gateway and trainer": "not running here"}, "of an earlier run"
    lock = settings.link / "both.lock"
    with only_one(lock) as alone:
        assert alone
        child = os.fork()  # a lock is seen by others only
        if child == 0:
            told = watching.states(settings)
            os._exit(0 if told == {"gateway": "stopped: it was revoked", "trainer": "not well"} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        (settings.link / "both.json").write_text("[]")
        assert watching.states(settings) == {"gateway and trainer": "not running here"}
