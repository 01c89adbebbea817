"""A hospital that was founded, ingested, was asked, approved and answered under a umask that gives all away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.link import secrecy
from tasks.machine.checklist import ClaimState
from tasks.machine.disk import open_to_others
from tasks.protocol.study import StudyDocument
from tests.client.hospital import Hospital, draw_archive, evaluate, train


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_nobody_else_reaches_anything_of_it(tmp_path: Path, document: StudyDocument) -> None:
    hospital = Hospital.provision(tmp_path / "site", draw_archive(tmp_path / "archive"))
    hospital.ask(train(document))  # nobody has approved it: it waits, and the log says so
    waiting = hospital.settings.audit_log.parent / "pending"
    assert len(list(waiting.iterdir())) == 1
    assert list(open_to_others(waiting)) == []
    hospital.approve(document)
    for order in (train(document), evaluate(document)):
        hospital.ask(order)
    failed = [claim for claim in secrecy.claims(hospital.settings) if claim.state is not ClaimState.OK]
    assert [claim.found for claim in failed] == []
    assert (hospital.settings.catalog / "inputs").exists()
    assert hospital.log()
