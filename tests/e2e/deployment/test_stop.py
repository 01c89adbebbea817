"""Roles and stopping across real processes: a study ends for good by its researcher's or a coordinator's word only."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from server.cli import people
from server.study.folder import committed
from tests.e2e.deployment.federation import (
    SMALL,
    Federation,
    command,
    federation,
    server_command,
    site_command,
    told,
    until,
)
from tests.e2e.deployment.ledger_rows import problems_in_records


@pytest.fixture(scope="module")
def long(packages: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Two hospitals, and studies that last longer than five commands on a busy machine."""
    with federation(tmp_path_factory.mktemp("stop"), rounds=100, settings=(*SMALL, "training.steps=40")) as made:
        for name, role in (("grace", "coordinator"), ("mallory", "researcher"), ("emmy", "reader")):
            people.person(name, role, home=made.home)  # type: ignore[arg-type]
        yield made


def ask(federation: Federation, verb: str, study: str, name: str, *more: str) -> list[str]:
    """``consilium stop`` or ``logs`` by somebody."""
    return command(
        "server.__main__", verb, study, f"runtime.address=localhost:{federation.researchers_port}",
        f"runtime.authority={federation.home / 'pki' / 'authority.crt'}",
        f"runtime.certificate={federation.home / 'researchers' / f'{name}.pem'}", *more,
    )  # fmt: skip


def orders_seen(federation: Federation, study: str) -> list[int]:
    """How many messages of a study have left each hospital."""
    words = ("audit", "--kind", "receipt", "--study", study, "--json", "--site")
    return [len(json.loads(told(site_command(*words, one.site)))) for one in federation.hospitals]


def status_in_mlflow(federation: Federation, study: str) -> set[str]:
    """Of the study's run and its hospitals'."""
    asked = "SELECT status FROM runs JOIN tags USING (run_uuid) WHERE key = 'fl_study' AND value = ?"
    with closing(sqlite3.connect(f"file:{federation.home}/mlflow/mlflow.db?mode=ro", uri=True)) as database:
        return {status for (status,) in database.execute(asked, (study,))}


def test_a_study_is_stopped_by_its_researcher_and_by_nobody_else(long: Federation) -> None:
    running = long.study("seed=21")
    until(lambda: len(long.rounds()) >= 2, 300, "two rounds are committed")
    study = long.facts()["study"]
    assert json.loads((long.home / "runs" / "queue.json").read_text())["running"] == [study]
    for name in ("mallory", "emmy"):
        told(ask(long, "stop", study, name), 1)
        told(ask(long, "logs", study, name), 1)
    assert "round 1 of 100" in told(ask(long, "logs", study, "rosalind"))
    assert "round 1 of 100" in told(ask(long, "logs", study, "grace"))
    assert running.running()

    said = told(ask(long, "stop", study, "rosalind"))

    assert f"{study} was stopped by rosalind" in said
    assert all(one.name in said for one in long.hospitals)
    assert running.wait(60) == 1
    assert "stopped by rosalind" in running.text()
    facts, rounds = long.facts(), len(long.rounds())
    assert facts["state"] == "stopped"
    last = long.rounds()[-1]["hospitals"]
    assert {name: one["training"] for name, one in facts["spent"].items()} == {
        name: one["epsilon"] for name, one in last.items()
    }
    time.sleep(15)  # whoever was at work has finished
    seen = orders_seen(long, study)
    assert long.server is not None
    long.server.end()
    long.up()
    time.sleep(20)
    assert (orders_seen(long, study), len(long.rounds()), long.facts()["state"]) == (seen, rounds, "stopped")
    until(lambda: status_in_mlflow(long, study) == {"KILLED"}, 240, "MLflow knows that it was stopped")
    assert all(problems_in_records(hospital) == [] for hospital in long.hospitals)


def test_the_coordinator_stops_it_on_the_server_and_the_same_command_begins_a_new_one(long: Federation) -> None:
    first = {path.name for path in (long.home / "studies").iterdir()}
    running = long.study("seed=21")
    until(lambda: {path.name for path in (long.home / "studies").iterdir()} - first, 200, "a new study has a folder")
    (study,) = {path.name for path in (long.home / "studies").iterdir()} - first
    until(lambda: committed(long.home / "studies" / study) >= 1, 300, "a round is committed")
    answer = json.loads(told(server_command("stop", study, "--home", long.home, "--json")))
    assert answer["stopped"] == study
    assert answer["spent"].keys() == {one.name for one in long.hospitals}
    assert running.wait(60) == 1
    assert "round 1 of 100" in told(server_command("logs", study, "--home", long.home, "--follow"))


def test_a_reader_submits_nothing(long: Federation) -> None:
    before = set((long.home / "studies").iterdir())
    told(long.study_words("seed=22", name="emmy"), 1)
    assert set((long.home / "studies").iterdir()) == before


def test_hospitals_see_who_asks(long: Federation) -> None:
    file = long.folder / "asked.json"
    told(long.study_words("seed=23", f"propose={file}"))
    assert "rosalind asks for it" in " ".join(
        told(site_command("review", file, "--site", long.hospitals[0].site)).split()
    )
