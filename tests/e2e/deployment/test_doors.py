"""Each door from its wrong side, by somebody who holds no more than the certificate of the authority."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import httpx

from server.cli import people
from server.deployment import nginx, pki
from server.deployment import people as certified
from server.deployment.server_dir import read
from tests.e2e.deployment.federation import Federation, until

DETOURS = (
    "/docs",
    "/openapi.json",
    "/",
    "/studies/",
    "//v1/control/list-runs",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/list-runs",
    "/v1/fleet/pull-messages/../../runtime/acquire-task",
    "/v1/fleet/register-node",
)


def dial(federation: Federation, port: int, certificate: Path | None = None) -> httpx.Client:
    context = ssl.create_default_context(cafile=str(federation.home / "pki" / "authority.crt"))
    if certificate is not None:
        context.load_cert_chain(str(certificate))
    return httpx.Client(base_url=f"https://localhost:{port}", verify=context, timeout=10, trust_env=False)


def superlinks_own_paths(federation: Federation) -> list[str]:
    """Every path that the SuperLink serves, from its own list, which only loopback reaches."""
    with dial(federation, federation.superlink_port) as inside:
        return sorted(inside.get("/openapi.json").json()["paths"])


def test_hospitals_reach_the_fleet_api_and_health_and_nothing_else(small: Federation) -> None:
    paths = superlinks_own_paths(small)
    assert len([path for path in paths if "/control/" in path]) > 10
    assert len([path for path in paths if "/runtime/" in path]) > 10
    passed = set()
    with dial(small, small.hospitals_port) as outside:
        for path in [*paths, *DETOURS]:
            for method in ("GET", "POST"):
                if outside.request(method, path).status_code != 404:
                    passed.add(path)
    assert passed == {"/health", *(f"/v1/fleet/{call}" for call in nginx.FLEET)}


def test_a_key_is_told_whether_it_is_admitted_and_nothing_else_is_told(small: Federation) -> None:
    key = read(small.home).hospitals()["alder"].key.replace(" ", "")
    with dial(small, small.hospitals_port) as outside:
        assert outside.get(f"/admission/{key}").json()["state"] == "admitted"
        assert outside.get(f"/admission/{'0' * 32}").json() == {"state": "unknown"}
        assert outside.post(f"/admission/{key}").status_code == 403
        for path in ("", key[:31], f"{key}.json", "unknown.json", f"{key}/..", f"{key}%00", "../nginx.conf"):
            assert outside.get(f"/admission/{path}").status_code in (400, 404), path


def test_the_fleet_api_wants_a_key_that_was_admitted(small: Federation) -> None:
    with dial(small, small.hospitals_port) as outside:
        for call in nginx.FLEET:
            answer = outside.post(f"/v1/fleet/{call}", headers={"content-type": "application/protobuf"})
            assert 400 <= answer.status_code < 500, (call, answer.status_code)


def test_researchers_door_stays_shut_without_a_certificate(small: Federation) -> None:
    with dial(small, small.researchers_port) as outside:
        for path in [*superlinks_own_paths(small), "/", "/studies/", "/runs/"]:
            answer = outside.post(path) if path.startswith("/v1") else outside.get(path)
            assert answer.status_code == 400, path
            assert "SSL certificate" in answer.text


def test_the_servers_own_certificate_opens_nothing(small: Federation, tmp_path: Path) -> None:
    pki_folder = small.home / "pki"
    both = tmp_path / "both.pem"
    both.write_bytes((pki_folder / "server.key").read_bytes() + (pki_folder / "server.crt").read_bytes())
    with dial(small, small.researchers_port, both) as outside:
        assert outside.get("/health").status_code == 400


def test_a_certificate_of_another_authority_opens_nothing(small: Federation, tmp_path: Path) -> None:
    from server.deployment.server_dir import ServerSettings, make

    other = make(tmp_path / "other", ServerSettings(host="localhost"))
    pki.create_authority(other)
    with dial(small, small.researchers_port, certified.issue(other, "mallory")) as outside:
        assert outside.get("/health").status_code == 400


def test_a_researcher_reaches_one_call_and_the_studies(small: Federation) -> None:
    passed = set()
    with dial(small, small.researchers_port, small.researcher()) as inside:
        for path in superlinks_own_paths(small):
            if path.startswith("/v1") and inside.post(path).status_code != 404:
                passed.add(path)
        assert inside.get("/").status_code == 200, "MLflow"
        assert inside.put("/studies/x", content=b"").status_code == 403
        assert inside.get("/studies/../pki/authority.key").status_code in (400, 404)
        assert inside.get("/studies/%2e%2e/pki/authority.key").status_code in (400, 404)
        assert inside.get("/studies../pki/authority.key").status_code == 404
    assert passed == {f"/v1/control/{call}" for call in nginx.CONTROL}


def test_nobody_reaches_mlflows_assistant_through_the_fence_nor_its_gateway(small: Federation) -> None:
    """To MLflow whoever comes through the fence is on its own machine, where the assistant runs commands."""
    home = read(small.home)
    inside = httpx.Client(base_url=home.mlflow, timeout=30, trust_env=False)
    assert inside.get(f"{nginx.ASSISTANT}/config").status_code == 200, "it is there, and asks nobody for a name"
    assert inside.get("/gateway/anything/mlflow/invocations").status_code in (404, 405, 501)
    assert inside.post("/gateway/mlflow/v1/chat/completions", json={"model": "x", "messages": []}).status_code == 501
    detours = (
        nginx.ASSISTANT,
        f"{nginx.ASSISTANT}/config",
        f"{nginx.ASSISTANT}/providers",
        "/ajax-api/3.0/mlflow//assistant/config",
        "/ajax-api/3.0/mlflow/%61ssistant/config",
        "/ajax-api/3.0/x/../mlflow/assistant/config",
        "/studies/../ajax-api/3.0/mlflow/assistant/config",
    )
    with dial(small, small.researchers_port, small.researcher()) as researcher:
        for path in detours:
            assert researcher.get(path).status_code == 404, path
            assert researcher.put(path, json={}).status_code == 404, path


WRITES = (
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/1/x/artifacts/data/weights.safetensors"),
    ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/1/x"),
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/api/2.0/mlflow/experiments/delete"),
    ("POST", "/ajax-api/2.0/mlflow/runs/set-tag"),
    ("POST", "/ajax-api/2.0/mlflow/runs/update"),
    ("POST", "/ajax-api/2.0/mlflow/registered-models/alias"),
    ("PATCH", "/api/2.0/mlflow/model-versions/update"),
    ("DELETE", "/api/2.0/mlflow/runs/search"),
    ("PUT", "/api/2.0/mlflow/runs/search"),
    ("POST", "/api/2.0/mlflow/runs/search/../create"),
    ("POST", "/api/2.0/mlflow/runs/search%2f..%2fcreate"),
    ("POST", "/ajax-api/3.0/mlflow/demo/generate"),
    ("POST", "/ajax-api/2.0/mlflow/webhooks"),
    ("POST", "/graphql/x"),
)


def test_researchers_read_mlflow_and_write_nothing_there(small: Federation) -> None:
    with dial(small, small.researchers_port, small.researcher()) as inside:
        for method, path in WRITES:
            assert inside.request(method, path, json={"name": "x"}).status_code in (403, 404), (method, path)
        for path in nginx.RUNS:
            assert inside.get(path).status_code == 404, path
            assert inside.post(f"{path}/", json={}).status_code == 404, path
        for prefix in ("api", "ajax-api"):
            found = inside.post(f"/{prefix}/2.0/mlflow/experiments/search", json={"max_results": 5})
            assert found.status_code == 200
            assert "experiments" in found.json()
        assert inside.get("/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}).status_code == 200
        asked = inside.post("/graphql", json={"query": "{ __typename }", "operationName": None, "variables": {}})
        assert asked.status_code == 200


def test_the_fence_writes_down_who_came(small: Federation) -> None:
    with dial(small, small.researchers_port, small.researcher("ada")) as inside:
        inside.get("/studies/nothing")
        inside.post("/v1/control/start-run")
    lines = (small.home / "logs" / "fence-access.log").read_text().splitlines()
    for path in ("/studies/nothing", "/v1/control/start-run"):
        assert any('"CN=ada,OU=researcher"' in line and path in line for line in lines), path


def test_a_revoked_researcher_is_shut_out(small: Federation) -> None:
    certificate = small.researcher("leaving")
    kept = certificate.with_suffix(".copy")
    shutil.copy(certificate, kept)

    def opens() -> bool:
        with dial(small, small.researchers_port, kept) as inside:
            return inside.get("/runs/queue.json").status_code == 200

    assert opens()
    people.revoke("leaving", home=small.home)
    until(lambda: not opens(), 30, "the certificate no longer opens the door")


def test_only_the_two_doors_listen_beyond_loopback(small: Federation) -> None:
    """The doors are on loopback too in this test, so the addresses that each program was given are compared."""
    listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True, check=True).stdout
    wanted = {small.superlink_port, small.mlflow_port, small.hospitals_port, small.researchers_port}
    found = {}
    for line in listening.splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if state == "0A":
            host, port = address.split(":")
            found[int(port, 16)] = socket.inet_ntoa(int(host, 16).to_bytes(4, "little"))
    assert wanted <= found.keys()
    assert {found[port] for port in wanted} == {"127.0.0.1"}


def test_a_hospital_listens_for_its_own_trainer_only(small: Federation) -> None:
    hospital = small.hospitals[0]
    host, _, port = hospital.gateway.rpartition(":")
    until(lambda: "answering orders" in hospital.log("trainer"), 120, "the trainer is served")
    answer = httpx.post(f"http://{host}:{port}/v1/runtime/acquire-task", content=b"\x0a\x0eflwr-clientapp",
                        headers={"content-type": "application/protobuf"}, trust_env=False)  # fmt: skip
    assert answer.status_code in (401, 403), "whoever reaches it gets an order without the secret"


def test_folders_and_secrets_are_the_owners_alone(small: Federation) -> None:
    home = read(small.home)
    for path in [home.path, *(path for path in home.path.iterdir() if path.is_dir())]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path
    secrets = [*home.path.glob("pki/*.key"), *home.path.glob("researchers/*.pem"), home.superexec_secret]
    secrets += [hospital.link / name for hospital in small.hospitals for name in ("node.key", "trainer.secret")]
    assert len(secrets) >= 5
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_no_secret_is_on_a_command_line_and_nothing_calls_home(small: Federation) -> None:
    pids = [small.pid(program) for program in ("superlink", "mlflow", "studies", "nginx")]
    pids += [hospital.pid(part) for hospital in small.hospitals for part in ("gateway", "trainer")]
    for pid in filter(None, pids):
        words = Path(f"/proc/{pid}/cmdline").read_text()
        assert "PRIVATE KEY" not in words
        assert "--token" not in words
        variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
        if b"nginx" not in os.readlink(f"/proc/{pid}/exe").encode():
            assert "FLWR_TELEMETRY_ENABLED=0" in variables
            assert "FLWR_DISABLE_UPDATE_CHECK=1" in variables
