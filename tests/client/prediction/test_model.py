"""A model that was handed over is used only where it is the one that is meant and computes the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from client.errors import ModelRefused, OtherRelease, SiteMisconfigured
from client.prediction import model as opening
from client.prediction.model import CheckedModel, open_model
from tasks.machine.device import PROCESSOR, Placement
from tasks.metrics.recalibration import Recalibration
from tasks.models import model_file, registry
from tasks.models.weights import carried
from tests import second_device
from tests.client.prediction.handed_over import SPEC, TASK, head, weights, write_model


def test_it_computes_what_its_author_computed(tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.safetensors")
    for path in (tmp_path / "m.safetensors", tmp_path):
        for typed in (digest, digest.upper(), " ".join(digest[i : i + 8] for i in range(0, 64, 8))):
            opened = open_model(path, typed)
            assert (opened.sha256, opened.head.study) == (digest, "demo-1")
            assert opened.remarks == [
                "The model's scores were not calibrated: 30 % does not mean 30 patients in 100.",
                "Sensitivity and specificity at the operating threshold are not known: the model's file has none.",
            ]
    network = registry.build(SPEC, TASK.form)
    registry.load_arrays(network.trainable, weights())
    examples = np.random.default_rng(0).random((3, *TASK.example_shape), np.float32)
    told = opened.look(examples).scores
    assert told.shape == (3,)
    assert told.dtype == np.float64
    np.testing.assert_allclose(told, 1 / (1 + np.exp(-network.logits(torch.from_numpy(examples)).detach().numpy())))


def test_another_file_is_refused_before_anything_in_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    digest = write_model(path)
    path.write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(ModelRefused, match=r"is not the expected file.*you entered " + digest):
        open_model(path, digest)
    for typed in ("", digest[:12], "g" * 64):
        with pytest.raises(SiteMisconfigured, match="is no SHA-256"):
            open_model(path, typed)
    with pytest.raises(SiteMisconfigured, match="cannot read the model"):
        open_model(tmp_path / "absent", digest)
    (tmp_path / "n.safetensors").touch()
    with pytest.raises(SiteMisconfigured, match="has 2 safetensors files"):
        open_model(tmp_path, digest)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", save(weights())], ids=["pickle", "no head"])
def test_what_is_no_model_of_consilium_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelRefused, match=r"it is not a safetensors file of numbers|it has no Consilium header"):
        open_model(tmp_path, model_file.digest(content))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"task_version": 99}, "has version 1 here, the model has 99"),
        ({"contract": "e" * 64}, "acquisition contract"),
        ({"task": "nowhere"}, "is for task 'nowhere'"),
        ({"probe": [0.0, 0.0, 0.0]}, "computes different results"),
        ({"probe": []}, "computes different results"),
    ],
)
def test_another_computation_is_refused(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    digest = write_model(tmp_path / "m.safetensors", **changes)
    with pytest.raises(OtherRelease, match=why):
        open_model(tmp_path, digest)


def test_all_that_is_another_is_told_at_once(tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.safetensors", task_version=99, contract="e" * 64, release="9.9")
    with pytest.raises(OtherRelease, match=r"release 9\.9.*version 1 here.*contract.*Install that release"):
        open_model(tmp_path, digest)


def test_another_release_that_computes_the_same_is_used_and_told(tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.safetensors", release="9.9", accepted=False, threshold=None)
    told = open_model(tmp_path, digest).remarks
    assert "release 9.9" in told[0]
    assert "gate" in told[1]
    assert "not calibrated" in told[2]
    assert "no operating threshold" in told[3]


def test_scores_become_the_probabilities_that_its_study_has_calibrated(tmp_path: Path) -> None:
    line = Recalibration(-1.0, 2.0)
    digest = write_model(tmp_path / "m.safetensors", calibration=line, prevalence=0.27)
    opened = open_model(tmp_path, digest)
    assert opened.probability(0.5) == pytest.approx(1 / (1 + np.e))
    assert opened.threshold == pytest.approx(float(line.probability(0.43)))
    told, *_ = opened.remarks
    assert "about 27% had the finding" in told


def test_a_model_of_a_release_before_calibration_gives_its_scores(tmp_path: Path) -> None:
    older = asdict(head())
    del older["calibration"], older["prevalence"]
    content = save(weights(), {"consilium": json.dumps(older)})
    (tmp_path / "m.safetensors").write_bytes(content)
    opened = open_model(tmp_path, model_file.digest(content))
    assert (opened.probability(0.3), opened.threshold) == (0.3, 0.43)


def test_a_transform_that_has_changed_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a release would be whose author forgot to raise the task's version."""
    digest = write_model(tmp_path / "m.safetensors")
    darker = replace(TASK, read_example=lambda picture: TASK.read_example(picture) ** 2)
    monkeypatch.setattr(opening.tasks, "get", lambda name: darker)
    with pytest.raises(OtherRelease, match="computes different results"):
        open_model(tmp_path, digest)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"weight": weights()["weight"]}, "bias is missing"),
        (weights() | {"more": np.zeros(1, np.float32)}, "more is unknown"),
        (weights() | {"bias": np.zeros(2, np.float32)}, r"bias is float32 \(2,\), not float32 \(1,\)"),
        (weights() | {"bias": np.zeros(1, np.float16)}, "bias is float16"),
        (weights() | {"bias": np.array([np.inf], np.float32)}, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], why: str) -> None:
    digest = write_model(tmp_path / "m.safetensors", arrays)
    with pytest.raises(ModelRefused, match=why):
        open_model(tmp_path, digest)


