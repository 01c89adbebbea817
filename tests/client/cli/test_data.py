"""``consilium-site ingest | check | describe | baseline`` from the outside."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from pydicom import dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.ledger.account import Use
from client.ledger.accounting import Mechanism
from client.ledger.ledger import Caps, Planned
from client.ledger.records import open_records
from client.oversight import approvals
from client.setup.provisioning import provision, write_example
from client.site import SiteSettings, load, secret
from tasks.breast_ultrasound import TASK
from tasks.protocol.study import StudyDocument, digest
from tasks.task import PhantomHospital
from tests.client.reserving import reserve
from tests.drawn import draw

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital with a catalog, which tests only read."""
    folder = tmp_path_factory.mktemp("hospital")
    _provision(folder, 30)
    assert CliRunner().invoke(app, ["ingest", "--site", str(folder / "site.yaml")]).exit_code == 0
    return folder


def _provision(folder: Path, patients: int, **changes: Any) -> SiteSettings:
    draw(TASK, folder, PhantomHospital("alder", patients, prevalence=0.5, images_per_patient=(1, 2)), 5)
    write_example(folder / "site.yaml", "alder")
    values = yaml.safe_load((folder / "site.yaml").read_text("utf-8"))
    values["sources"][0] |= {"path": str(folder / "dicom"), "labels": str(folder / "labels.csv")}
    values["public_size"] = 20
    (folder / "site.yaml").write_text(yaml.safe_dump(values | changes), "utf-8")
    (folder / "site.key").touch(0o600)
    (folder / "site.key").write_bytes(b"k" * 32)  # a fixed split: no test hangs on luck
    settings = load(folder / "site.yaml")
    provision(settings)
    return settings


def _change(folder: Path, **changes: Any) -> None:
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | changes), "utf-8")


def _run(folder: Path, *arguments: object) -> Result:
    command, *rest = map(str, arguments)
    return CliRunner().invoke(app, [command, "--site", str(folder / "site.yaml"), *rest])


def _json(result: Result, code: int = 0) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def _rungs(folder: Path, code: int = 0, *more: object) -> dict[str, dict[str, str]]:
    told = _json(_run(folder, "check", "--json", *more), code)
    return {rung["name"]: rung for rung in told[TASK.name]}


def test_an_ingest_is_told_and_written_into_the_audit_log(tmp_path: Path) -> None:
    _provision(tmp_path, 6)
    told = _json(_run(tmp_path, "ingest", "--json"))[TASK.name]
    assert told["images"] == told["contract"]["conforming"] > 0
    shown = _run(tmp_path, "ingest").stdout
    assert f"usable images {told['images']}" in " ".join(shown.split())
    events = _json(_run(tmp_path, "audit", "--json"))
    assert [event["kind"] for event in events] == ["ingest", "ingest"]
    assert events[0]["facts"]["patients"] == 6


def test_what_is_left_out_is_told_with_what_to_do(tmp_path: Path) -> None:
    _provision(tmp_path, 6)
    for number in range(3):
        (tmp_path / "dicom" / f"note-{number}.txt").write_text("no image")
    assert _json(_run(tmp_path, "ingest", "--json"))[TASK.name]["left_out"] == {"NOT_DICOM": 3}
    shown = " ".join(_run(tmp_path, "ingest").stdout.split())
    assert "NOT_DICOM 3 Not a DICOM file. A few are normal" in shown


def test_a_task_without_source_is_misuse(ingested: Path) -> None:
    for command in ("ingest", "check", "describe", "baseline"):
        result = _run(ingested, command, "--task", "pneumonia_xray")
        assert result.exit_code == 2
        assert "no source in site.yaml is for task 'pneumonia_xray', only for breast_ultrasound" in " ".join(
            result.stderr.split()
        )


def test_before_the_first_ingest_check_says_what_to_do(tmp_path: Path) -> None:
    _provision(tmp_path, 4)
    rungs = _rungs(tmp_path, 1)
    assert (rungs["data readable"]["state"], rungs["data readable"]["remedy"]) == ("fail", "consilium-site ingest")
    assert rungs["budget"]["state"] == "ok", "one rung that fails does not hide the next"
    for command in ("describe", "baseline"):
        assert "consilium-site ingest" in " ".join(_run(tmp_path, command).stderr.split())


def test_a_sound_hospital_is_ready(ingested: Path) -> None:
    rungs = _rungs(ingested)
    assert {name for name, rung in rungs.items() if rung["state"] == "fail"} == set()
    assert {
        name: rung["state"] for name, rung in rungs.items() if name in ("contract", "labels joined", "classes")
    } == {
        "contract": "ok",
        "labels joined": "ok",
        "classes": "ok",
    }
    assert all(rung["remedy"] for rung in rungs.values() if rung["state"] != "ok"), "a remedy for each line"


def test_check_and_its_page_say_whom_a_study_waits_for(tmp_path: Path, document: StudyDocument) -> None:
    settings = _provision(tmp_path, 2)
    policy = yaml.safe_load((tmp_path / "site.yaml").read_text("utf-8"))["policy"]
    _change(tmp_path, policy=policy | {"approvers": 2})
    assert _rungs(tmp_path, 1)["approval"]["found"] == "2 people must approve a study; 0 are approved"
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        approvals.approve(document, "Ada Noor", records.audit_log, load(tmp_path / "site.yaml"))
    rung = _rungs(tmp_path, 1, "--html", tmp_path / "page.html")["approval"]
    assert (rung["state"], rung["found"]) == ("warn", "2 people must approve a study; demo-1 has Ada Noor")
    assert rung["remedy"] == f"Another person: consilium-site review {digest(document)[:12]}"
    assert "demo-1 has Ada Noor" in (tmp_path / "page.html").read_text("utf-8")


