"""A study between containers of both images, and what can be seen from inside them while they run."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from tests.container.conftest import ROOT
from tests.container.federation import ADDRESS, USER, Federation, Stack, until

LOOK = (ROOT / "tests" / "container" / "look.py").read_text("utf-8")
ELSEWHERE = ("/x", "/etc/x", "/opt/consilium/x", "/usr/bin/x", "/var/lib/x", "/home/x", "/root/x")
PARTS = [("server", "server"), ("alder", "gateway"), ("alder", "trainer"), ("birch", "gateway"), ("birch", "trainer")]


def stack(small: Federation, name: str) -> Stack:
    return small.server if name == "server" else small.hospitals[name]


def look(where: Stack, service: str, *dialled: str, writing: tuple[str, ...] = ELSEWHERE) -> dict[str, Any]:
    words = ("python3", "-", *writing, "--", *dialled)
    found: dict[str, Any] = json.loads(where.inside(service, *words, given=LOOK).splitlines()[-1])
    return found


@pytest.fixture(scope="module", autouse=True)
def study(small: Federation) -> str:
    """Propose, approve at both hospitals, run to the end. Returns the study's name."""
    try:
        return played(small)
    except AssertionError:
        print(small.server.inside("server", "sh", "-c", "tail -v -n 40 /server/logs/*.log", code=None))
        raise


def played(small: Federation) -> str:
    small.researcher("propose=/desk/study.json")
    document = (small.desk / "study.json").read_text("utf-8")
    for hospital in small.hospitals.values():
        found = json.loads(hospital.inside("trainer", "consilium-site", "review", "--json", "-", given=document))
        assert not any(found["refused"].values())
        words = ("approve", found["digest"], "--by", "Dr. A. Example", "--uninformative")  # so few patients
        hospital.inside("trainer", "consilium-site", *words)
    name = str(json.loads(document)["name"])
    assert name in small.researcher()
    return name


def test_every_round_of_the_study_was_played_by_both(small: Federation, study: str) -> None:
    told = small.server.inside("server", "consilium-server", "status", "--home", "/server", "--json")
    assert json.loads(told)["studies"][study] | {"run": None} == {
        "state": "finished", "committed": 3, "rounds": 3, "run": None, "error": "", "asked_by": "rosalind",
    }  # fmt: skip
    pointer = small.server.inside("server", "cat", f"/server/studies/{study}/federated/checkpoint.json")
    rounds = json.loads(pointer)["rounds"]
    assert [one["number"] for one in rounds] == [1, 2, 3]
    assert all(sorted(one["hospitals"]) == ["alder", "birch"] and not one["dropped"] for one in rounds)
    results = json.loads((small.desk / "out" / "studies" / study / "results.json").read_text("utf-8"))
    assert results["study"] == study


