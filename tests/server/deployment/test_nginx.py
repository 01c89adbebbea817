"""The researchers' door as nginx itself keeps it, before a server that answers everything: only reading passes."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client.link import gateway, supernode
from server.deployment import nginx, people, pki, register, study_logs
from server.deployment.server_dir import Hospital, ServerDir, ServerSettings, make
from tasks.machine.logs import set_aside
from tasks.protocol import enrolment

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="needs nginx")


class Anything(http.server.BaseHTTPRequestHandler):
    """Says yes to everything, as MLflow without rights does, and remembers what has come."""

    came: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.came.append(self.path)
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
    superlink = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Anything)
    settings = ServerSettings(host="localhost", hospitals_address="127.0.0.1", hospitals_port=free_port(),
                              researchers_port=free_port(), mlflow_port=behind.server_port,
                              superlink_port=superlink.server_port)  # fmt: skip
    made = make(tmp_path_factory.mktemp("fence") / "home", settings)
    pki.create_authority(made)
    pki.issue_server(made)
    pki.issue_superlink(made)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(*pki.superlink_certificate(made))
    superlink.socket = secure.wrap_socket(superlink.socket, server_side=True)
    threading.Thread(target=superlink.serve_forever, daemon=True).start()
    people.issue(made, "ada")
    for role in people.ROLES:
        people.issue(made, f"a-{role}", role)
    process = subprocess.Popen(nginx.command(made))
    try:
        until_open(settings.researchers_port)
        yield made
    finally:
        process.terminate()
        process.wait(20)
        behind.shutdown()
        superlink.shutdown()


def until_open(port: int) -> None:
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail("nginx does not listen")


def inside(home: ServerDir, certificate: Path) -> httpx.Client:
    """Somebody at the door for people."""
    context = trusting(home)
    context.load_cert_chain(str(certificate))
    address = f"https://localhost:{home.settings.researchers_port}"
    return httpx.Client(base_url=address, verify=context, timeout=10, trust_env=False)


@pytest.fixture
def ada(home: ServerDir) -> Iterator[httpx.Client]:
    with inside(home, home.path / "researchers" / "ada.pem") as client:
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
    assert {path for path in refused if not path.startswith(nginx.RUNS)} == set()
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
    ada.post("/v1/control/start-run")
    ends, log = time.monotonic() + 10, home.logs / "fence-access.log"
    while time.monotonic() < ends and "start-run" not in log.read_text():
        time.sleep(0.05)
    for path in ("/studies/nothing", "/v1/control/start-run"):
        assert any('"CN=ada,OU=researcher"' in line and path in line for line in log.read_text().splitlines()), path


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


@pytest.mark.parametrize(("role", "code"), [("coordinator", 200), ("researcher", 200), ("reader", 403)])
def test_a_role_decides_who_may_submit_and_all_read(home: ServerDir, role: str, code: int) -> None:
    with inside(home, home.path / "researchers" / f"a-{role}.pem") as client:
        assert client.post("/v1/control/start-run", content=b"x").status_code == code
        for call in ("stop-run", "list-runs", "stream-logs", "register-node", "unregister-node"):
            assert client.post(f"/v1/control/{call}").status_code == 404, call
        assert client.get("/api/2.0/mlflow/experiments/get").status_code == 200
        assert client.get("/studies/nothing").status_code == 404


def test_logs_are_read_by_their_researcher_and_by_coordinators(home: ServerDir) -> None:
    (home.logs / "run-7.log").write_text("round 1\nround 2\n")
    study_logs.show(home, "ada", "busi-1", 7)
    path = f"/{study_logs.path_of('ada', 'busi-1', 7)}"
    seen = {}
    for name in ("ada", "a-coordinator", "a-researcher", "a-reader"):
        with inside(home, home.path / "researchers" / f"{name}.pem") as client:
            seen[name] = client.get(path, headers={"X-Person": "ada"}).status_code
            if name == "ada":
                part = client.get(path, headers={"Range": "bytes=8-"})
                assert (part.status_code, part.text) == (206, "round 2\n")
                assert client.get(path, headers={"Range": "bytes=16-"}).status_code == 416
            for detour in (path.replace("ada", "a-reader"), "/logs/", "/logs/ada/",
                           "/logs/ada/busi-1/../../../../logs/run-7.log", "/logs/ada%2fbusi-1/run-7.log"):  # fmt: skip
                assert client.get(detour).status_code in (403, 404), detour
            assert client.post(path).status_code == 403
    assert seen == {"ada": 200, "a-coordinator": 200, "a-researcher": 403, "a-reader": 403}


def test_a_certificate_with_another_role_opens_nothing(home: ServerDir, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for number, role in enumerate(("hospital", "coordinators", "xcoordinator", "coordinator,OU=reader", "", "Reader")):
        file = tmp_path / f"{number}.pem"
        file.write_bytes(people._both(key, pki.issue_client(home, role or "x", "eve", key.public_key(), 1)))
        with inside(home, file) as client:
            for path in ("/health", "/", "/studies/", "/runs/queue.json"):
                assert client.get(path).status_code == 403, (role, path)
            assert client.post("/v1/control/start-run").status_code == 403


def test_a_certificate_of_an_older_release_is_a_researcher_s(home: ServerDir, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    old = pki._issued(home, subject, key.public_key(), 1, ExtendedKeyUsageOID.CLIENT_AUTH, None)
    (tmp_path / "old.pem").write_bytes(people._both(key, old))
    with inside(home, tmp_path / "old.pem") as client:
        assert client.post("/v1/control/start-run").status_code == 200


def test_no_session_outlives_a_revocation(home: ServerDir) -> None:
    """A session that is resumed is not verified again."""
    context = trusting(home)
    context.load_cert_chain(str(home.path / "researchers" / "ada.pem"))
    for most in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = most
        address, session = ("localhost", home.settings.researchers_port), None
        for _ in range(2):
            secure = context.wrap_socket(socket.create_connection(address, 10), server_hostname="localhost",
                                         session=session)  # fmt: skip
            with secure:
                secure.sendall(b"GET /runs/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert secure.recv(4096).startswith(b"HTTP/1.1 404")
                assert not secure.session_reused
                session = secure.session


def test_a_renewed_certificate_opens_and_the_old_one_does_not(home: ServerDir, tmp_path: Path) -> None:
    path = people.issue(home, "grace", "reader")
    (tmp_path / "old.pem").write_bytes(path.read_bytes())
    assert people.renew(home, "grace")[0] == path
    os.kill(int((home.path / "fence" / "nginx.pid").read_text()), signal.SIGHUP)

    def code(certificate: Path) -> int:
        with inside(home, certificate) as client:
            return client.get("/runs/queue.json").status_code

    ends = time.monotonic() + 20
    while code(tmp_path / "old.pem") != 400 and time.monotonic() < ends:
        time.sleep(0.1)
    assert (code(tmp_path / "old.pem"), code(path)) == (400, 404)


def test_a_stranger_comes_no_further_than_the_door(home: ServerDir) -> None:
    context = ssl.create_default_context(cafile=str(home.authority))
    found = httpx.get(f"https://localhost:{home.settings.researchers_port}/", verify=context, trust_env=False)
    assert found.status_code == 400


def test_a_hospital_is_told_whether_it_is_admitted_from_files(home: ServerDir) -> None:
    home.register({"alder": Hospital("alder", 7, "0123 4567 " * 4, "2026-11-30", 200)})
    with home.changing() as hospitals:
        hospitals.append(Hospital("birch", 8, "89ab cdef " * 4, "2026-11-29", 200, revoked="2026-11-30"))
    register.publish(home)
    context = ssl.create_default_context(cafile=str(home.authority))
    address = f"https://localhost:{home.settings.hospitals_port}"
    with httpx.Client(base_url=address, verify=context, timeout=10, trust_env=False) as outside:
        for key, state in (("01234567" * 4, "admitted"), ("89abcdef" * 4, "revoked"), ("0" * 32, "unknown")):
            assert outside.get(f"/admission/{key}").json()["state"] == state
        assert outside.get("/health").status_code == 200
        assert outside.get("/admission/unknown.json").status_code == 404
        home.admission.joinpath("unknown.json").unlink()
        assert outside.get(f"/admission/{'0' * 32}").status_code == 503, "then it cannot be told"


def test_one_person_s_flood_of_submissions_takes_nothing_from_others(home: ServerDir, ada: httpx.Client) -> None:
    """The SuperLink stores each before anybody looks at it."""
    people.issue(home, "hedy")
    codes = [ada.post("/v1/control/start-run", content=b"x").status_code for _ in range(90)]
    assert codes[0] == 200
    assert codes.count(nginx.TOO_MANY) > 10
    with inside(home, home.path / "researchers" / "hedy.pem") as other:
        assert other.post("/v1/control/start-run", content=b"x").status_code == 200
        assert other.post("/v1/control/start-run", content=bytes(3 * 2**20 + 1)).status_code == 413


# --- the hospitals' door ----------------------------------------------------------------------------------------------

PUSH = "/v1/fleet/push-object"
PIECE = 5 * 2**20
"""Flower's piece of an array."""