def test_what_is_wrong_is_a_rung_that_fails(tmp_path: Path) -> None:
    settings = _provision(tmp_path, 12)
    files = sorted((tmp_path / "dicom").rglob("*.dcm"))
    for path in files[: len(files) // 2]:
        dataset = dcmread(path)
        dataset.LossyImageCompression = "01"
        dataset.save_as(path)
    assert _run(tmp_path, "ingest").exit_code == 0
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        _change(tmp_path, server=f"127.0.0.1:{nobody.getsockname()[1]}", withdrawals=str(tmp_path / "absent.txt"))
        with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
            use = Use("train", "other", 1, "order")
            reserve(records.ledger, use, lambda account: Planned(Mechanism(0.7, 1.0, 1)), Caps(1e6, 1e6, 1e-4))
        rungs = _rungs(tmp_path, 1)
    failing = {name for name, rung in rungs.items() if rung["state"] == "fail"}
    assert {"contract", "patients", "withdrawals", "server"} <= failing
    assert "no-lossy-history" in rungs["contract"]["found"]
    assert "not to compress on arrival" in rungs["contract"]["remedy"]
    assert "epsilon spent" in rungs["budget"]["found"]


def test_a_stopped_hospital_and_a_server_that_answers(tmp_path: Path) -> None:
    _provision(tmp_path, 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        _change(tmp_path, server=f"127.0.0.1:{server.getsockname()[1]}")
        (tmp_path / "STOP").touch()
        rungs = _rungs(tmp_path, 1)
    assert rungs["server"]["state"] == "ok"
    assert (rungs["answering"]["state"], rungs["answering"]["remedy"]) == ("fail", "consilium-site resume")


def test_a_server_is_dialled_through_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _provision(tmp_path, 4)
    _change(tmp_path, server="consilium.invalid:443")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = proxy.accept()
            with connection:
                asked.append(connection.recv(1024).splitlines()[0])
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        rungs = _rungs(tmp_path, 1)
        thread.join(10)
    assert asked == [b"CONNECT consilium.invalid:443 HTTP/1.1"]
    assert rungs["server"]["state"] == "ok"


def test_a_trainer_apart_from_its_gateway_is_not_blamed_for_reaching_nobody(tmp_path: Path) -> None:
    settings = _provision(tmp_path, 4)
    _change(tmp_path, server="consilium.invalid:443")
    assert _rungs(tmp_path, 1)["server"]["state"] == "fail"
    settings.link.mkdir()
    (settings.link / "trainer.secret").write_bytes(b"s" * 32)
    rung = _rungs(tmp_path, 1)["server"]
    assert (rung["state"], "the gateway" in rung["found"]) == ("ok", True)


def test_the_page_stays_in_the_house(ingested: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old", "utf-8")
    page.chmod(0o644)
    _rungs(ingested, 0, "--html", page)
    text = page.read_text("utf-8")
    assert page.stat().st_mode & 0o777 == 0o600
    assert "must not leave the hospital" in text
    assert text.count("data:image/png;base64,") >= 10
    assert "http" not in text.replace("http-equiv", ""), "it refers to nothing outside itself"
    assert "ALDER-00" not in text, "no patient's number"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_description_for_sending_has_no_exact_and_no_small_count(ingested: Path) -> None:
    (exact,) = _json(_run(ingested, "describe", "--json"))
    assert exact["patients"]["train"] + exact["patients"]["validation"] == 30
    (coarse,) = _json(_run(ingested, "describe", "--for-sending", "--json"))
    assert "images" not in coarse
    told = json.dumps(coarse)
    for number in {n for n in exact["patients"].values() if n > 10 and n % 10}:
        assert f'"{number}"' not in told
        assert f"about {number}" not in told
    small = [name for name, number in exact["patients"].items() if number < 10]
    assert all(coarse["patients"][name] == "<10" for name in small)
    assert coarse["Modality"] == {"US": "about 30"}
    assert "suppress" in _run(ingested, "describe", "--help").stdout.lower()


def test_a_baseline_leaves_no_trace_in_the_records(ingested: Path) -> None:
    settings = load(ingested / "site.yaml")
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        before = records.ledger.head(), records.audit_log.head()
    told = _json(_run(ingested, "baseline", "--rounds", 2, "--json"))[TASK.name]
    assert told["trained_on"] + told["scored"] == 30
    assert 0 <= told["auc"]["low"] <= told["auc"]["value"] <= told["auc"]["high"] <= 1
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        assert (records.ledger.head(), records.audit_log.head()) == before


def test_stop_does_not_wait_for_what_trains() -> None:
    code = "import sys, client.cli.main; print([m for m in ('torch', 'nibabel', 'pynetdicom') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize(("lang", "told"), [("de", "Bereitschaft"), ("zh", "就绪情况")])
def test_the_check_speaks_the_hospitals_language_and_programs_english(
    ingested: Path, tmp_path: Path, lang: str, told: str
) -> None:
    settings = ingested / "site.yaml"
    before = settings.read_text("utf-8")
    settings.write_text(f"{before}\nlang: {lang}\n", "utf-8")
    try:
        shown = _run(ingested, "check").stdout
        rungs = _rungs(ingested, 0, "--html", tmp_path / "page.html")
    finally:
        settings.write_text(before, "utf-8")
    page = re.sub(r"<style>.*</style>|<[^>]+>", " ", (tmp_path / "page.html").read_text("utf-8"), flags=re.DOTALL)
    for text in (shown, page):
        assert told in text
        assert re.findall(r"\b(?:the|is|have|images|patients|malignant)\b", text) == []
    assert rungs["answering"]["found"] == "the hospital answers orders"
