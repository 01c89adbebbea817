"""What Prometheus and the coordinator see of a server; ``tests/test_dashboards.py`` holds the dashboard against it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from server.deployment import pki
from server.deployment.observed import ServerLook
from server.deployment.server_dir import Hospital, ServerDir, ServerSettings, make
from server.runtime.flower_private import ControlRefused
from tasks.machine import observation
from tasks.machine.observation import Observed


@pytest.fixture
def home(tmp_path: Path) -> ServerDir:
    made = make(tmp_path / "home", ServerSettings(host="localhost", studies_at_once=3))
    pki.create_authority(made)
    pki.issue_server(made, days=20)
    (made.path / "researchers" / "ada.pem").write_bytes(made.certificate.read_bytes())
    hospitals = [Hospital(name, number, "", "") for number, name in enumerate(("alder", "birch", "cedar"), 1)]
    made.register({one.name: one for one in hospitals})
    made.state.write_text(json.dumps({"mlflow": {"pid": 1, "well": False, "starts": 4}}))
    (made.runs / "queue.json").write_text(json.dumps({"at_once": 3, "running": ["a"], "waiting": [{}, {}]}))
    for name, state in (("ab12", "running"), ("cd34", "failed"), ("ef56", "finished")):
        folder = made.path / "studies" / name
        (folder / "federated").mkdir(parents=True)
        facts = {"study": name, "finished": False, "state": state, "config": {"federation": {"rounds": 9}}}
        (folder / "study.json").write_text(json.dumps(facts))
        one = {"hospitals": {"alder": {"bytes_down": 100, "bytes_up": 7}}, "dropped": {"birch": "why"}}
        (folder / "federated" / "checkpoint.json").write_text(json.dumps({"rounds": [one, one]}))
    old = time.time() - 30 * 86400
    os.utime(made.path / "studies" / "ef56" / "study.json", (old, old))
    return made


def nodes() -> dict[int, str]:
    return {1: "online", 2: "offline", 3: "registered"}


def values(seen: Observed) -> dict[str, float]:
    return {f"{one.name}{sorted(one.labels.values())}": one.value for one in seen.figures}


def test_the_figures_are_those_of_the_servers_folder(home: ServerDir) -> None:
    found = {name.removeprefix("consilium_server_"): value for name, value in values(ServerLook(home, nodes)()).items()}
    assert {
        "hospital_online['alder']": 1.0,
        "hospital_online['birch']": 0.0,
        "hospitals['online']": 1.0,
        "hospitals['offline']": 1.0,
        "hospitals['registered']": 1.0,
        "hospitals['unknown']": 0.0,
        "program_well['mlflow']": 0.0,
        "program_starts_total['mlflow']": 4.0,
        "study_rounds['ab12']": 2.0,
        "study_rounds_planned['ab12']": 9.0,
        "study_sent_bytes_total['ab12']": 200.0,
        "study_received_bytes_total['ab12']": 14.0,
        "study_dropped_total['ab12']": 2.0,
        "studies['running']": 1.0,
        "studies['finished']": 1.0,
        "queue_waiting[]": 2.0,
        "queue_running[]": 1.0,
        "queue_places[]": 3.0,
    }.items() <= found.items()
    assert "study_rounds['cd34']" in found
    assert "study_rounds['ef56']" not in found, "nobody has worked on it for a month"
    assert 19 < found["certificate_days[]"] <= 20
    assert 19 < found["person_certificate_days['ada']"] <= 20
    assert found["disk_free_bytes['home']"] > 0


def test_what_waits_for_a_person_is_said_with_its_remedy(home: ServerDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observation.Lasting, "holds", lambda _, what, is_wrong: is_wrong)
    monkeypatch.setattr(observation, "nearly_full", lambda *_: iter(()))
    found = {(one.kind, one.about): one.text for one in ServerLook(home, nodes)().notices}
    assert set(found) == {
        ("program", "mlflow"),
        ("hospital", "birch"),
        ("study", "cd34"),
        ("certificate", "server"),
        ("certificate", "ada"),
    }
    assert found["certificate", "server"] == "the server's certificate ends in 20 days: consilium-server renew"
    assert "consilium-server status" in found["study", "cd34"]


def test_a_moment_is_nobodys_concern(home: ServerDir) -> None:
    assert {one.kind for one in ServerLook(home, nodes)().notices} - {"disk"} == {"study", "certificate"}


def test_a_superlink_that_does_not_answer_and_a_damaged_study_cost_no_other_figure(home: ServerDir) -> None:
    def away() -> dict[int, str]:
        raise ControlRefused("connection refused")

    (home.path / "studies" / "ab12" / "study.json").write_text("{")
    (home.path / "studies" / "cd34" / "federated" / "checkpoint.json").write_text("[]")
    (home.runs / "queue.json").unlink()
    found = values(ServerLook(home, away)())
    assert found["consilium_server_hospitals['unknown']"] == 3.0
    assert found["consilium_server_studies['damaged']"] == 1.0
    assert found["consilium_server_study_rounds['cd34']"] == 0.0
