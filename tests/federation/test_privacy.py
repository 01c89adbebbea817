"""Ways in which other systems lose the privacy that they promise, tried on the whole path from order to reply."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import client.app
from client.ledger.accounting import epsilon_of
from client.setup.provisioning import provision
from client.site import load
from client.training.train import train_locally
from conf.schema.study import Study
from server.__main__ import client_app, provision_hospitals
from server.launch import run_study
from server.simulation import Hospitals
from tasks.models import registry
from tasks.models.network import Network
from tasks.protocol import wire
from tasks.protocol.study import EvaluationTerms, PrivacyTerms, StudyDocument
from tasks.protocol.wire import ErrorCode, EvaluateReport, Refusal, TrainOrder, TrainReport
from tests.client.hospital import Archive, Hospital, draw_archive, evaluate, read, train, weights, with_terms
from tests.federation.embedded import configure, console, entries

LARGE: dict[str, str | int | float | bool] = {"name": "scatter_linear", "resolution": 64, "J": 2, "L": 4, "pool": 8}
NOBODY = 1e-6


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"))


def _update(hospital: Hospital, document: StudyDocument, round: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    reply = hospital.ask(train(document, round))
    assert isinstance(reply, TrainReport)
    return np.concatenate([reply.arrays[name].ravel() for name in sorted(reply.arrays)])


# --- privacy that a flag switches off -----------------------------------------------------------------------------


def _with_a_real_hospital(study: Study, folder: Path, advance: Any) -> Hospitals:
    """Alder is a hospital that is not simulated, with the policy of the commented example."""
    hospitals = provision_hospitals(study, folder, advance)
    path, size = hospitals.federated["alder"], hospitals.public_sizes["alder"]
    values = yaml.safe_load(path.read_text("utf-8"))
    strict = {"without_privacy": False, "auto_approve": False, "scores": "noised", "min_patients": 5}
    policy = {name: value for name, value in values["policy"].items() if name in ("tasks", "models")} | strict
    values["catalog"] = str(shutil.copytree(values["catalog"], folder / "catalog"))
    path.write_text(yaml.safe_dump(values | {"simulated": False, "public_size": size, "policy": policy}), "utf-8")
    for file in (load(path).ledger, load(path).audit_log):  # those of a simulated hospital never become a real one's
        file.unlink()
    provision(load(path))
    return hospitals


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["privacy=none"], "train: refused with NOT_PERMITTED; evaluate: refused with NOT_PERMITTED"),
        (
            ["evaluation.bins=16", "evaluation.edges=equal"],
            "train: refused with NOT_APPROVED; evaluate: refused with NOT_PERMITTED",
        ),
    ],
    ids=["no privacy", "exact scores"],
)
def test_a_real_hospital_takes_no_part_in_a_study_without_privacy(ground: Path, flags: list[str], told: str) -> None:
    """Whatever the researcher's command line says, and although the other hospitals of the study go along."""
    study = configure(ground, "flag", ["federation.rounds=1", "evaluation.arms=[]", *flags])
    shown_on, _ = console()
    results = run_study(study, _with_a_real_hospital, client_app, shown_on)
    folder = ground / "studies" / results.study
    assert results.dropped.keys() == {"alder"}
    assert told in results.dropped["alder"]
    assert entries(folder, "alder") == []
    assert [len(entries(folder, name)) for name in ("birch", "cedar")] == [2, 2]


@pytest.mark.parametrize("setting", [{"without_privacy": True}, {"auto_approve": True}, {"scores": "exact"}])
def test_a_real_hospital_cannot_even_be_set_up_without_privacy(
    tmp_path: Path, archive: Archive, document: StudyDocument, setting: dict[str, Any]
) -> None:
    hospital = Hospital.provision(tmp_path, archive)
    values = yaml.safe_load(hospital.file.read_text("utf-8"))
    hospital.file.write_text(yaml.safe_dump(values | {"policy": values["policy"] | setting}), "utf-8")
    assert hospital.ask(train(document)) == Refusal("unknown", 0, ErrorCode.SITE_MISCONFIGURED)


@pytest.mark.parametrize(
    "flags",
    [
        {"privacy": PrivacyTerms(1e3, 1e-4, 0.5)},
        {"privacy": PrivacyTerms(8.0, 0.99, 0.5)},
        {"privacy": PrivacyTerms(1e3, 0.99, 1e6)},
        {"evaluation": EvaluationTerms(1, 16, 1e3)},
        {"evaluation": EvaluationTerms(1000, 16, 1e3)},
        {"rounds": 1, "asked": 1},
    ],
    ids=str,
)
def test_no_request_spends_more_than_the_caps(
    tmp_path: Path, archive: Archive, document: StudyDocument, flags: dict[str, Any]
) -> None:
    """Also when the server says that a study is short, and then goes on asking."""
    hospital = Hospital.provision(tmp_path, archive)
    study = replace(document, **flags)
    hospital.approve(study)
    for shift in range(3):
        hospital.ask(train(study, shift=shift))
        hospital.ask(evaluate(study, shift=shift))
    assert {entry.use.cohort for entry in hospital.entries()} == {"train", "validation"}
    assert all(entry.mechanism.noise_multiplier > 0 for entry in hospital.entries())
    cap = min(hospital.settings.policy.max_delta, 0.1 / 200)
    assert hospital.spent("train", cap) <= 8
    assert hospital.spent("validation", cap) <= 8


