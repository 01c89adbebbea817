"""A whole study in this process: the real launcher, ClientApp and ledger, DICOM phantoms, small enough for a test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from client.ledger.account import LedgerEntry
from client.ledger.records import Records, open_records
from client.site import load as load_site
from client.site import secret
from conf import load
from conf.schema.study import Study
from server.__main__ import client_app, provision_hospitals
from server.launch import run_study
from server.results.results import Results
from server.rounds.checkpoint import read_state
from server.rounds.state import StudyState
from server.runtime.workers import LoadApp

HOSPITALS = ("alder", "birch", "cedar")
TINY = (
    "experiment=demo",
    "tracking=none",
    "federation.rounds=2",
    "training.steps=3",
    "training.sample_rate=0.8",
    "training.images_per_patient=1",
    *(
        f"federation.hospitals.{name}={{patients: 14, prevalence: 0.5, images_per_patient: [1, 2]}}"
        for name in HOSPITALS
    ),
    "model.resolution=16",
    "model.J=2",
    "model.L=2",
    "model.pool=2",
)


@dataclass(frozen=True)
class Ended:
    """What a study left behind.

    Attributes:
        shown: what a person saw.
        folder: the study's folder.
    """

    results: Results
    shown: str
    folder: Path

    def state(self) -> StudyState:
        state = read_state(self.folder / "federated")
        assert state is not None
        return state

    def sizes(self) -> dict[str, int]:
        """By hospital, as the study's document has them."""
        facts = json.loads((self.folder / "study.json").read_text("utf-8"))
        return dict(facts["sizes"])

    def numbers(self) -> dict[str, Any]:
        numbers: dict[str, Any] = json.loads((self.folder / "results.json").read_text("utf-8"))
        return numbers


def configure(output: Path, name: str, overrides: Sequence[str] = ()) -> Study:
    """A tiny study. Studies of other names share phantoms and catalogs in ``output``, and nothing else."""
    return replace(load.load([*TINY, f"output_dir={output}", *overrides]), experiment=name)


def console() -> tuple[Console, StringIO]:
    text = StringIO()
    return Console(file=text, width=200, force_terminal=False), text


def play(output: Path, name: str, *overrides: str, load_app: LoadApp = client_app) -> Ended:
    """Run a study to its end."""
    shown_on, text = console()
    results = run_study(configure(output, name, overrides), provision_hospitals, load_app, shown_on)
    return Ended(results, text.getvalue(), output / "studies" / results.study)


def entries(folder: Path, hospital: str) -> list[LedgerEntry]:
    """What stands in a hospital's ledger; ledger and audit log are verified row by row."""
    site = load_site(folder / "sites" / f"{hospital}.yaml")
    with open_records(site.ledger, site.audit_log, secret(site)) as records:
        return _verified(records)


def _verified(records: Records) -> list[LedgerEntry]:
    assert records.verify() == []
    return list(records.ledger.entries())


def with_own_phantoms(ground: Path, output: Path) -> Path:
    """A copy of the phantoms that may be spoilt; gives the folder that holds the hospitals' folders."""
    shutil.copytree(ground / "phantoms", output / "phantoms")
    return output / "phantoms"


def folder_of(phantoms: Path, hospital: str) -> Path:
    """Of the seed that studies have unless they say another: one of these tests says another."""
    (found_at,) = phantoms.glob(f"*-seed{Study.seed}/{hospital}")
    return found_at