@pytest.mark.parametrize("name", ["alder", "birch"])
def test_the_hospitals_records_hold_every_round_once_and_verify(small: Federation, study: str, name: str) -> None:
    inside = small.hospitals[name].inside
    verified = json.loads(inside("trainer", "consilium-site", "ledger", "verify", "--json"))
    assert verified["faults"] == []
    assert verified["without_receipt"] == []
    spent = json.loads(inside("trainer", "consilium-site", "ledger", "--json"))["studies"]
    assert {one["cohort"]: (one["study"], one["orders"], one["lost"]) for one in spent} == {
        "train": (study, 3, 0),
        "validation": (study, 2, 0),  # where scores lie, and the one evaluation after the last round
    }
    assert all(0 < one["epsilon"] <= one["cap"] for one in spent)


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_no_process_is_root_or_can_become_it(small: Federation, name: str, service: str) -> None:
    found = look(stack(small, name), service)["processes"]
    assert len(found) >= 3, "the init of the container, the supervisor, and at least one program"
    for process in found:
        assert process["ids"] == [USER], process["words"]
        assert process["groups"] in ([], [str(USER)]), process["words"]
        capable = {kind: process[kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        assert set(capable.values()) == {0}, (process["words"], capable)
        assert process["no_new_privileges"] == "1", process["words"]
        assert process["seccomp"] == "2", process["words"]


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_every_program_is_told_not_to_call_home(small: Federation, name: str, service: str) -> None:
    wanted = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "DO_NOT_TRACK": "true",
              "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1", "RAY_USAGE_STATS_ENABLED": "0"}  # fmt: skip
    if service == "server":
        wanted["MLFLOW_DISABLE_TELEMETRY"] = "true"
    for process in look(stack(small, name), service)["processes"]:
        if not process["words"][0].startswith("nginx:"):  # it writes over its environment
            assert wanted.items() <= process["environment"].items(), process["words"]


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_nothing_can_be_written_but_where_it_belongs(small: Federation, name: str, service: str) -> None:
    own = "/server" if service == "server" else "/state/link"
    here = (f"{own}/x", "/tmp/x")
    given = ("/state/site.yaml", "/state/x") if service == "gateway" else ("/data/x",) if service == "trainer" else ()
    found = look(stack(small, name), service, writing=(*here, *ELSEWHERE, *given))
    assert {path for path, wrong in found["writes"].items() if not wrong} == set(here)
    assert {wrong for wrong in found["writes"].values() if wrong} <= {"Read-only file system", "Permission denied"}
    assert "ro" in found["mounts"]["/"]
    assert {"noexec", "nosuid"} <= set(found["mounts"]["/tmp"])


def test_the_gateway_listens_for_the_trainer_alone_and_the_trainer_for_nobody(small: Federation) -> None:
    for hospital in small.hospitals.values():
        gateway, trainer = look(hospital, "gateway"), look(hospital, "trainer")
        assert gateway["listening"] == [f"{hospital.variables['INSIDE']}.2:9094"]
        assert trainer["listening"] == []
        assert gateway["datagrams"] == trainer["datagrams"] == []
        told = hospital.engine.podman("inspect", hospital.container("gateway"), hospital.container("trainer"))
        assert not [one for one in json.loads(told) if any((one["NetworkSettings"]["Ports"] or {}).values())]


def test_the_trainer_reaches_the_gateway_and_nothing_else(small: Federation) -> None:
    alder, birch = small.hospitals["alder"], small.hospitals["birch"]
    own, others = (f"{one.variables['INSIDE']}.2:9094" for one in (alder, birch))
    found = look(alder, "trainer", own, others, f"{ADDRESS}:8443", f"{ADDRESS}:8444")
    assert found["dialled"].pop(own) == ""
    assert set(found["dialled"].values()) == {"[Errno 101] Network is unreachable"}
    assert found["routes"] == [f"{alder.variables['INSIDE']}.0/29"], "and no default route"
    assert set(found["resolved"].values()) == {""}, "names are asked of the world, which is a way out"
    assert found["networks"] == ["eth0", "lo"]


def test_the_gateway_reaches_the_server_and_has_no_data(small: Federation) -> None:
    found = look(small.hospitals["alder"], "gateway", f"{ADDRESS}:8443")
    assert found["dialled"] == {f"{ADDRESS}:8443": ""}
    ours = {path for path in found["mounts"] if path.startswith(("/state", "/data"))}
    assert ours == {"/state/site.yaml", "/state/link"}
    inside = small.hospitals["alder"].inside
    assert inside("gateway", "sh", "-c", "ls /data 2>&1", code=None).endswith("No such file or directory\n")
    assert "ledger" not in inside("gateway", "ls", "/state")


def test_the_trainer_reads_the_data_and_holds_no_key_to_the_server(small: Federation) -> None:
    found = look(small.hospitals["alder"], "trainer")
    assert "ro" in found["mounts"]["/data"]
    assert "ro" in found["mounts"]["/state/link/trainer.secret"]
    assert "node.key" not in small.hospitals["alder"].inside("trainer", "ls", "/state/link")


def test_the_server_listens_at_its_two_doors_and_on_loopback(small: Federation) -> None:
    found = look(small.server, "server")
    assert found["listening"] == ["0.0.0.0:8443", "0.0.0.0:8444", "127.0.0.1:9443", "127.0.0.1:9500"]


@pytest.mark.parametrize(("name", "service"), PARTS)
def test_limits_are_those_of_the_compose_file(small: Federation, name: str, service: str) -> None:
    where = stack(small, name)
    found = json.loads(where.engine.podman("inspect", where.container(service)))[0]["HostConfig"]
    memory, cpus, pids = {"server": (8, 4, 1024), "gateway": (1, 1, 256), "trainer": (8, 4, 256)}[service]
    assert found["Memory"] == memory * 2**30
    assert found["NanoCpus"] == cpus * 10**9
    assert found["PidsLimit"] == pids


def test_who_takes_too_much_is_stopped_and_not_the_machine(small: Federation) -> None:
    hospital = small.hospitals["birch"]
    variables = hospital.variables | {"INSIDE": "10.231.96", "TRAINER_MEMORY": "256m"}
    glutton = Stack(hospital.engine, hospital.folder, "glutton", variables)
    words = ("run", "--rm", "-T", "--no-deps", "--entrypoint", "python3", "trainer", "-c")
    try:
        glutton.compose(*words, "b'x' * 2**20")
        glutton.compose(*words, "b'x' * 2**30", code=128 + signal.SIGKILL)
        told = glutton.compose(*words, _THREADS)
    finally:
        glutton.compose("down", "--volumes", code=None)
    assert 200 < int(told.split()[-1]) < 256


_THREADS = """
import os, threading, time
made = 0
try:
    for made in range(1000):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    print(made, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(("name", "service", "program"), [
    ("birch", "gateway", "client.link.supernode"),
    ("birch", "trainer", "client.link.trainer"),
    ("server", "server", "mlflow"),
])  # fmt: skip
def test_health_checks_tell_when_a_program_is_gone_and_when_it_is_back(
    small: Federation, name: str, service: str, program: str
) -> None:
    where = stack(small, name)
    until(lambda: where.healthy(service), 300, "it is well")
    state = {"gateway": "/state/link/gateway.json", "trainer": "/state/link/trainer.json", "server": "/server/up.json"}
    key = {"client.link.supernode": "gateway", "client.link.trainer": "trainer"}.get(program, program)

    def kill() -> bool:
        """Until it is caught down: the pause before the next start grows."""
        pid = json.loads(where.inside(service, "cat", state[service]))[key]["pid"]
        if pid is not None:
            where.inside(service, "sh", "-c", f"kill -9 {pid}", code=None)
        return not where.healthy(service)

    until(kill, 300, f"{service} says that it is not well")
    until(lambda: where.healthy(service), 600, "it is well again")


def test_the_trainers_own_check_finds_all_well_and_leaves_the_server_to_the_gateway(small: Federation) -> None:
    told = small.hospitals["alder"].inside("trainer", "consilium-site", "check", "--json")
    (found,) = json.loads(told).values()
    assert "the gateway" in next(one["found"] for one in found if one["name"] == "server")


def test_the_records_outlive_the_containers(small: Federation, study: str) -> None:
    hospital = small.hospitals["alder"]
    hospital.compose("down")
    told = hospital.compose("run", "--rm", "-T", "--no-deps", "trainer", "ledger", "verify")
    assert len(re.findall(r"all \d+ rows are intact", told)) == 2
    hospital.compose("up", "-d")
    until(lambda: hospital.healthy("gateway") and hospital.healthy("trainer"), 300, "the hospital is back")
    assert os.stat(hospital.folder / "link" / "node.key").st_mode & 0o077 == 0