def at_the_door(home: ServerDir, certificate: Path | None = None, timeout: float = 10) -> httpx.Client:
    context = trusting(home)
    if certificate is not None:
        context.load_cert_chain(str(certificate))
    address = f"https://localhost:{home.settings.hospitals_port}"
    return httpx.Client(base_url=address, verify=context, timeout=timeout, trust_env=False)


def known(home: ServerDir, name: str, folder: Path) -> Path:
    """Certificate and key of a hospital that is admitted, as its gateway has them."""
    key = ec.generate_private_key(ec.SECP384R1())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    fingerprint = enrolment.public_fingerprint(public)
    with home.changing() as hospitals:
        hospitals.append(Hospital(name, 9, fingerprint, "2026-11-30", 200, public.decode()))
    register.publish(home)
    with at_the_door(home) as outside:
        while (answer := outside.get(f"/admission/{fingerprint.replace(' ', '')}")).status_code == nginx.TOO_MANY:
            time.sleep(0.1)
    told = answer.json()
    path = folder / f"{name}.pem"
    path.write_bytes(people._both(key, x509.load_pem_x509_certificate(told["certificate"].encode())))
    return path


def opened(home: ServerDir, certificate: Path | None = None, source: str = "127.0.0.1") -> ssl.SSLSocket:
    context = trusting(home)
    if certificate is not None:
        context.load_cert_chain(str(certificate))
    address = ("localhost", home.settings.hospitals_port)
    raw = socket.create_connection(address, 10, source_address=(source, 0))
    return context.wrap_socket(raw, server_hostname="localhost")


