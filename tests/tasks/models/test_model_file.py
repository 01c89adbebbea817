"""A model as one file: what comes out is what went in, and whatever else is in it is named."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tasks import task as tasks
from tasks.contract import digest_of_task
from tasks.models import model_file, registry
from tasks.models.model_file import BadModelFile, ModelHead
from tasks.protocol.study import release
from tests import spoiling
from tests.spoiling import MANY

SPEC: dict[str, str | int | float | bool] = {"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2}


def head(task: str = "breast_ultrasound") -> ModelHead:
    version = tasks.get(task).example_version
    return ModelHead(
        study="demo-1",
        document="a" * 64,
        release=release(),
        task=task,
        task_version=version,
        contract=digest_of_task(task),
        model=SPEC,
        threshold=0.4,
        accepted=None,
        probe=[0.5],
    )


ARRAYS = {"weight": np.arange(6, dtype=np.float32).reshape(1, 6), "bias": np.ones(1, np.float32)}


def test_what_comes_out_is_what_went_in() -> None:
    content = model_file.pack(head(), ARRAYS)
    assert content == model_file.pack(head(), dict(reversed(ARRAYS.items())))
    told, arrays, find = model_file.unpack(content)
    assert told == head()
    assert find is None
    assert {name: value.tolist() for name, value in arrays.items()} == {n: v.tolist() for n, v in ARRAYS.items()}
    assert load(content).keys() == ARRAYS.keys(), "any reader of safetensors can read the weights"


def test_an_encoders_file_is_carried_byte_for_byte() -> None:
    encoder = save({"odd": np.arange(7, dtype=np.float32)})
    _, arrays, find = model_file.unpack(model_file.pack(head(), ARRAYS, encoder))
    assert arrays.keys() == ARRAYS.keys()
    assert find is not None
    assert find(model_file.digest(encoder)) == encoder
    assert find("0" * 64) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a safetensors file"),
        (b"\x80\x04K\x01.", "not a safetensors file"),  # a pickle
        (model_file.pack(head(), ARRAYS)[:-4], "not a safetensors file"),
        (save(ARRAYS), "no Consilium header"),
        (save(ARRAYS, {"consilium": "{}"}), "study"),
        (save(ARRAYS, {"consilium": json.dumps(asdict(head()) | {"code": "import os"})}), "code"),
        (save(ARRAYS, {"consilium": json.dumps(asdict(head()) | {"threshold": 2})}), "threshold"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(BadModelFile, match=why):
        model_file.unpack(content)


def test_a_folder_stands_for_its_only_model(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="has no safetensors file"):
        model_file.found(tmp_path)
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "card.md").touch()
    assert model_file.found(tmp_path) == tmp_path / "a.safetensors"
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(BadModelFile, match="has 2 safetensors files"):
        model_file.found(tmp_path)


@pytest.mark.parametrize("name", tasks.clinical())
def test_a_probe_tells_models_and_transforms_apart(name: str) -> None:
    task = tasks.get(name)
    network = registry.build(SPEC | {"L": 3}, task.form)  # which images and volumes can have
    rng = np.random.default_rng(0)
    arrays = {
        name: value + rng.normal(0, 0.5, value.shape).astype(np.float32)
        for name, value in registry.arrays_of(network.trainable).items()
    }
    registry.load_arrays(network.trainable, arrays)
    told = model_file.probe(task, network)
    assert model_file.agrees(told, model_file.probe(task, network))
    assert len(set(told)) == 3 * task.answer.outputs
    assert not model_file.agrees([], told)
    darker = replace(task, read_example=lambda picture: task.read_example(picture) * np.float32(0.9))
    assert not model_file.agrees(told, model_file.probe(darker, network))
    registry.load_arrays(network.trainable, {name: value * np.float32(1.05) for name, value in arrays.items()})
    assert not model_file.agrees(told, model_file.probe(task, network))


def test_tensors_that_do_not_fit_are_all_named() -> None:
    network = registry.build(SPEC, tasks.get("breast_ultrasound").form).trainable
    good = registry.arrays_of(network)
    assert registry.misfits(network, good) == []
    wrong = {"weight": good["weight"].astype(np.float64), "extra": good["bias"]}
    problems = registry.misfits(network, wrong)
    assert [problem.split()[0] for problem in problems] == ["bias", "extra", "weight"]
    assert registry.misfits(network, good | {"bias": np.full(1, np.nan, np.float32)}) == [
        "bias has values that are not finite"
    ]
    assert registry.misfits(network, {"weight": good["weight"]}, frozenset({"bias"})) == []


@MANY
@given(st.data())
def test_a_spoilt_file_is_a_model_or_is_refused_in_words(data: st.DataObject) -> None:
    if data.draw(st.booleans()):
        content = data.draw(spoiling.bytes_of(model_file.pack(head(), ARRAYS, b"an encoder")))
    else:
        content = save(ARRAYS, {"consilium": data.draw(spoiling.json_of(asdict(head())))})
    try:
        told, arrays, _ = model_file.unpack(content)
    except BadModelFile:
        return
    assert told.threshold is None or 0 <= told.threshold <= 1
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
