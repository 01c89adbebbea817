"""``consilium-site compare``: a study's model beside the hospital's own, on its own patients, with nobody told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from client.cli.main import app
from client.cohort import catalog
from client.cohort.dataset import open_cohort
from client.errors import BadOrder, OtherRelease
from client.training import compare
from client.training.scoring import score_patients
from client.training.train import load_weights
from tasks import task as tasks
from tasks.models import registry
from tasks.protocol.study import StudyDocument, canonical
from tests.client.hospital import Archive, Hospital, draw_archive, weights


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    archive: Archive = draw_archive(tmp_path_factory.mktemp("archive"))
    found = Hospital.provision(tmp_path_factory.mktemp("hospital"), archive)
    catalog.ingest(found.settings, tasks.get("breast_ultrasound"))
    return found


def _run(hospital: Hospital, *words: object) -> Any:
    return CliRunner().invoke(app, ["compare", "--site", str(hospital.file), *map(str, words)])


def test_both_figures_are_scikit_learns_and_the_gain_is_their_difference(
    hospital: Hospital, document: StudyDocument
) -> None:
    given = {name: value + np.float32(0.01) for name, value in weights(document).items()}
    found = compare.with_own(hospital.settings, document, given, torch.Generator().manual_seed(3))
    task = tasks.get(document.task)
    network = registry.build(document.model, task.form)
    load_weights(network.trainable, given)
    cohort = open_cohort(hospital.settings, task, "validation", document.model, network)
    expected = roc_auc_score(cohort.patient_labels(), score_patients(network.trainable, cohort))
    assert found.federated is not None
    assert found.own is not None
    assert found.gain is not None
    assert found.scored == len(cohort.rows)
    assert found.federated.value == pytest.approx(expected, abs=1e-9)
    assert found.gain.value == pytest.approx(found.federated.value - found.own.value, abs=1e-9)
    assert found.gain.low <= found.gain.value <= found.gain.high


def test_more_patients_than_bins_lose_next_to_nothing() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random(3000) < 0.3).astype(int)
    scores = 1 / (1 + np.exp(-rng.normal(size=3000) - labels))
    for some in (scores, np.round(scores, 1)):
        edges = compare._between(some)
        assert edges.shape == (511,)
        bins = np.searchsorted(edges, some, side="right")
        assert roc_auc_score(labels, bins) == pytest.approx(roc_auc_score(labels, some), abs=1e-4)


def test_nothing_is_written_into_the_records(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(canonical(document))
    save_file(weights(document), tmp_path / "model.safetensors")
    entries, receipts = hospital.entries(), hospital.receipts()
    ended = _run(hospital, tmp_path / "study.json", tmp_path / "model.safetensors", "--json")
    assert ended.exit_code == 0, ended.output
    told = json.loads(ended.stdout)
    assert told["gain"]["low"] <= told["gain"]["value"] <= told["gain"]["high"]
    assert (hospital.entries(), hospital.receipts()) == (entries, receipts)
    shown = " ".join(_run(hospital, tmp_path / "study.json", tmp_path / "model.safetensors").stdout.split())
    assert "trained by demo-1" in shown
    assert "for this hospital only" in shown
    assert any(said in shown for said in ("Federation helps here", "Federation harms here", "No evidence either way"))


def test_what_does_not_belong_together_is_refused(hospital: Hospital, document: StudyDocument, tmp_path: Path) -> None:
    with pytest.raises(OtherRelease, match=r"0\.0\.0"):
        compare.with_own(hospital.settings, replace(document, release="0.0.0"), weights(document))
    with pytest.raises(BadOrder, match="do not fit"):
        compare.with_own(hospital.settings, document, {"weight": np.zeros((1, 1), np.float32)})
    with pytest.raises(BadOrder, match="resnet99"):
        compare.with_own(hospital.settings, replace(document, model={"name": "resnet99"}), weights(document))
    (tmp_path / "study.json").write_text(canonical(document))
    (tmp_path / "model.safetensors").write_bytes(b"no model")
    ended = _run(hospital, tmp_path / "study.json", tmp_path / "model.safetensors")
    assert ended.exit_code == 2
    assert "is no study's model" in ended.output
