"""The statement against what is negotiated on the wire, and against the copy that is shipped."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import EnhancedSRStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.transport import ThreadedAssociationServer
from typer.testing import CliRunner

from client.cli.main import app
from client.prediction.commitment import not_committed
from client.prediction.conformance import Activity, activities, statement
from client.prediction.store import _Line
from client.sources.pacs.dimse import DimseArchive, list_dimse
from client.sources.pacs.storage_classes import all_classes
from tasks.breast_ultrasound import TASK
from tests.client.prediction.test_commitment import OBJECTS, Keeper, _source
from tests.client.prediction.test_commitment import running as committing
from tests.client.prediction.toy_pacs import ToyPacs
from tests.client.prediction.toy_pacs import running as storing
from tests.client.sources import small_hospital
from tests.client.sources.pacs.dimse_server import Provider, running
from tests.client.sources.pacs.test_dimse import NOBODY
from tests.client.sources.pacs.test_dimse import _source as archive
from tests.client.sources.pacs.test_move import _moving

ROOT = Path(__file__).parents[3]
Offer = tuple[bool, dict[str, set[str]], frozenset[str]]


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[Offer]:
    """What our side proposes or accepts: who opens, transfer syntaxes by abstract syntax, and proposed SCP roles."""
    found: list[Offer] = []
    associate, serve = AE.associate, ThreadedAssociationServer.__init__

    def told(contexts: Any) -> dict[str, set[str]]:
        return Activity("", contexts).offers()

    def dialled(self: AE, *given: Any, **named: Any) -> Any:
        if self.ae_title == "CONSILIUM":
            roles = frozenset(str(role.sop_class_uid) for role in named.get("ext_neg", ()) if role.scp_role)
            found.append((True, told(given[2]), roles))
        return associate(self, *given, **named)

    def opened(self: Any, ae: AE, address: Any, title: str, contexts: Any, *given: Any, **named: Any) -> None:
        if title == "CONSILIUM":
            found.append((False, told(contexts), frozenset()))
        serve(self, ae, address, title, contexts, *given, **named)

    monkeypatch.setattr(AE, "associate", dialled)
    monkeypatch.setattr(ThreadedAssociationServer, "__init__", opened)
    return found


def _fits(offer: Offer, activity: Activity) -> bool:
    """Whether the statement has it: the same classes, or of images some of them, in the same transfer syntaxes."""
    initiates, proposed, roles = offer
    stated = activity.offers()
    if activity.initiates != initiates or not proposed.keys() <= stated.keys():
        return False
    if not stated.keys() - proposed.keys() <= set(all_classes()):
        return False
    if any(proposed[one] != stated[one] for one in proposed):
        return False
    return all((one in roles) == (activity.role(one) == "SCP") for one in proposed if initiates)


def test_what_is_stated_is_what_is_negotiated(tmp_path: Path, offered: list[Offer]) -> None:
    with running(Provider(small_hospital.fill(tmp_path))) as provider:
        DimseArchive(archive(tmp_path, provider)).check()
        list_dimse(archive(tmp_path, provider), TASK, NOBODY)
        list_dimse(_moving(tmp_path, provider, path=tmp_path / "moved"), TASK, NOBODY)
    with committing(Keeper()) as keeper:
        not_committed(_source(tmp_path, keeper), OBJECTS)
    stated = {activity.name: activity for activity in activities()}
    assert [offer for offer in offered if not any(_fits(offer, one) for one in stated.values())] == []
    seen = {name for name, one in stated.items() if any(_fits(offer, one) for offer in offered)}
    assert seen == stated.keys() - {"Store reports and segmentations (`predict --store`)"}, "which needs a prediction"
    wrong = (True, {"1.2.840.10008.1.1": {"1.2.840.10008.1.2.4.50"}}, frozenset[str]())
    assert not any(_fits(wrong, one) for one in stated.values())


def test_reports_are_stored_as_is_stated(offered: list[Offer]) -> None:
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID, report.PatientID = EnhancedSRStorage, "1.2.3", "A"
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    with storing(ToyPacs([])) as pacs, closing(_Line(pacs.peer)) as line:
        line.send(report, 0)
        assert len(pacs.stored) == 1
    (store,) = [one for one in activities() if one.name.startswith("Store reports")]
    assert [_fits(offer, store) for offer in offered] == [True]


def test_the_shipped_statement_is_the_made_one() -> None:
    made = CliRunner().invoke(app, ["conformance"])
    assert made.exit_code == 0
    assert made.stdout == statement()
    shipped = (ROOT / "client" / "CONFORMANCE.md").read_text("utf-8")
    assert shipped == statement(), "make it again: consilium-site conformance > client/CONFORMANCE.md"


def test_it_names_what_an_administrator_asks_for() -> None:
    text = statement()
    for word in ("BCP 195", "ISO_IR 192", "Verification SOP Class", "Storage Commitment Push Model", "SCP",
                 "Study Root Query/Retrieve Information Model - MOVE", "JPEG 2000 Image Compression (Lossless Only)",
                 "Enhanced SR Storage", "Segmentation Storage", "CONSILIUM"):  # fmt: skip
        assert word in text, word
