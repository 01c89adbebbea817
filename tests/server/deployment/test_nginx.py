"""The researchers' door as nginx itself keeps it, before a server that answers everything: only reading passes."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.deployment import nginx, pki, register
from server.deployment.server_dir import Hospital, ServerDir, ServerSettings, make
from tasks.machine.logs import set_aside

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")


class Anything(http.server.BaseHTTPRequestHandler):
    """Says yes to everything, as MLflow without rights does."""

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  # names of the standard library's

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerDir]:
    """A server's folder with a running fence, and something behind it."""
    behind = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    settings = ServerSettings(host="localhost", hospitals_address="127.0.0.1", hospitals_port=free_port(),
                              researchers_port=free_port(), mlflow_port=behind.server_port)  # fmt: skip
    made = make(tmp_path_factory.mktemp("fence") / "home", settings)
    pki.create_authority(made)
    pki.issue_server(made)
    pki.issue_researcher(made, "ada")
    process = subprocess.Popen(nginx.command(made))
    try:
        until_open(settings.researchers_port)
        yield made
    finally:
        process.terminate()
        process.wait(20)
        behind.shutdown()


def until_open(port: int) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("nginx does not listen")


@pytest.fixture
def ada(home: ServerDir) -> Iterator[httpx.Client]:
    context = ssl.create_default_context(cafile=str(home.authority))
    context.load_cert_chain(str(home.path / "researchers" / "ada.pem"))
    address = f"https://localhost:{home.settings.researchers_port}"
    with httpx.Client(base_url=address, verify=context, timeout=10, trust_env=False) as client:
        yield client


def routes() -> set[tuple[str, str]]:
    """Every method and path of MLflow's own server, from its own table."""
    from mlflow.server import app

    return {(method, str(rule)) for rule in app.url_map.iter_rules() for method in rule.methods - {"OPTIONS", "HEAD"}}


def test_of_all_that_mlflow_serves_researchers_reach_what_reads(ada: httpx.Client) -> None:
    passed = {(method, path) for method, path in sorted(routes()) if ada.request(method, path).status_code == 200}
    writing = {one for one in passed if one[0] != "GET"}
    searches = {("POST", f"/{prefix}/{search}") for prefix in ("api", "ajax-api") for search in nginx.SEARCHES}
    assert writing == (searches & routes()) | {("POST", "/graphql")}
    refused = {path for method, path in routes() if method == "GET"} - {path for _, path in passed}
    assert {path for path in refused if not path.startswith(nginx.RUNS)} == {"/health"}, "which is the SuperLink's"
    assert len(searches & routes()) >= 18


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/models/m/artifacts/data/weights.safetensors"),
        ("POST", "/api/2.0/mlflow/runs/search/../create"),
        ("POST", "/api/2.0/mlflow/runs/search%2f..%2fcreate"),
        ("POST", "//api/2.0/mlflow/runs/create"),
        ("POST", "/ajax-api/2.0/mlflow/runs/searching"),
        ("POST", "/api/2x0/mlflow/runs/search"),
        ("DELETE", "/api/2.0/mlflow/runs/search"),
        ("PUT", "/graphql"),
        ("GET", "/ajax-api/3.0/jobs/"),
        ("POST", "/ajax-api/3.0/jobs"),
        ("GET", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("GET", "/ajax-api/3.0/mlflow/%61ssistant/config"),
        ("PROPFIND", "/"),
    ],
)
def test_detours_lead_nowhere(ada: httpx.Client, method: str, path: str) -> None:
    assert ada.request(method, path).status_code in (400, 403, 404, 405)


def test_who_came_is_written_down(home: ServerDir, ada: httpx.Client) -> None:
    ada.get("/studies/nothing")
    ada.post("/v1/control/list-runs")
    ends, log = time.monotonic() + 10, home.logs / "fence-access.log"
    while time.monotonic() < ends and "list-runs" not in log.read_text():
        time.sleep(0.05)
    for path in ("/studies/nothing", "/v1/control/list-runs"):
        assert any('"CN=ada"' in line and path in line for line in log.read_text().splitlines()), path


def test_who_follows_a_study_fills_no_log(home: ServerDir, ada: httpx.Client) -> None:
    with httpx.Client(base_url=f"https://localhost:{home.settings.hospitals_port}", verify=trusting(home),
                      trust_env=False) as hospital:  # fmt: skip
        quiet = ["/runs/queue.json", "/runs/17.json", "/studies/ab12/study.json",
                 "/studies/ab12/federated/checkpoint.json", "/studies/ab12/document.json"]  # fmt: skip
        for path in quiet:
            assert ada.get(path).status_code == 404
        assert hospital.get(f"/admission/{'0' * 32}").status_code in (200, 503)
        ada.get("/studies/ab12/model.safetensors")
        ada.get("/studies/last/study.jsonx")
    lines = waited(home.logs / nginx.ACCESS_LOG, "/studies/last/study.jsonx")
    assert not [line for line in lines for path in quiet if f" {path} " in line]
    assert any("model.safetensors" in line for line in lines)
    assert "open()" not in (home.logs / nginx.ERROR_LOG).read_text()


def test_a_log_that_was_set_aside_loses_no_line_and_stays_private(home: ServerDir, ada: httpx.Client) -> None:
    log = home.logs / nginx.ACCESS_LOG
    ada.get("/studies/before")
    waited(log, "/studies/before")
    set_aside(log)
    ada.get("/studies/between")
    waited(log.with_name(f"{log.name}.1"), "/studies/between")
    os.kill(int((home.path / "fence" / "nginx.pid").read_text()), nginx.REOPEN)
    ends = time.monotonic() + 20
    while time.monotonic() < ends and "/studies/after" not in log.read_text():
        ada.get("/studies/after")
        time.sleep(0.1)
    assert "/studies/after" in log.read_text()
    assert {path.stat().st_mode & 0o777 for path in home.logs.iterdir()} == {0o600}


def waited(log: Path, text: str) -> list[str]:
    """The lines of a log, once a text is in it."""
    ends = time.monotonic() + 10
    while time.monotonic() < ends and text not in log.read_text():
        time.sleep(0.05)
    assert text in log.read_text()
    return log.read_text().splitlines()


def trusting(home: ServerDir) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(home.authority))


def test_a_stranger_comes_no_further_than_the_door(home: ServerDir) -> None:
    context = ssl.create_default_context(cafile=str(home.authority))
    found = httpx.get(f"https://localhost:{home.settings.researchers_port}/", verify=context, trust_env=False)
    assert found.status_code == 400


def test_a_hospital_is_told_whether_it_is_admitted_also_while_the_superlink_is_down(home: ServerDir) -> None:
    home.register({"alder": Hospital("alder", 7, "0123 4567 " * 4, "2026-11-30", 200)})
    with home.changing() as hospitals:
        hospitals.append(Hospital("birch", 8, "89ab cdef " * 4, "2026-11-29", 200, revoked="2026-11-30"))
    register.publish(home)
    context = ssl.create_default_context(cafile=str(home.authority))
    address = f"https://localhost:{home.settings.hospitals_port}"
    with httpx.Client(base_url=address, verify=context, timeout=10, trust_env=False) as outside:
        for key, state in (("01234567" * 4, "admitted"), ("89abcdef" * 4, "revoked"), ("0" * 32, "unknown")):
            assert outside.get(f"/admission/{key}").json()["state"] == state
        assert outside.get("/health").status_code in (502, 504)
        assert outside.get("/admission/unknown.json").status_code == 404
        home.admission.joinpath("unknown.json").unlink()
        assert outside.get(f"/admission/{'0' * 32}").status_code == 503, "then it cannot be told"
