"""C-MOVE and Storage Commitment with a real Orthanc, and its death while reports are stored."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from client.errors import ArchiveRefused
from client.prediction import store
from client.prediction.destination import target_of
from client.prediction.store import Delivery
from client.site import load
from client.sources.listing import list_source
from client.sources.pacs.integrity import examine
from client.sources.settings import DimseSource
from tests.client.prediction import handed_over
from tests.e2e.pacs.network import free_port
from tests.e2e.pacs.servers import orthanc
from tests.e2e.pacs.test_archives import NOBODY, TASK, _settings
from tests.e2e.pacs.test_changes import _hospital, _run


def _digests(paths: Any) -> dict[str, tuple[str, str]]:
    return {one.sop_instance: (one.transfer_syntax, one.pixel_sha256) for one in map(examine, paths)}


def _moving(archive: Any, settings: dict[str, Any], port: int, **more: Any) -> DimseSource:
    where = {"kind": "dimse", "host": "127.0.0.1", "port": archive.dicom, "called_ae": "ORTHANC"}
    return DimseSource.model_validate(where | settings | {"retrieve": "move", "receive_at": f"127.0.0.1:{port}"} | more)


def test_what_orthanc_moves_is_what_it_holds(tmp_path: Path, hospital: Path, files: list[Path]) -> None:
    port = free_port()
    modalities = {"consilium": ["CONSILIUM", "127.0.0.1", port]}
    with orthanc(tmp_path / "orthanc", files, DicomModalities=modalities, DicomAlwaysAllowMove=True) as archive:
        source = _moving(archive, _settings(hospital, files, tmp_path / "spool"), port)
        listing = list_source(source, TASK, NOBODY)
        came = _digests((tmp_path / "spool" / "images").rglob("*.dcm"))
        stored = _digests(files)
        assert came.keys() == stored.keys(), listing.left_out
        assert {uid for uid in came if came[uid] != stored[uid]} == set()


def test_a_destination_that_orthanc_does_not_know_is_named(tmp_path: Path, hospital: Path, files: list[Path]) -> None:
    with orthanc(tmp_path / "orthanc", files[:4], DicomAlwaysAllowMove=True) as archive:
        settings = _settings(hospital, files, tmp_path / "spool") | {"attempts": 1}
        with pytest.raises(ArchiveRefused, match="register our AE title 'CONSILIUM'"):
            list_source(_moving(archive, settings, free_port()), TASK, NOBODY)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    handed_over.provision_hospital(folder, 4)
    return folder


def test_orthanc_commits_what_was_stored(tmp_path: Path, drawn: Path, own_network: None) -> None:
    port = free_port()
    modalities = {"consilium": ["CONSILIUM", "127.0.0.1", port]}
    with orthanc(tmp_path / "orthanc", sorted((drawn / "dicom").rglob("*.dcm")), DicomModalities=modalities) as archive:
        file = _hospital("dimse", archive, drawn, tmp_path / "hospital")
        text = file.read_text("utf-8").replace(
            "kind: dimse", f"kind: dimse\n  storage_commitment: true\n  receive_at: 127.0.0.1:{port}"
        )
        file.write_text(text, "utf-8")
        _run("ingest", file)
        digest = handed_over.write_model(tmp_path / "m.safetensors")
        words = (tmp_path / "m.safetensors", "--sha256", digest, "--store")
        facts = _run("predict", file, *words, "--out", tmp_path / "out")
        assert (facts["stored"], facts["not_committed"]) == (4, [])


@pytest.mark.parametrize("way", ["dicomweb", "dimse"])
def test_a_death_while_reports_are_stored_loses_and_doubles_nothing(
    way: str, tmp_path: Path, drawn: Path, own_network: None
) -> None:
    with orthanc(tmp_path / "orthanc", sorted((drawn / "dicom").rglob("*.dcm"))) as archive:
        file = _hospital(way, archive, drawn, tmp_path / "hospital")
        _run("ingest", file)
        digest = handed_over.write_model(tmp_path / "m.safetensors")
        _run("predict", file, tmp_path / "m.safetensors", "--sha256", digest, "--out", tmp_path / "out")
        reports = sorted((tmp_path / "out" / "reports").glob("*.dcm"))
        site, delivery, dead = load(file), Delivery(), []

        def dies(label: str, done: int, total: int) -> None:
            if done == 2 and not dead:
                dead.append(done)
                archive.kill()
                threading.Thread(target=lambda: (time.sleep(1.5), archive.start()), daemon=True).start()

        store.store(site, target_of(site, handed_over.TASK), reports, dies, delivery)
        assert dead == [2]
        assert (delivery.stored, delivery.present, delivery.withheld) == (len(reports), 0, [])
        again = Delivery()
        store.store(site, target_of(site, handed_over.TASK), reports, lambda *told: None, again)
        assert (again.stored, again.present) == (0, len(reports))
        uids = {str(dcmread(path).SOPInstanceUID) for path in reports}
        there = [uid for uid in archive.told("instances", "SOPInstanceUID") if uid in uids]
        assert sorted(there) == sorted(uids), "each once"
