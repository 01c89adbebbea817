"""A study with a frozen encoder: the hospital takes it from its own folder, or says what it lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from client.oversight.review import examine
from tasks import task as tasks
from tasks.models import registry
from tasks.models.weights import digest_of
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import ErrorCode, Refusal, TrainOrder, TrainReport
from tests.client.hospital import TASK, Hospital, draw_archive

VIT: dict[str, Any] = {"name": "vit", "patch": 32, "width": 24, "layers": 1, "heads": 3}


def test_the_hospital_takes_the_file_from_its_own_folder_or_says_which_one_it_lacks(
    tmp_path: Path, document: StudyDocument
) -> None:
    form = tasks.get(TASK).form
    file = tmp_path / "encoder.safetensors"
    save_file(registry.arrays_of(registry.build(VIT, form, 9).trainable), file)
    study = replace(document, model=VIT | {"weights": digest_of(file), "freeze": "encoder"})
    hospital = Hospital.provision(tmp_path, draw_archive(tmp_path / "archive"), policy={"models": ["vit"]})
    hospital.approve(study)
    last = {"weight": (form.outputs, 24), "bias": (form.outputs,)}
    order = TrainOrder(study, 1, {name: np.zeros(shape, np.float32) for name, shape in last.items()})

    assert hospital.ask(order) == Refusal(study.name, 1, ErrorCode.MODEL_REFUSED)
    assert f"{digest_of(file)}, which is missing: put it into the folder that site.yaml names" in hospital.log()
    assert hospital.entries() == [], "nothing was spent"
    with hospital.records() as records:
        told = examine(study, hospital.settings, records.ledger)
    assert any(digest_of(file) in reason for reason in told.refused["training"])

    hospital.settings.weights.mkdir()
    file.rename(hospital.settings.weights / "any-name.safetensors")
    reply = hospital.ask(order)
    assert isinstance(reply, TrainReport)
    assert {name: value.shape for name, value in reply.arrays.items()} == last
    assert len(hospital.entries()) == 1
