"""A study with another package's network: only what is installed and listed here is loaded, and only that version."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.errors import ModelRefused
from client.oversight.explain import words
from client.oversight.review import examine
from client.prediction.model import open_model
from tasks.models import installed, model_file, registry
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import ErrorCode, Refusal, TrainOrder, TrainReport
from tasks.task import get
from tests.client.hospital import Hospital, draw_archive
from tests.client.prediction.handed_over import head
from tests.own_package import ENTRY, install

SHAPES = {"2.weight": (4, 64), "2.bias": (4,), "4.weight": (1, 4), "4.bias": (1,)}


def told(hospital: Hospital, study: StudyDocument) -> str:
    with hospital.records() as records:
        said = words(examine(study, hospital.settings, records.ledger))
    return "\n".join(line for lines in said.values() for line in lines)


def test_it_is_loaded_only_where_it_is_installed_listed_and_of_the_studys_version(
    tmp_path: Path, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installed, "_tried", set())
    study = replace(document, model={"name": "custom", "entry": ENTRY, "version": "my-net 2.0"})
    hospital = Hospital.provision(tmp_path, draw_archive(tmp_path / "archive"), policy={"models": ["custom"]})
    hospital.approve(study)
    order = TrainOrder(study, 1, {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})

    install(monkeypatch, tmp_path / "one")
    assert hospital.ask(order) == Refusal(study.name, 1, ErrorCode.NOT_PERMITTED)
    assert f"model '{ENTRY}' is not in policy.models" in told(hospital, study)
    assert "my_package.net" not in sys.modules

    hospital.change(policy={"models": [ENTRY]})
    assert hospital.ask(order) == Refusal(study.name, 1, ErrorCode.MODEL_REFUSED)
    assert "the study needs my-net 2.0, my-net 1.0 is installed here" in hospital.log()
    assert "the study needs my-net 2.0, my-net 1.0 is installed here" in told(hospital, study)
    assert "my_package.net" not in sys.modules
    assert hospital.entries() == [], "nothing was spent"

    install(monkeypatch, tmp_path / "two", version="2.0")
    reply = hospital.ask(order)
    assert isinstance(reply, TrainReport)
    assert {name: value.shape for name, value in reply.arrays.items()} == SHAPES
    assert f"A network of another package, {ENTRY} of my-net 2.0, whose code this hospital has installed" in told(
        hospital, study
    )


def test_a_finished_models_code_is_loaded_only_where_the_policy_lists_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path)
    spec = {"name": "custom", "entry": ENTRY, "version": "my-net 1.0"}
    made = head(spec=spec)
    arrays = registry.arrays_of(registry.build(spec, get(made.task).form, 1).trainable)
    content = model_file.pack(made, arrays)
    (tmp_path / "m.safetensors").write_bytes(content)
    for listed in ([], ["scatter_linear", "custom"]):
        with pytest.raises(ModelRefused, match=rf"needs the code of {ENTRY}; add it to policy\.models"):
            open_model(tmp_path / "m.safetensors", model_file.digest(content), listed)
