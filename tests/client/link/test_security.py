"""The hospital's checklist: what holds is found to hold, and what was broken is found broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli.main import app
from client.ledger.records import open_records
from client.link import gateway
from client.link.security import checklist
from client.oversight import approvals, signature
from client.site import SiteSettings, load, secret
from client.sources.settings import DimseSource
from server.deployment import pki
from server.deployment.server_dir import ServerSettings, make
from tasks.machine.checklist import Claim, ClaimState
from tasks.protocol import enrolment
from tasks.protocol.study import StudyDocument

LISTEN = "127.0.0.1:9094"


def claims_of(settings: SiteSettings, site: Path) -> dict[str, Claim]:
    """All claims by what they promise."""
    return {claim.promise: claim for claims in checklist(settings, site, LISTEN).values() for claim in claims}


@pytest.fixture
def enrolled(tmp_path: Path, provision_hospital: Callable[..., SiteSettings]) -> SiteSettings:
    settings = provision_hospital(server="localhost:9")
    home = make(tmp_path / "home", ServerSettings(host="localhost"))
    pki.create_authority(home)
    invitation = enrolment.Invitation(server="localhost:9", certificate_authority=home.authority.read_text())
    gateway.enroll(settings, invitation)
    return settings


def test_a_hospital_that_does_not_run_says_so_and_the_rest_is_looked_at(enrolled: SiteSettings, tmp_path: Path) -> None:
    claims = claims_of(enrolled, tmp_path / "site.yaml")
    assert claims["Gateway and trainer are running"].state is ClaimState.WARN
    records = claims["Every message that left has a receipt, and ledger and audit log are intact"]
    assert (records.state, "nothing has left" in records.found) == (ClaimState.OK, True)
    assert (
        claims["The server is authenticated, and all traffic is encrypted"].state is ClaimState.FAIL
    )  # nobody is there
    assert claims["Only studies approved by a person here can run"].state is ClaimState.OK
    secrets = [claim for promise, claim in claims.items() if promise.startswith("Nobody but its owner")]
    assert len(secrets) == 6
    assert all(claim.state is ClaimState.OK for claim in secrets)


def test_two_approvals_are_told_with_what_their_names_are_worth(
    enrolled: SiteSettings, tmp_path: Path, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = enrolled.model_copy(update={"policy": enrolled.policy.model_copy(update={"approvers": 2})})
    promise = "2 different people approve each study"

    def approved_under(study: StudyDocument, *accounts: str) -> Claim:
        with open_records(asking.ledger, asking.audit_log, secret(asking)) as records:
            for name, account in zip(("Ada Noor", "Ben Okafor"), accounts, strict=True):
                for module in (approvals, signature):
                    monkeypatch.setattr(module, "login_account", lambda account=account: account)
                approvals.approve(study, name, records.audit_log, asking)
        return claims_of(asking, tmp_path / "site.yaml")[promise]

    assert promise not in claims_of(enrolled, tmp_path / "site.yaml")
    assert approved_under(document, "noor", "okafor").state is ClaimState.OK
    named = approved_under(replace(document, name="demo-2"), "", "")
    assert named.state is ClaimState.WARN
    assert "of demo-2 by name only" in named.found
    by = claims_of(asking, tmp_path / "site.yaml")["Only studies approved by a person here can run"]
    assert by.found == "2 approved, by Ada Noor, Ben Okafor"


def test_what_is_broken_is_found(enrolled: SiteSettings, tmp_path: Path) -> None:
    enrolled.key.chmod(0o644)
    assert (
        claims_of(enrolled, tmp_path / "site.yaml")["Nobody but its owner reads the hospital's key"].state
        is ClaimState.FAIL
    )
    enrolled.key.chmod(0o600)
    content = bytearray(enrolled.ledger.read_bytes())
    place = content.rfind(b"genesis")
    content[place : place + 7] = b"genesiz"
    enrolled.ledger.write_bytes(bytes(content))
    records = claims_of(enrolled, tmp_path / "site.yaml")[
        "Every message that left has a receipt, and ledger and audit log are intact"
    ]
    assert records.state is ClaimState.FAIL
    assert "consilium-site stop" in records.remedy


def test_a_running_program_is_looked_at_where_its_state_file_says(enrolled: SiteSettings, tmp_path: Path) -> None:
    """This very process stands for a trainer: it does not listen, and lacks the variables that silence libraries."""
    state = {"trainer": {"pid": os.getpid(), "well": True, "starts": 1}}
    (enrolled.link / "trainer.json").write_text(json.dumps(state))
    claims = claims_of(enrolled, tmp_path / "site.yaml")
    assert "The trainer is not root" in claims
    assert claims["Nothing in the trainer calls home"].state is ClaimState.FAIL


def test_the_command_writes_a_page_for_its_owner_alone_and_fails_where_a_claim_does(
    enrolled: SiteSettings, tmp_path: Path
) -> None:
    site, html = tmp_path / "site.yaml", tmp_path / "checklist.html"
    ended = CliRunner().invoke(app, ["security", "--site", str(site), "--html", str(html), "--json"])
    assert ended.exit_code == 1  # the server cannot be reached
    told = json.loads(ended.stdout)
    assert {"Programs", "Connection to the server", "Secrets", "What leaves", "Privacy", "Images", "Software"} == set(
        told
    )
    assert html.stat().st_mode & 0o777 == 0o600
    text = html.read_text()
    assert "security checklist" in text
    assert all(one["promise"].split("'")[0] in text for claims in told.values() for one in claims)
    assert load(site).key.read_bytes().hex() not in text


def test_an_address_without_a_port_is_refused(enrolled: SiteSettings, tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["security", "--site", str(tmp_path / "site.yaml"), "--gateway", "nowhere"])
    assert ended.exit_code == 2
    assert "HOST:PORT" in ended.output


def test_a_port_that_an_archive_sends_to_is_told(enrolled: SiteSettings, tmp_path: Path) -> None:
    told: dict[str, object] = {"kind": "dimse", "task": "breast_ultrasound", "issuer": "x", "path": tmp_path / "spool"}
    told |= {"labels": tmp_path / "l.csv", "scope": {"modalities": ["US"]}, "host": "192.0.2.7", "port": 2762}
    told |= {"called_ae": "PACS", "retrieve": "move", "receive_at": "192.0.2.20:11113"}
    secure = {"tls": True, "authority": "ca.pem", "certificate": "a.pem", "certificate_key": "a.key"}
    for more, state in ((secure, ClaimState.OK), ({"insecure": True}, ClaimState.WARN)):
        source = DimseSource.model_validate(told | more)
        claims = claims_of(enrolled.model_copy(update={"sources": [source]}), tmp_path / "site.yaml")
        claim = claims["Only its archive can send to the port of source 1 (dimse)"]
        assert claim.state is state
        assert "192.0.2.20:11113" in claim.found
        assert "PACS@192.0.2.7" in claim.found
