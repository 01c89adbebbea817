"""A study between real processes over TLS, from the researcher's command to the hospitals' ledgers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.fab import Fab

from conf import load
from server import api
from server.deployment import pki, signing
from server.deployment.server_dir import read
from server.runtime.flower_private import BUNDLE, Control
from tests.e2e.deployment.federation import CALM, Federation, command, server_command, told, until
from tests.e2e.deployment.ledger_rows import ledger_contains, ledger_rows, problems_in_records

EVIL = """
from pathlib import Path
Path({path!r}).write_text("imported")
from flwr.serverapp import ServerApp
from flwr.clientapp import ClientApp
app = ClientApp()
server_app = ServerApp()
"""


def test_a_study_runs_from_command_to_results(small: Federation) -> None:
    ended = subprocess.run(small.study_words(), capture_output=True, text=True, env=os.environ | CALM, timeout=420)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Report: " in ended.stdout
    assert f"charts: https://localhost:{small.researchers_port}/#/experiments/1" in ended.stdout
    assert "epsilon" in ended.stdout
    assert all(hospital.name in ended.stdout for hospital in small.hospitals)

    rounds = small.rounds()
    assert [one["number"] for one in rounds] == [1, 2, 3]
    assert all(sorted(one["hospitals"]) == ["alder", "birch"] and not one["dropped"] for one in rounds)

    fetched = small.folder / "outputs" / "studies" / str(small.facts()["study"])
    assert json.loads((fetched / "results.json").read_text())["study"] == fetched.name
    files = small.facts()["files"]
    assert any(file.endswith(".safetensors") for file in files)
    for file in files:
        assert (fetched / file).read_bytes() == (small.home / "studies" / fetched.name / file).read_bytes()

    told = (fetched / "report.html").read_text("utf-8")
    assert "The hospitals are real" in told
    assert "There is no other model to compare it with" in told
    assert "Nobody is real" not in told
    assert (fetched / "figures" / "comparison.svg").is_file()
    assert "## Limits" in (fetched / "model-card.md").read_text("utf-8")

    for hospital in small.hospitals:
        assert problems_in_records(hospital) == []
        evaluated = [("validation", 3)] * 2  # where scores lie, then how many lie where
        wanted = [("train", 1), ("train", 2), ("train", 3), *evaluated]
        assert ledger_rows(hospital, fetched.name) == wanted


def test_the_study_has_one_run_in_mlflow_and_no_path_of_anybody(small: Federation) -> None:
    home = read(small.home)
    found = httpx.post(
        f"{home.mlflow}/api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["1"], "filter": f"tags.fl_study = '{small.facts()['study']}'"},
        trust_env=False,
    ).json()["runs"]
    parents = [run for run in found if "mlflow.parentRunId" not in {tag["key"] for tag in run["data"]["tags"]}]
    assert len(parents) == 1
    assert len(found) == 3
    assert str(small.folder) not in json.dumps(found)
    run = parents[0]["info"]["run_id"]
    listed = httpx.get(f"{home.mlflow}/api/2.0/mlflow/artifacts/list", params={"run_id": run}, trust_env=False).json()
    assert {"report.html", "model-card.md", "results.json", "figures"} <= {file["path"] for file in listed["files"]}


def test_nothing_of_a_runs_bundle_is_imported_anywhere(small: Federation, tmp_path: Path) -> None:
    """A bundle that writes a file as soon as anybody imports it, for a study that is in order otherwise."""
    witness = tmp_path / "witness"
    evil = EVIL.format(path=str(witness)).encode()
    names = ("server/app.py", "client/app.py", "tasks/__init__.py", "sitecustomize.py", "app.py")
    files = {"pyproject.toml": BUNDLE.encode(), **dict.fromkeys(names, evil)}
    content, _ = build_fab_from_files(files)
    study = load.load(["experiment=deployed", "runtime.address=a:1", "runtime.authority=b", "runtime.certificate=c",
                       *small.settings, "seed=7"])  # fmt: skip
    control = Control(f"localhost:{small.researchers_port}", small.home / "pki" / "authority.crt", small.researcher())
    fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
    text = signing.signed(load.to_plain(study), small.researcher(), small.researcher())
    override = user_config_to_proto({"study": text})
    run = control._client.StartRun(StartRunRequest(fab=fab, override_config=override)).run_id

    until(lambda: (small.home / "runs" / f"{run}.json").exists(), 120, "the run is played")
    until(lambda: small.facts().get("state") == "finished", 240, "the study ends")
    assert len(small.rounds()) == 3
    assert not witness.exists()
    assert not list(small.folder.rglob("apps")), "a bundle was unpacked"
    subprocess.run([sys.executable, "-c", evil.decode()], check=True)  # it would have written the file
    assert witness.exists()


def test_a_python_program_runs_and_fetches_one(small: Federation, tmp_path: Path) -> None:
    words = [word for word in small.study_words()[3:] if not word.startswith("output_dir=")]
    heard: list[api.Progress] = []
    found = api.run(api.configure(*words, "seed=11", f"output_dir={tmp_path}"), heard.append)
    assert [(each.label, each.total) for each in heard[-1:]] == [("federated", 3)]
    assert heard[-1].done == 3
    assert found.name == small.facts()["study"]
    assert found.report.is_relative_to(tmp_path)
    hospitals = found.to_frame("hospitals")
    assert list(hospitals["hospital"]) == ["alder", "birch"]
    assert (hospitals["epsilon"] > 0).all()
    assert found.model().head.study == found.name

    study = api.configure(*words, f"output_dir={tmp_path / 'again'}")
    again = api.fetch_result(study, found.name)
    assert again.results == found.results
    assert again.report.read_bytes() == found.report.read_bytes()
    with pytest.raises(api.StudyError, match="there is no study 'nonesuch'"):
        api.fetch_result(study, "nonesuch")

    words += ["seed=12", f"output_dir={tmp_path}"]
    left = api.configure(*(word for word in words if "rounds" not in word), "federation.rounds=12")
    name = api.submit(left)
    with pytest.raises(api.StudyError, match="has not ended yet"):
        api.fetch_result(left, name)
    assert api.run(api.configure(*words, f"resume={name}")).name == name
    assert api.fetch_result(left, name).name == name


def test_one_may_leave_and_come_back(small: Federation) -> None:
    words = ("seed=3", "federation.rounds=12")  # long enough that it is not over when one comes back
    told(small.study_words(*words, "runtime.follow=false"))
    name = str(small.facts()["study"])
    assert name in told(small.study_words(f"resume={name}")), "by its name, without its configuration"
    assert small.facts()["study"] == name, "one study, although two runs asked for it"
    assert len(small.rounds()) == 12
    told(small.study_words(f"resume={name}"), code=1)  # it has finished, and is not begun anew
    assert small.facts()["study"] == name


def test_a_run_that_describes_no_study_says_why(small: Federation) -> None:
    control = Control(f"localhost:{small.researchers_port}", small.home / "pki" / "authority.crt", small.researcher())
    run = control.start(signing.signed({"model": {"name": "os.system"}}, small.researcher(), small.researcher()))
    path = small.home / "runs" / f"{run}.json"
    until(path.exists, 120, "the server says what is wrong")
    assert "model.name=os.system" in json.loads(path.read_text())["error"]


def test_a_run_that_nobody_signed_is_played_for_nobody(small: Federation) -> None:
    control = Control(f"localhost:{small.researchers_port}", small.home / "pki" / "authority.crt", small.researcher())
    before = small.facts()
    run = control.start(json.dumps(before["config"]))
    path = small.home / "runs" / f"{run}.json"
    until(path.exists, 120, "the server says what is wrong")
    assert "is not signed" in json.loads(path.read_text())["error"]
    assert small.facts() == before
    assert before["asked_by"] == "rosalind"


def test_the_server_has_seen_the_records_of_all_hospitals(small: Federation) -> None:
    heads = {path.name: path.read_text() for path in (small.home / "witness").iterdir()}
    assert heads.keys() == {"alder", "birch"}
    for hospital in small.hospitals:
        assert ledger_contains(hospital, heads[hospital.name])


def test_both_sides_see_the_queue(small: Federation) -> None:
    empty = {"at_once": 5, "running": [], "waiting": [], "up": True}
    words = server_command("queue", "--home", small.home, "--json")
    until(lambda: json.loads(told(words)) == empty, 60, "the last process has ended")
    words = [word for word in small.study_words() if word.startswith("runtime.")]
    assert "5 at once" in told(command("server.__main__", "queue", *words))


def test_status_tells_all_of_it(small: Federation) -> None:
    found = small.status()
    assert {name: one["state"] for name, one in found["hospitals"].items()} == {"alder": "online", "birch": "online"}
    assert {one["state"] for one in found["studies"].values()} == {"finished"}
    assert all(program["starts"] == 1 for program in found["programs"].values())
    assert found["certificate_days"] == pytest.approx(pki.SERVER_DAYS, abs=1)
