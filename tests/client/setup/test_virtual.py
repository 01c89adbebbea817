"""Simulated hospitals: provisioned like real ones, quickly, with caps that bind; resumed with the ledgers they had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.errors import LedgerMissing, NotPermitted
from client.ledger.records import open_records
from client.oversight import approvals
from client.policy import objections, permit
from client.setup import virtual
from client.setup.partition import POOLED, SHUFFLED
from client.setup.virtual import APPROVED_BY_NOBODY
from client.site import declared_size, load, secret
from conf.schema.federation import ManifestFederation, Phantom, PhantomFederation
from conf.schema.model import ScatterLinear
from conf.schema.study import Study
from tasks.contract import digest_of_task
from tasks.protocol.study import (
    EvaluationTerms,
    MethodTerms,
    PrivacyTerms,
    StudyDocument,
    TrainingTerms,
    WireTerms,
    release,
)
from tasks.protocol.wire import TrainOrder
from tests.forks import exit_code, started


def _study(folder: Path, hospitals: int = 2, epsilon: float | None = 6.0) -> Study:
    phantoms = {f"h{n}": Phantom(patients=12, images_per_patient=(1, 1)) for n in range(hospitals)}
    federation = PhantomFederation(hospitals=phantoms, rounds=4)
    study = Study(federation=federation, model=ScatterLinear(), output_dir=str(folder))
    study.task.name = "breast_ultrasound"
    study.privacy.epsilon, study.evaluation.epsilon, study.evaluation.bins = epsilon, 3.0, 16
    return study


def _provisioned(output: Path, folder: Path) -> None:
    virtual.provision_virtual_hospitals(_study(output), folder, lambda *_: None)


def test_studies_that_begin_at_once_draw_their_phantoms_once(tmp_path: Path) -> None:
    """As in a sweep that plays several: they share phantoms and catalogs, and one waits for the other."""
    children = [started(_provisioned, tmp_path / "shared", tmp_path / name) for name in ("one", "other", "third")]
    assert [exit_code(child) for child in children] == [0, 0, 0]
    (drawn,) = (tmp_path / "shared" / "phantoms").iterdir()
    for hospital in ("h0", "h1"):
        rows = (drawn / hospital / "labels.csv").read_text().splitlines()[1:]
        assert len(rows) == 12
        assert len(list((drawn / hospital).glob("dicom/*/*.dcm"))) == 24, "each image and what is marked on it"


def _document(epsilon: float | None, rounds: int = 4) -> StudyDocument:
    return StudyDocument(
        name="simulated-1",
        release=release(),
        task="breast_ultrasound",
        task_version=1,
        contract=digest_of_task("breast_ultrasound"),
        model={"name": "scatter_linear"},
        rounds=rounds,
        asked=rounds,
        training=TrainingTerms(3, 8.0, 0.0, 0.0, 0.8, 4),
        privacy=PrivacyTerms(epsilon, 1e-4, 0.5),
        evaluation=EvaluationTerms(4, 16, 3.0),
        method=MethodTerms(),
        wire=WireTerms(),
        sizes={},
    )


def _provision(study: Study, folder: Path) -> virtual.VirtualHospitals:
    return virtual.provision_virtual_hospitals(study, folder, lambda issuer, done, total: None)


def test_simulated_hospitals_have_records_and_say_that_nobody_was_asked(tmp_path: Path) -> None:
    provisioned = _provision(_study(tmp_path), tmp_path / "study")
    assert list(provisioned.federated) == ["h0", "h1"]
    assert list(provisioned.alone) == ["h0", "h1", POOLED, SHUFFLED, *(f"{SHUFFLED}.{n}" for n in (2, 3, 4, 5))]
    assert [load(path).shuffled_labels for path in provisioned.alone.values()] == [0, 0, 0, 1, 2, 3, 4, 5]
    assert APPROVED_BY_NOBODY in provisioned.notes
    assert {name: report.images for name, report in provisioned.reports.items()} == {"h0": 12, "h1": 12}
    assert provisioned.public_sizes == {
        name: declared_size(load(path), provisioned.sizes[name]["train"])
        for name, path in provisioned.federated.items()
    }
    for path in (*provisioned.federated.values(), *provisioned.alone.values()):
        settings = load(path)
        assert settings.simulated
        with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
            approvals.require(_document(6.0), records.audit_log, settings)
            assert [d.automatic for d in approvals.decisions(records.audit_log, settings).values()] == [True]


def test_their_caps_are_what_the_study_asks_and_no_more(tmp_path: Path) -> None:
    provisioned = _provision(_study(tmp_path), tmp_path / "study")
    federated, alone = load(provisioned.federated["h0"]), load(provisioned.alone["h0"])
    assert permit(TrainOrder(_document(6.0), 1), federated).epsilon == 6.0
    assert permit(TrainOrder(_document(60.0), 1), federated).epsilon == 6.0
    for order in (TrainOrder(_document(None), 1), TrainOrder(_document(6.0, rounds=5), 1)):
        with pytest.raises(NotPermitted):
            permit(order, federated)
    assert permit(TrainOrder(_document(None), 1), alone).epsilon is None
    exact = EvaluationTerms(4, 1024, None)
    assert objections(StudyDocument(**{**vars(_document(None)), "evaluation": exact}), "evaluation", alone) == []


def test_they_compute_on_what_the_study_says(tmp_path: Path) -> None:
    study = _study(tmp_path)
    study.runtime.device, study.runtime.precision = "cuda:1", "bfloat16"
    assert virtual._site(study, "h0", [])["trainer"] == {"device": "cuda:1", "precision": "bfloat16"}


def test_a_study_that_is_resumed_keeps_its_records(tmp_path: Path) -> None:
    study = _study(tmp_path)
    settings = load(_provision(study, tmp_path / "study").federated["h0"])
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        approvals.require(_document(6.0), records.audit_log, settings)
        head = records.audit_log.head()
    _provision(study, tmp_path / "study")
    with open_records(settings.ledger, settings.audit_log, secret(settings)) as records:
        assert records.audit_log.head() == head
    settings.ledger.unlink()
    with pytest.raises(LedgerMissing):
        _provision(study, tmp_path / "study")


def test_a_study_without_noise_is_allowed_where_it_asks_for_that(tmp_path: Path) -> None:
    settings = load(_provision(_study(tmp_path, hospitals=1, epsilon=None), tmp_path / "study").federated["h0"])
    assert permit(TrainOrder(_document(None), 1), settings).epsilon is None


def test_phantoms_and_catalogs_are_made_once_for_all_studies(tmp_path: Path) -> None:
    study = _study(tmp_path, hospitals=8)
    _provision(study, tmp_path / "first")
    made = {p: p.stat().st_mtime_ns for pattern in ("*.dcm", "*.safetensors") for p in tmp_path.rglob(pattern)}
    assert {path.suffix for path in made} == {".dcm", ".safetensors"}
    _provision(study, tmp_path / "second")
    again = {p: p.stat().st_mtime_ns for pattern in ("*.dcm", "*.safetensors") for p in tmp_path.rglob(pattern)}
    assert again == made


def test_a_hospital_that_is_kept_small_is_counted_as_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [("file", "site", "patient_id", "label")]
    for n in range(24):
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(tmp_path / f"{n}.png")
        rows.append((f"{n}.png", "north" if n < 12 else "south", f"p{n}", str(n % 2)))
    (tmp_path / "manifest.csv").write_text("\n".join(map(",".join, rows)), "utf-8")
    federation = ManifestFederation(max_training_patients={"south": 3}, validation_fraction=0.3, min_patients=2)
    study = Study(federation=federation, model=ScatterLinear(), output_dir=str(tmp_path / "out"))
    study.task.name, study.data_root = "breast_ultrasound", str(tmp_path)
    provisioned = _provision(study, tmp_path / "study")
    assert provisioned.sizes["south"] == provisioned.reports["south"].patients | {"train": 3}
    assert provisioned.reports["south"].patients["train"] > 3
    assert provisioned.sizes["north"] == provisioned.reports["north"].patients
    assert load(provisioned.federated["south"]).policy.min_patients == 2, "it must be allowed to take part at all"