def test_a_network_that_is_not_here_is_refused(tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.safetensors", model={"name": "somebody_elses"})
    with pytest.raises(ModelRefused, match="must be one of"):
        open_model(tmp_path, digest)


def test_a_frozen_encoder_comes_with_the_model_and_is_the_one_that_the_study_has(tmp_path: Path) -> None:
    vit: dict[str, Any] = {"name": "vit", "patch": 32, "width": 24, "layers": 1, "heads": 3}
    encoder = save(registry.arrays_of(registry.build(vit, TASK.form, 3).trainable))
    spec = vit | {"weights": hashlib.sha256(encoder).hexdigest(), "freeze": "encoder"}
    network = registry.build(spec, TASK.form, find=carried(encoder))
    registry.load_arrays(network.trainable, {"weight": np.ones((1, 24), np.float32)})
    made, last = head(model=spec, probe=model_file.probe(TASK, network)), registry.arrays_of(network.trainable)

    def opened(content: bytes) -> CheckedModel:
        (tmp_path / "m.safetensors").write_bytes(content)
        return open_model(tmp_path / "m.safetensors", model_file.digest(content))

    examples = np.random.default_rng(0).random((2, *TASK.example_shape), np.float32)
    expected = torch.sigmoid(network.logits(torch.from_numpy(examples))).detach().numpy()
    np.testing.assert_allclose(opened(model_file.pack(made, last, encoder)).look(examples).scores, expected)
    other = save(registry.arrays_of(registry.build(vit, TASK.form, 4).trainable))
    for absent in (b"", other):
        with pytest.raises(ModelRefused, match="weights with SHA-256"):
            opened(model_file.pack(made, last, absent))


def test_a_device_computes_the_same_or_the_processor_does(tmp_path: Path) -> None:
    opened = open_model(tmp_path, write_model(tmp_path / "m.safetensors"))
    examples = np.random.default_rng(0).random((3, *TASK.example_shape), np.float32)
    assert opening.moved(opened, PROCESSOR) is opened
    with second_device.used() as state:
        there = opening.moved(opened, Placement(second_device.DEVICE))
        state.operations.clear()
        np.testing.assert_allclose(there.look(examples).scores, opened.look(examples).scores, rtol=1e-4)
        assert state.operations, "it was the device"
        state.lost = True
        np.testing.assert_array_equal(there.look(examples).scores, opened.look(examples).scores)
    wrong = replace(opened, head=replace(opened.head, probe=[output + 0.1 for output in opened.head.probe]))
    with second_device.used():
        stays = opening.moved(wrong, Placement(second_device.DEVICE))
    assert stays.outputs is None
    assert stays.remarks[-1] == (
        "Device second:0 computes other results than the model's author; the processor was used."
    )
