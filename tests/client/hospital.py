"""A tiny hospital with a DICOM archive, and the messages that a server would send to it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.cohort import catalog
from client.ledger.account import LedgerEntry
from client.ledger.accounting import epsilon_of
from client.ledger.audit_log import Receipt
from client.ledger.records import Records, open_records
from client.oversight import approvals
from client.setup.provisioning import provision, write_example
from client.site import SiteSettings, load, secret
from server.runtime.flower_private import claim_identity, deflate, inflate
from tasks import task as tasks
from tasks.machine.disk import write_secret
from tasks.models import registry
from tasks.protocol import wire
from tasks.protocol.documents import Document
from tasks.protocol.study import StudyDocument, TrainingTerms
from tasks.protocol.wire import Arrays, EvaluateOrder, EvaluateReport, Refusal, TrainOrder, TrainReport
from tasks.task import PhantomHospital
from tests.drawn import draw

TASK = "breast_ultrasound"
PATIENTS = 24
Reply = TrainReport | EvaluateReport | Refusal


@dataclass(frozen=True)
class Archive:
    """Images, their catalog and the key of its pseudonyms: what hospitals of several tests may share."""

    folder: Path

    def settings(self) -> dict[str, Any]:
        """What a ``site.yaml`` says about it."""
        source = {"kind": "folder", "task": TASK, "issuer": "st-anne", "path": str(self.folder / "dicom")}
        return {
            "sources": [source | {"labels": str(self.folder / "labels.csv")}],
            "catalog": str(self.folder / "catalog"),
            "key": str(self.folder / "site.key"),
            "validation_fraction": 0.4,
        }


def draw_archive(folder: Path) -> Archive:
    """Phantom patients, ingested. The key is fixed, as it splits patients and deals labels out, which so few patients
    now and then survive unchanged."""
    archive = Archive(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_secret(folder / "site.key", bytes(range(32)))
    phantom = PhantomHospital("st-anne", PATIENTS, prevalence=0.5, images_per_patient=(1, 2))
    draw(tasks.get(TASK), folder, phantom, 1)
    catalog.ingest(Hospital.provision(folder / "first", archive, simulated=True).settings, tasks.get(TASK))
    return archive


@dataclass(frozen=True)
class Hospital:
    """A hospital that is not simulated, provisioned from the commented example, with its own ledger and audit log."""

    file: Path

    @classmethod
    def provision(cls, folder: Path, archive: Archive, **changes: Any) -> Hospital:
        """Provision it; ``changes`` are settings, and ``policy`` changes single rules."""
        file = folder / "site.yaml"
        write_example(file, "st-anne")
        if (archive.folder / "catalog").exists() and "catalog" not in changes:  # which belongs to one ledger only
            changes["catalog"] = str(shutil.copytree(archive.folder / "catalog", folder / "catalog"))
        values = yaml.safe_load(file.read_text("utf-8"))
        policy = values["policy"] | {"min_patients": 5} | changes.pop("policy", {})
        hurried = {"reply_tick_s": 0.001}  # a real one takes its time
        file.write_text(yaml.safe_dump(values | archive.settings() | hurried | changes | {"policy": policy}), "utf-8")
        provision(load(file))
        return cls(file)

    @property
    def settings(self) -> SiteSettings:
        return load(self.file)

    @contextmanager
    def records(self) -> Iterator[Records]:
        with open_records(self.settings.ledger, self.settings.audit_log, secret(self.settings)) as records:
            yield records

    def change(self, **changes: Any) -> None:
        """Edit ``site.yaml``; ``policy`` changes single rules."""
        values = yaml.safe_load(self.file.read_text("utf-8"))
        policy = values["policy"] | changes.pop("policy", {})
        self.file.write_text(yaml.safe_dump(values | changes | {"policy": policy}), "utf-8")

    def approve(self, *documents: Document) -> None:
        with self.records() as records:
            for document in documents:
                approvals.approve(document, "Dr. Ada Noor", records.audit_log, self.settings)

    def ask(self, order: TrainOrder | EvaluateOrder) -> Reply:
        """Its answer to an order."""
        return read(self.send(wire.encode(order), "train" if isinstance(order, TrainOrder) else "evaluate"))

    def send(self, content: RecordDict, action: str) -> RecordDict:
        """Its answer to whatever came; both ways through Flower's own wire format."""
        claim_identity()
        order = inflate(deflate(Message(content, 1, action, group_id="1")))
        context = Context(1, 1, {"site": str(self.file)}, RecordDict(), {})
        reply = inflate(deflate(app(order, context)))
        assert not reply.has_error()
        return reply.content

    def entries(self) -> list[LedgerEntry]:
        """The entries of the ledger; ledger and audit log are verified row by row."""
        with self.records() as records:
            assert records.verify() == []
            return list(records.ledger.entries())

    def receipts(self) -> list[Receipt]:
        with self.records() as records:
            return records.audit_log.receipts()

    def spent(self, cohort: str = "train", delta: float = 1e-4) -> float:
        """Epsilon of what stands in the ledger."""
        return epsilon_of([e.mechanism for e in self.entries() if e.use.cohort == cohort], delta)

    def log(self) -> str:
        return self.settings.log.read_text("utf-8") if self.settings.log.exists() else ""


def read(content: RecordDict) -> Reply:
    """What a server would understand."""
    if content.config_records["head"]["kind"] == "EvaluateReport":
        return wire.decode(content, EvaluateReport)
    return wire.decode(content, TrainReport, Refusal)


def weights(document: StudyDocument) -> Arrays:
    """The order's first model."""
    return {name: value.copy() for name, value in _weights(json.dumps(document.model)).items()}


@cache
def _weights(model: str) -> Arrays:
    return registry.arrays_of(registry.build(json.loads(model), tasks.get(TASK).form, 1).trainable)


def train(document: StudyDocument, round: int = 1, shift: float = 0.0) -> TrainOrder:
    """An order to train; another ``shift`` is another model, and so another order."""
    return TrainOrder(document, round, {k: (v + np.float32(shift)) for k, v in weights(document).items()})


def evaluate(document: StudyDocument, round: int = 1, shift: float = 0.0) -> EvaluateOrder:
    """An order to score."""
    return EvaluateOrder(document, round, train(document, shift=shift).arrays)


def with_terms(document: StudyDocument, **terms: Any) -> StudyDocument:
    """The study with other terms of training."""
    training: TrainingTerms = replace(document.training, **terms)
    return replace(document, training=training)
