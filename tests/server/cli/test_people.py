"""Commands that need no running server, and what they say when it does not run."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from server.cli import server
from server.cli.main import app
from server.deployment import nginx, pki
from server.deployment.server_dir import Hospital, make, read
from tasks.machine.pulse import ALIVE, HEARD, Pulse
from tasks.protocol import enrolment

RUN = CliRunner()


def said(*words: str, code: int = 0) -> str:
    ended = RUN.invoke(app, list(words))
    assert ended.exit_code == code, ended.output
    return ended.output


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    said("init", "--host", "federation.example.org", "--home", str(path))
    return path


def test_init_makes_what_is_missing_and_replaces_nothing(home: Path) -> None:
    before = {path: path.read_bytes() for path in home.glob("pki/*")}
    assert {path.name for path in before} == {
        "authority.crt",
        "authority.key",
        "server.crt",
        "server.key",
        "revoked.pem",
    }
    said("init", "--host", "other.example.org", "--home", str(home))
    assert {path: path.read_bytes() for path in home.glob("pki/*")} == before
    assert read(home).settings.host == "federation.example.org"
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in home.glob("pki/*.key"))


def test_the_invitation_names_the_server_and_its_authority(home: Path) -> None:
    invitation = enrolment.read_invitation((home / "invitation.json").read_text())
    assert invitation.server == "federation.example.org:8443"
    assert invitation.certificate_authority == (home / "pki" / "authority.crt").read_text()


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_certificates_are_good_for_their_purpose_only(home: Path, purpose: str) -> None:
    said("researcher", "rosalind", "--home", str(home))
    for path, good in (
        (home / "pki" / "server.crt", "sslserver"),
        (home / "researchers" / "rosalind.pem", "sslclient"),
    ):
        words = ["openssl", "verify", "-purpose", purpose, "-CAfile", str(home / "pki" / "authority.crt"), str(path)]
        ended = subprocess.run(words, capture_output=True, text=True)
        assert (ended.returncode == 0) == (purpose == good), ended.stdout + ended.stderr


def test_a_researcher_is_issued_once_and_revoked(home: Path) -> None:
    told = said("researcher", "rosalind", "--home", str(home))
    assert "federation.example.org:8444" in told
    assert "consilium-server revoke rosalind" in said("researcher", "rosalind", "--home", str(home), code=2)
    said("revoke", "rosalind", "--home", str(home))
    assert "there is no hospital and no person" in said("revoke", "rosalind", "--home", str(home), code=1)
    for wrong, told in ((("host", "not a host"), "a name or an address"), (("hospitals", "127.0.0.1:99999"), "65535")):
        words = ("init", "--home", str(home / "other"), "--host", "localhost", f"--{wrong[0]}", wrong[1])
        assert told in said(*words, code=2)
        assert not (home / "other").exists()
    said("researcher", "rosalind", "--home", str(home))


@pytest.mark.parametrize("role", ["coordinator", "researcher", "reader"])
def test_a_person_has_one_role_also_after_renewal(home: Path, role: str) -> None:
    assert role in said("person", "ada", "--role", role, "--home", str(home))
    assert "consilium-server renew ada" in said("person", "ada", "--role", "reader", "--home", str(home), code=2)
    said("renew", "ada", "--days", "90", "--home", str(home))
    facts = json.loads(said("status", "--json", "--home", str(home), code=3))
    assert facts["people"] == {"ada": {"role": role, "days": 90}}
    told = json.loads(said("renew", "ada", "--home", str(home), "--json"))
    assert (told["role"], told["file"]) == (role, str(home / "researchers" / "ada.pem"))
    shown = " ".join(said("status", "--home", str(home), code=3).split())
    assert f"ada {role} 365 days" in shown


def test_what_cannot_be_renewed_or_be_a_role_is_told(home: Path) -> None:
    assert "no certificate of 'ada'" in said("renew", "ada", "--home", str(home), code=2)
    said("person", "ada", "--role", "owner", "--home", str(home), code=2)
    said("person", "../ada", "--home", str(home), code=2)
    assert list((home / "researchers").iterdir()) == []


def test_renewing_keeps_the_key(home: Path) -> None:
    pki.issue_server(read(home), days=-1)
    assert pki.days_left(read(home)) < 0
    assert "has expired" in said("up", "--home", str(home), code=2)
    key = (home / "pki" / "server.key").read_bytes()
    said("renew", "--home", str(home), "--days", "90")
    assert 89 < pki.days_left(read(home)) <= 90
    assert (home / "pki" / "server.key").read_bytes() == key


def test_the_superlink_has_a_certificate_of_its_own_that_outlasts_renewals(home: Path) -> None:
    """A SuperLink reads its certificate when it starts and never again."""
    server_dir = read(home)
    path, key = pki.superlink_certificate(server_dir)
    pki.issue_superlink(server_dir)
    issued = path.read_bytes()
    words = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", str(server_dir.authority)]
    for host, good in (("localhost", True), ("federation.example.org", False)):
        ended = subprocess.run([*words, "-verify_hostname", host, str(path)], capture_output=True, text=True)
        assert (ended.returncode == 0) is good, ended.stdout + ended.stderr
    assert pki.days_of(path) > 3600
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    said("renew", "--home", str(home))
    pki.issue_superlink(server_dir)
    assert path.read_bytes() == issued
    pki._issue(server_dir, ("localhost",), 30, path, key)
    pki.issue_superlink(server_dir)
    assert pki.days_of(path) > 3600, "one that ends is issued anew"
    superlink = next(program for program in server._programs(server_dir) if program.name == "superlink")
    assert str(path) in superlink.command
    assert str(server_dir.certificate) not in superlink.command


def test_a_request_whose_fingerprint_is_another_is_refused(home: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(enrolment.request("alder", enrolment.new_key(), 200).model_dump_json())
    told = said("admit", str(request), "--fingerprint", "0000 0000", "--home", str(home), code=1)
    assert "the request was changed on its way" in " ".join(told.split())
    assert read(home).hospitals() == {}


def test_without_a_server_that_is_up_commands_say_so(home: Path, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(enrolment.request("alder", enrolment.new_key(), 200).model_dump_json())
    assert "Is the server running?" in said("admit", str(request), "--home", str(home), code=1)
    assert "not running" in said("down", "--home", str(home))
    facts = json.loads(said("status", "--json", "--home", str(home), code=3))
    assert (facts["up"], facts["hospitals"], facts["studies"]) == (False, {}, {})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["init", "--host", "h", "--hospitals", "8443"], "must be ADDRESS:PORT"),
        (["status"], "consilium-server init"),
        (["admit", "nowhere.json"], "consilium-server init"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    assert told in " ".join(said(*words, "--home", str(tmp_path / "none"), code=2).split())


def test_a_folder_that_nginx_could_not_name_is_refused(tmp_path: Path) -> None:
    assert "no spaces" in said("init", "--host", "h", "--home", str(tmp_path / "a folder"), code=2)
    assert not (tmp_path / "a folder").exists()


def test_a_damaged_settings_file_is_told_with_its_place(home: Path) -> None:
    (home / "server.yaml").write_text("host: a b\ncolour: blue\nmlflow_port: 0\n")
    told = " ".join(said("status", "--home", str(home), code=2).split())
    assert all(name in told for name in ("host:", "colour:", "mlflow_port:"))


def test_nobody_else_can_read_the_folder_whatever_the_umask(tmp_path: Path) -> None:
    program = "import os; os.umask(0); from server.cli.main import main; main()"
    words = [sys.executable, "-c", program, "init", "--host", "h", "--home", str(tmp_path / "home")]
    subprocess.run(words, check=True, capture_output=True, env=os.environ)
    for path in [tmp_path / "home", *(path for path in (tmp_path / "home").iterdir() if path.is_dir())]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_hospital_is_revoked_while_the_server_is_down(home: Path) -> None:
    read(home).register({"alder": Hospital("alder", 7, "1f0c 33aa", "2026-11-30", 200)})
    assert "can no longer take part" in said("revoke", "alder", "--home", str(home))
    assert read(home).hospitals() == {}
    told = json.loads((home / "fence" / "admission" / "1f0c33aa.json").read_text())
    assert told["state"] == "revoked"
    assert "there is no hospital and no person" in said("revoke", "alder", "--home", str(home), code=1)


def test_the_queue_is_shown_also_while_the_server_is_down(home: Path) -> None:
    facts = json.loads(said("queue", "--json", "--home", str(home)))
    assert facts == {"at_once": 5, "running": [], "waiting": [], "up": False}
    assert "not running" in said("queue", "--home", str(home))


def test_a_study_that_cannot_be_read_does_not_hide_the_others(home: Path) -> None:
    folder = home / "studies" / "x-1"
    folder.mkdir()
    (folder / "study.json").write_text("{")
    facts = json.loads(said("status", "--json", "--home", str(home), code=3))
    assert facts["studies"]["x-1"]["state"] == "damaged"


def test_what_somebody_has_deleted_is_there_again_when_the_server_starts(home: Path) -> None:
    for name in ("superlink", "queue", "runs"):
        shutil.rmtree(home / name)
    make(home, read(home).settings)
    assert (home / "superlink" / "superexec.secret").exists()
    assert (home / "queue").is_dir()


def test_every_program_of_the_server_says_whether_it_is_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nginx, "command", lambda _: ["nginx"])
    programs = {one.name: one for one in server._programs(read(home))}
    assert programs.keys() == {"superlink", "mlflow", "studies", "nginx"}
    assert all(one.healthy is not None for one in programs.values())
    studies = programs["studies"]
    assert studies.healthy is not None
    assert studies.heard is not None
    Pulse(Path(studies.environment[ALIVE])).beat()
    assert (studies.healthy(), studies.heard()) == (True, False)
    Pulse(Path(studies.environment[HEARD])).beat()
    assert studies.heard()
