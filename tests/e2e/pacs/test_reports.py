"""A model comes home: images out of Orthanc, reports into it, found again by C-FIND and QIDO-RS and read back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
import yaml
from pydicom import dcmread
from typer.testing import CliRunner

from client.cli.main import app
from client.site import load
from client.sources.pacs.dicomweb import DicomwebArchive
from client.sources.pacs.dimse import DimseArchive
from client.sources.pacs.search import Search, value
from client.sources.pacs.spool import Instance, opened
from client.sources.pacs.web import session_for
from client.sources.settings import DicomwebSource, DimseSource
from tests.client.prediction import handed_over
from tests.e2e.pacs.servers import Orthanc, orthanc

PATIENTS = 4


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    handed_over.provision_hospital(folder, PATIENTS)
    return folder


@pytest.fixture
def archive(tmp_path: Path, drawn: Path, own_network: None) -> Iterator[Orthanc]:
    with orthanc(tmp_path / "orthanc", sorted((drawn / "dicom").rglob("*.dcm"))) as one:
        yield one


def _hospital(way: str, archive: Orthanc, drawn: Path, folder: Path, *modalities: str) -> Path:
    """A hospital whose only source is the archive, ingested."""
    where: dict[str, Any] = {"kind": way, "url": archive.url}
    if way == "dimse":
        where = {"kind": way, "host": "127.0.0.1", "port": archive.dicom, "called_ae": "ORTHANC"}
    source = where | {"task": handed_over.TASK.name, "issuer": "alder", "path": str(folder / "spool")}
    source |= {"labels": str(drawn / "labels.csv"), "scope": {"modalities": ["US", *modalities]}}
    file = handed_over.provision_hospital(folder, 1)
    values = yaml.safe_load(file.read_text("utf-8"))
    file.write_text(yaml.safe_dump(values | {"sources": [source]}), "utf-8")
    _run("ingest", file)
    return file


def _run(*words: object) -> Any:
    command, site, *rest = words
    result = CliRunner().invoke(app, [str(word) for word in (command, *rest, "--site", site, "--json")])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _found_again(way: str, file: Path, folder: Path) -> dict[str, Path]:
    """The archive's reports by SOPInstanceUID, retrieved with what fetches images."""
    (source,) = load(file).sources
    with opened(folder, "reports", 1.0) as spool:
        if isinstance(source, DicomwebSource):
            with closing(session_for(source)) as session:
                web = DicomwebArchive(source, session)
                with web.searching() as search:
                    instances = _reports(search)
                assert not web.fetch(instances, spool, lambda *told: None)
        else:
            assert isinstance(source, DimseSource)
            with DimseArchive(source).searching() as search:
                instances = _reports(search)
            assert not DimseArchive(source).fetch(instances, spool, lambda *told: None)
        return {path.stem: path for path in spool.images.rglob("*.dcm")}


def _reports(search: Search) -> list[Instance]:
    found = []
    for study in search.studies({"ModalitiesInStudy": "SR"}).matches:
        for series in search.series(value(study, "StudyInstanceUID")).matches:
            if value(series, "Modality") == "SR":
                names = value(study, "StudyInstanceUID"), value(series, "SeriesInstanceUID")
                for one in search.instances(*names).matches:
                    told = {"modality": "SR", "sop_class": value(one, "SOPClassUID"), "patient_id": "", "accession": ""}
                    found.append(Instance(*names, uid=value(one, "SOPInstanceUID"), **told))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("way", ["dimse", "dicomweb"])
@pytest.mark.parametrize("addressed", [False, True], ids=["source", "address"])
def test_reports_are_stored_found_and_read_back(
    way: str, addressed: bool, archive: Orthanc, drawn: Path, tmp_path: Path
) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital")
    digest = handed_over.write_model(tmp_path / "m.safetensors")
    target = ["--store-to", f"ORTHANC@127.0.0.1:{archive.dicom}"] if addressed else ["--store"]
    words = (tmp_path / "m.safetensors", "--sha256", digest, "--out", tmp_path / "out", *target)
    facts = _run("predict", file, *words)
    assert (facts["reports"], facts["stored"], facts["left_out"]) == (PATIENTS, PATIENTS, {})

    written = {dcmread(path).SOPInstanceUID: path for path in (tmp_path / "out" / "reports").iterdir()}
    came = _found_again(way, file, tmp_path / "reports")
    assert came.keys() == written.keys()
    originals = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (drawn / "dicom").rglob("*.dcm")}
    for uid, path in came.items():
        assert dcmread(path) == dcmread(written[uid])
        validator = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=30)
        assert "EnhancedSR" in validator.stderr
        assert "Error" not in validator.stderr
        content = hd.sr.srread(path).content
        assert isinstance(content, hd.sr.MeasurementReport)
        groups = content.get_image_measurement_groups()
        told = {source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for g in groups for source in g.source_images}
        assert told <= originals

    before = facts["patients"]
    _run("ingest", file)  # what was stored is no image, and changes nothing of what is trained on
    words = (tmp_path / "m.safetensors", "--sha256", digest, "--out", tmp_path / "again")
    assert _run("predict", file, *words)["patients"] == before


@pytest.mark.parametrize("way", ["dimse", "dicomweb"])
def test_outlines_are_stored_and_no_model_learns_from_them(
    way: str, archive: Orthanc, drawn: Path, tmp_path: Path
) -> None:
    file = _hospital(way, archive, drawn, tmp_path / "hospital", "SEG")
    spec = handed_over.OUTLINE_SPEC
    digest = handed_over.write_model(tmp_path / "m.safetensors", handed_over.weights(spec=spec), spec=spec)
    words = (tmp_path / "m.safetensors", "--sha256", digest, "--out", tmp_path / "out", "--store")
    facts = _run("predict", file, *words)
    assert facts["outlines"] >= PATIENTS
    before = _run("ingest", file)[handed_over.TASK.name]  # the archive gives what was stored
    assert before["left_out"] == {"SEGMENTATION_OF_CONSILIUM": facts["outlines"]}
    assert before["outlined"] == PATIENTS, "by the readers' own outlines, as before"
    again = _run("ingest", file)[handed_over.TASK.name]
    assert (again["images"], again["outlined"]) == (before["images"], PATIENTS)