@pytest.mark.parametrize("field", ["noise_multiplier", "seed", "clip_percentile", "secure_mode", "disable"])
def test_an_order_has_no_field_that_could_weaken_the_noise(
    tmp_path: Path, archive: Archive, document: StudyDocument, field: str
) -> None:
    """Neither a noise that the server chooses, nor its seed, nor a clip that follows the patients' gradients."""
    hospital = Hospital.provision(tmp_path, archive)
    content = wire.encode(train(document))
    head = content.config_records["head"]
    order = json.loads(str(head["json"]))
    order["study"]["privacy"][field] = 0
    head["json"] = json.dumps(order)
    assert read(hospital.send(content, "train")) == Refusal("unknown", 0, ErrorCode.BAD_ORDER)
    assert f"study.privacy.{field}" in hospital.log()


# --- noise that is not what the ledger says -----------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.05, 5.0])
def test_the_noise_that_leaves_is_the_ledgers_times_the_clip_at_every_step(
    tmp_path: Path, archive: Archive, document: StudyDocument, clip: float
) -> None:
    """Steps that sample nobody leave noise alone: each adds the learning rate times sigma times C to every weight, as
    the expected number of patients is 1. 1,601 weights estimate the deviation to 1.8 %; 9 % are five of that."""
    hospital = Hospital.provision(tmp_path, archive)
    study = with_terms(replace(document, model=LARGE), sample_rate=NOBODY, steps=4, learning_rate=0.5)
    study = replace(study, privacy=replace(document.privacy, clip_norm=clip))
    hospital.approve(study)
    update = _update(hospital, study)
    assert update.size == 1601
    (entry,) = hospital.entries()
    assert update.std() == pytest.approx(0.5 * entry.mechanism.noise_multiplier * clip * 4**0.5, rel=0.09)
    assert entry.mechanism.count == 4


def test_equal_studies_on_equal_patients_get_different_noise(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    """Whatever seeds the generators of the process have."""
    updates, histograms = [], []
    for twin in ("one", "other"):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        hospital = Hospital.provision(tmp_path / twin, archive)
        hospital.approve(document)
        updates.append(_update(hospital, document))
        scored = hospital.ask(evaluate(document))
        assert isinstance(scored, EvaluateReport)
        histograms.append(scored.arrays["histogram"])
    assert (updates[0] != updates[1]).all()
    assert (histograms[0] != histograms[1]).all()


def test_what_is_done_to_an_update_is_not_claimed_as_privacy(
    tmp_path: Path, archive: Archive, document: StudyDocument
) -> None:
    """Fewer numbers, shorter steps, a smaller clip: epsilon follows from noise, sampling rate and steps, and from
    nothing else. And what leaves is what was trained, number for number: nothing is thinned out on the way."""
    told = set()
    variants = [
        document,
        replace(document, model=LARGE),
        with_terms(document, learning_rate=1e-6),
        with_terms(document, images_per_patient=1),
        replace(document, privacy=replace(document.privacy, clip_norm=1e-3)),
    ]
    for number, study in enumerate(variants):
        hospital = Hospital.provision(tmp_path / str(number), archive)
        hospital.approve(study)
        trained: list[wire.Arrays] = []

        def remember(*given: Any, kept: list[wire.Arrays] = trained, **named: Any) -> wire.Arrays:
            kept.append(train_locally(*given, **named))
            return kept[0]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client.app, "train_locally", remember)
            reply = hospital.ask(train(study))
        assert isinstance(reply, TrainReport)
        assert all(np.array_equal(reply.arrays[name], value) for name, value in trained[0].items())
        told.add(reply.epsilon)
        assert reply.epsilon == epsilon_of([entry.mechanism for entry in hospital.entries()], 1e-4)
    assert len(told) == 1


# --- models in which patients meet --------------------------------------------------------------------------------


def test_a_network_that_mixes_patients_is_refused_before_anyone_is_touched(
    tmp_path: Path, archive: Archive, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalisation: a patient's images change others' gradients, and its buffers would leave without noise."""
    hospital = Hospital.provision(tmp_path, archive)
    hospital.approve(document)
    mixing = Network(nn.Identity(), nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(128 * 128, 1)))
    monkeypatch.setattr(registry, "build", lambda *given, **more: mixing)
    order = TrainOrder(document, 1, weights(document))
    assert hospital.ask(order) == Refusal(document.name, 1, ErrorCode.MODEL_REFUSED)
    assert hospital.entries() == []
    assert "BatchNorm" in hospital.log()
