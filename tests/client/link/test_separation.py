"""One checklist for every installation: what is claimed of a hospital in one place is claimed of it in two."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.link import gateway, separation
from client.link.security import checklist
from client.site import SiteSettings, load
from server.deployment import pki
from server.deployment.server_dir import ServerSettings, make
from tasks.machine import process
from tasks.machine.checklist import Claim, ClaimState
from tasks.protocol import enrolment

LISTEN = "127.0.0.1:9094"
NO_IMAGES = "The gateway can read neither images nor the privacy ledger"
NO_KEY = "The trainer cannot read the gateway's key"


@pytest.fixture
def enrolled(tmp_path: Path, provision_hospital: Callable[..., SiteSettings]) -> SiteSettings:
    """A hospital in one folder, as with systemd."""
    settings = provision_hospital(server="localhost:9")
    home = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(home)
    gateway.enroll(
        settings, enrolment.Invitation(server="localhost:9", certificate_authority=home.authority.read_text())
    )
    return settings


@pytest.fixture
def programs() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two processes that stand for gateway and trainer."""
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = {part: subprocess.Popen(words) for part in ("gateway", "trainer")}
    yield started
    for one in started.values():
        one.kill()
        one.wait()


def run(link: Path, name: str, programs: dict[str, subprocess.Popen[bytes]], *parts: str) -> None:
    """What ``run`` writes while these parts run."""
    state = {part: {"pid": programs[part].pid, "well": True, "starts": 1} for part in parts}
    (link / f"{name}.json").write_text(json.dumps(state))


def claims_of(site: Path) -> dict[str, Claim]:
    found = checklist(load(site), site, LISTEN)
    return {claim.promise: claim for claims in found.values() for claim in claims}


def test_two_containers_claim_together_what_one_machine_claims(
    enrolled: SiteSettings, tmp_path: Path, programs: dict[str, subprocess.Popen[bytes]]
) -> None:
    """Kubernetes and compose: the gateway has the link and no ledger, the trainer has of the link the secret alone."""
    site = tmp_path / "site.yaml"
    places = {part: tmp_path / "apart" / part for part in ("gateway", "trainer")}
    for part, place in places.items():
        (place / "link").mkdir(parents=True, mode=0o700)
        shutil.copy(site, place)
        for path in enrolled.link.iterdir():
            if part == "gateway" or path.name == "trainer.secret":
                shutil.copy(path, place / "link")
    for name in ("ledger.sqlite", "audit.sqlite", "site.key"):
        shutil.copy(tmp_path / name, places["trainer"])
    for part, place in places.items():
        run(place / "link", part, programs, part)
    run(enrolled.link, "both", programs, "gateway", "trainer")

    together = claims_of(site)
    apart = {part: claims_of(place / "site.yaml") for part, place in places.items()}
    assert apart["gateway"].keys() | apart["trainer"].keys() == together.keys()
    assert {NO_IMAGES, NO_KEY} <= together.keys()
    assert NO_KEY not in apart["gateway"]
    assert "at the trainer as well" in apart["gateway"]["Gateway and trainer are running"].found
    assert "at the gateway as well" in apart["trainer"]["Gateway and trainer are running"].found


def test_programs_that_see_everything_are_not_apart(
    enrolled: SiteSettings, programs: dict[str, subprocess.Popen[bytes]]
) -> None:
    running = {part: process.look(one.pid) for part, one in programs.items()}
    claims = {claim.promise: claim for claim in separation.claims(enrolled, running)}
    assert {claim.state for claim in claims.values()} == {ClaimState.WARN}
    assert str(enrolled.ledger) in claims[NO_IMAGES].found
    assert str(enrolled.link / "node.key") in claims[NO_KEY].found
    assert separation.view(None, enrolled.ledger) == enrolled.ledger


def test_what_systemd_hides_is_seen_to_be_hidden(
    enrolled: SiteSettings, tmp_path: Path, programs: dict[str, subprocess.Popen[bytes]]
) -> None:
    """A mount namespace as units have it: what is hidden has no permissions, what is read-only is mounted so."""
    hidden, ready, images = tmp_path / "hidden", tmp_path / "ready", tmp_path / "images"
    hidden.touch(mode=0o000)
    images.mkdir()
    data = (enrolled.ledger, enrolled.audit_log, enrolled.key, enrolled.link / "node.key")
    steps = [f"mount --bind {hidden} {path}" for path in data]
    steps += [f"mount --bind {images} {images}", f"mount -o remount,bind,ro {images}", f"touch {ready}", "sleep 600"]
    apart = subprocess.Popen(["unshare", "--mount", "sh", "-c", " && ".join(steps)], stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 20
        while not ready.exists() and apart.poll() is None and time.monotonic() < ends:
            time.sleep(0.05)
        if not ready.exists():
            pytest.skip("this user may not make mount namespaces")
        seen = process.look(apart.pid)
        claims = list(separation.claims(enrolled, {"gateway": seen, "trainer": seen}))
        assert [claim.state for claim in claims] == [ClaimState.OK, ClaimState.OK]
        assert not os.access(separation.view(seen, images), os.W_OK)
        assert os.access(separation.view(process.look(programs["trainer"].pid), images), os.W_OK)
    finally:
        apart.kill()
        apart.wait()


def test_the_address_of_the_gateway_may_come_from_the_environment(
    enrolled: SiteSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSILIUM_GATEWAY", "nowhere")
    ended = CliRunner().invoke(app, ["security", "--site", str(tmp_path / "site.yaml")])
    assert ended.exit_code == 2
    assert "HOST:PORT" in ended.output