def begun(secure: ssl.SSLSocket, path: str = PUSH, length: int = PIECE) -> ssl.SSLSocket:
    """A request of which only the first byte of the body has come."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\na"
    secure.sendall(head.encode())
    return secure


def test_an_admitted_hospital_comes_in_with_its_certificate(home: ServerDir, tmp_path: Path) -> None:
    mine = known(home, "cedar", tmp_path)
    with at_the_door(home, mine) as inside:
        for call in nginx.FLEET:
            assert inside.post(f"/v1/fleet/{call}", content=b"x").status_code == 200
        assert inside.post(PUSH, content=b"a" * (PIECE + 2**16)).status_code == 200
        assert inside.post(PUSH, content=b"a" * 2**24).status_code == 413
        assert inside.get("/health").status_code == 200
        assert inside.post("/v1/control/start-run").status_code == 404
    waited(home.logs / nginx.ACCESS_LOG, '"CN=cedar,OU=hospital"')


def test_a_stranger_is_refused_before_a_body_is_read(home: ServerDir) -> None:
    before = list(Anything.came)
    for call in nginx.FLEET:
        secure = begun(opened(home), f"/v1/fleet/{call}")
        secure.settimeout(3)
        assert secure.recv(64).startswith(b"HTTP/1.1 403"), call
        secure.close()
    for path, code in (("/health", 413), (f"/admission/{'0' * 32}", 413)):
        secure = begun(opened(home), path)
        assert secure.recv(64).startswith(f"HTTP/1.1 {code}".encode()), path
        secure.close()
    assert Anything.came == before


@pytest.mark.parametrize("role", ["coordinator", "researcher", "reader", "xhospital", "hospitals", "Hospital"])
def test_another_certificate_of_this_authority_is_a_stranger_s(home: ServerDir, tmp_path: Path, role: str) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    (tmp_path / "x.pem").write_bytes(people._both(key, pki.issue_client(home, role, "cedar", key.public_key(), 1)))
    with at_the_door(home, tmp_path / "x.pem") as outside:
        assert outside.post(PUSH, content=b"x").status_code == 403
        assert outside.get("/health").status_code == 200


def test_another_authority_s_hospital_is_refused(home: ServerDir, tmp_path: Path) -> None:
    other = make(tmp_path / "other", ServerSettings(host="localhost"))
    pki.create_authority(other)
    key = ec.generate_private_key(ec.SECP384R1())
    issued = pki.issue_client(other, "hospital", "cedar", key.public_key(), 1)
    (tmp_path / "x.pem").write_bytes(people._both(key, issued))
    with at_the_door(home, tmp_path / "x.pem") as outside:
        assert outside.post(PUSH, content=b"x").status_code == 400


def test_a_hospital_s_certificate_does_not_open_the_door_for_people(home: ServerDir, tmp_path: Path) -> None:
    with inside(home, known(home, "fir", tmp_path)) as client:
        for path in ("/health", "/", "/runs/queue.json", "/studies/x"):
            assert client.get(path).status_code == 403
        assert client.post("/v1/control/start-run").status_code == 403


def test_a_hospital_that_was_revoked_is_a_stranger_and_is_still_told_so(home: ServerDir, tmp_path: Path) -> None:
    mine = known(home, "gum", tmp_path)
    key = home.hospitals()["gum"].key.replace(" ", "")
    asked: list[bool] = []

    def ask() -> bool:
        """As the supervisor does, which cannot ask a program that is just starting."""
        asked.append(len(asked) > 0)
        if asked[-1]:
            os.kill(int((home.path / "fence" / "nginx.pid").read_text()), nginx.RELOAD)
        return asked[-1]

    look = nginx.Reloader(home, ask)
    look()
    assert asked == [], "nothing has changed"
    with home.changing() as hospitals:
        hospitals[:] = [replace(one, revoked="now") if one.name == "gum" else one for one in hospitals]
    register.publish(home)
    for _ in range(4):
        look()
    assert asked == [False, True]

    def code() -> int:
        with at_the_door(home, mine) as client:
            return client.post(PUSH, content=b"x").status_code

    ends = time.monotonic() + 20
    while code() != 400 and time.monotonic() < ends:
        time.sleep(0.1)
    assert code() == 400
    with at_the_door(home) as outside:
        assert outside.get(f"/admission/{key}").json() == {"state": "revoked", "since": "now"}


def test_a_hospital_s_own_program_finds_its_way_through_the_door(home: ServerDir, tmp_path: Path) -> None:
    link = gateway.Link(f"localhost:{home.settings.hospitals_port}", tmp_path / "node.key", home.authority, tmp_path)
    link.key.write_bytes(enrolment.new_key())
    asked = enrolment.request("maple", link.key.read_bytes(), 200)
    assert "has not admitted this hospital" in gateway.refusal(link)
    one = Hospital("maple", 12, enrolment.key_fingerprint(asked), "2026-11-30", 200, asked.public_key)
    with home.changing() as hospitals:
        hospitals.append(one)
    register.publish(home)
    assert gateway.refusal(link) == ""
    words = ["--superlink", link.server, "--root-certificates", str(link.authority), "--auth-supernode-private-key"]
    context = supernode.secured([*words, str(link.key)], pytest.fail)
    address = f"https://{link.server}{PUSH}"
    assert httpx.post(address, content=b"x", verify=context, trust_env=False).status_code == 200
    assert gateway.reach(link) == ""
    with home.changing() as hospitals:
        hospitals[:] = [replace(other, revoked="2026-12-01") if other == one else other for other in hospitals]
    register.publish(home)
    ends = time.monotonic() + 20
    while httpx.post(address, verify=context, trust_env=False).status_code != 400 and time.monotonic() < ends:
        time.sleep(0.1)
    assert gateway.reach(link) == "", "the server is there, so that the hospital asks on"
    assert "has revoked this hospital" in gateway.refusal(link)


def test_strangers_behind_its_own_address_take_nothing_from_a_hospital(home: ServerDir, tmp_path: Path) -> None:
    """Requests half sent, bodies a byte at a time, floods: all from the address that the hospital has as well."""
    mine = known(home, "holly", tmp_path)
    slow = [begun(opened(home), path) for path in (PUSH, "/health") for _ in range(60)]
    for _ in range(100):
        half = opened(home)
        half.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: lo")
        slow.append(half)
    flood = [at_the_door(home) for _ in range(4)]
    codes = [client.get("/health").status_code for _ in range(30) for client in flood]
    assert codes.count(nginx.TOO_MANY) > 10, "strangers are limited"
    with at_the_door(home, mine) as inside:
        for _ in range(60):
            assert inside.post("/v1/fleet/send-node-heartbeat", content=b"x").status_code == 200
            assert inside.get("/health").status_code == 200
    for one in (*slow, *flood):
        one.close()


def test_a_body_comes_to_the_superlink_when_it_is_complete(home: ServerDir, tmp_path: Path) -> None:
    mine = known(home, "ivy", tmp_path)
    before = Anything.came.count(PUSH)
    secure = begun(opened(home, mine), length=5)
    time.sleep(0.5)
    assert Anything.came.count(PUSH) == before
    secure.sendall(b"aaaa")
    assert secure.recv(64).startswith(b"HTTP/1.1 200")
    assert Anything.came.count(PUSH) == before + 1
    secure.close()


def test_a_hospital_that_sends_slowly_costs_itself_alone(home: ServerDir, tmp_path: Path) -> None:
    slow, other = known(home, "juniper", tmp_path), known(home, "larch", tmp_path)
    held = [begun(opened(home, slow)) for _ in range(nginx.PIECES + 2)]
    with at_the_door(home, slow) as itself:
        assert itself.post(PUSH, content=b"a" * PIECE).status_code == nginx.TOO_MANY
        assert itself.post(PUSH, content=iter([b"a"])).status_code == nginx.TOO_MANY
        assert itself.post("/v1/fleet/send-node-heartbeat", content=b"x").status_code == 200
    held += [begun(opened(home, slow), length=1000) for _ in range(40)]
    with at_the_door(home, other) as inside:
        for _ in range(20):
            assert inside.post("/v1/fleet/pull-messages", content=b"x").status_code == 200
    with at_the_door(home, slow) as itself:
        assert itself.post("/v1/fleet/pull-messages", content=b"x").status_code == nginx.TOO_MANY
    for one in held:
        one.close()
