"""A study's model as one file, out of its folder and out of a real MLflow store."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from conf import load as conf
from conf.schema.study import Study
from server import commands, run_study
from server.errors import StudyError
from server.results import export
from server.rounds.checkpoint import write_state
from server.rounds.state import StudyState
from server.study.document import document_of, fixed_sizes, model_of, open_study
from server.study.folder import StudyFolder
from server.tracking.tracker import NoTracker, open_tracker
from tasks import task as tasks
from tasks.models import model_file, registry
from tasks.models.weights import in_folder
from tasks.protocol import study
from tests.drawn import undrawn
from tests.server import outcome

SIZES = {"ash": 90, "elm": 70}


def ended(home: Path, *overrides: str) -> tuple[Study, StudyFolder, list[Path]]:
    """A study of two rounds that has just recorded what it found."""
    configuration = replace(conf.load(list(overrides)), output_dir=str(home))
    folder = open_study(configuration)
    fixed_sizes(folder, SIZES)
    found, state = outcome.outcome(
        {"ash": outcome.evaluated(1, 2.0), "elm": outcome.evaluated(2, 1.5)}, gates={"auc": 0.99}
    )
    state = replace(state, weights=_weights(configuration))
    write_state(folder.path / "federated", state)
    told: list[str] = []
    tracker = open_tracker(configuration, folder, ["ash", "elm"], [], told.append)
    files = run_study.record(folder, found, state, tracker)
    assert told == []
    return configuration, folder, files


def _weights(configuration: Study) -> dict[str, object]:
    form = tasks.get(configuration.task.name).form
    return registry.arrays_of(registry.build(asdict(configuration.model), form, 1).trainable)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, StudyFolder, list[Path]]:
    return ended(tmp_path_factory.mktemp("export"))


def test_the_file_says_what_the_model_belongs_to(whole: tuple[Study, StudyFolder, list[Path]]) -> None:
    configuration, folder, files = whole
    content = (folder.path / model_file.FILE).read_bytes()
    assert folder.path / model_file.FILE in files
    head, arrays, find = model_file.unpack(content)
    assert find is None
    document = document_of(configuration, folder.name, SIZES)
    assert (head.study, head.document, head.release) == (folder.name, study.digest(document), document.release)
    assert (head.task, head.task_version, head.contract) == (document.task, document.task_version, document.contract)
    assert head.model == document.model
    assert head.accepted is False
    assert 0 < (head.threshold or 0) < 1
    assert head.calibration is not None
    assert 0 < head.calibration.slope < 5
    assert head.prevalence == pytest.approx(120 / 280)
    assert save(arrays) == save(load((folder.path / "federated" / "round-0002.safetensors").read_bytes()))
    network = registry.build(head.model, tasks.get(head.task).form)
    registry.load_arrays(network.trainable, arrays)
    assert model_file.agrees(head.probe, model_file.probe(tasks.get(head.task), network))


def test_the_model_card_has_the_digest_that_a_hospital_types(
    whole: tuple[Study, StudyFolder, list[Path]], tmp_path: Path
) -> None:
    _, folder, _ = whole
    head, digest = export.export(str(folder.path), "", tmp_path / "out" / "model.safetensors")
    assert head.study == folder.name
    assert digest == model_file.digest((tmp_path / "out" / "model.safetensors").read_bytes())
    assert digest in (folder.path / "model-card.md").read_text()
    with pytest.raises(StudyError, match="never overwritten"):
        export.export(str(folder.path), "", tmp_path / "out" / "model.safetensors")


def test_the_registry_has_the_same_bytes(
    whole: tuple[Study, StudyFolder, list[Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder, _ = whole
    uri = f"sqlite:///{folder.path.parents[1] / 'mlflow.db'}"
    target = tmp_path / "model.safetensors"
    assert (
        commands.main(["export", "models:/breast_ultrasound@candidate", "--uri", uri, "--out", str(target)], undrawn)
        == 0
    )
    content = (folder.path / model_file.FILE).read_bytes()
    assert target.read_bytes() == content
    told = capsys.readouterr().out
    assert model_file.digest(content) in told.replace("\n", "")
    assert "study's own gate: not passed" in told
    assert "Not for clinical use" in told
    absent = ["export", "models:/breast_ultrasound@nobody", "--uri", uri, "--out", str(tmp_path / "b")]
    assert commands.main(absent, undrawn) == 1
    assert "TrackingFailed" in capsys.readouterr().out
    assert not (tmp_path / "b").exists()


def test_a_model_of_which_a_part_stays_is_not_handed_over(tmp_path: Path) -> None:
    configuration = replace(conf.load(["experiment=demo", "tracking=none"]), output_dir=str(tmp_path))
    folder = open_study(configuration)
    fixed_sizes(folder, SIZES)
    found, state = outcome.outcome({"ash": outcome.evaluated(1, 2.0)})
    part = {name: value for name, value in _weights(configuration).items() if name == "weight"}
    state: StudyState = replace(state, weights=part)  # type: ignore[no-redef]
    write_state(folder.path / "federated", state)
    run_study.record(folder, found, state, NoTracker())
    head, _, _ = model_file.unpack((folder.path / model_file.FILE).read_bytes())
    assert head.probe == []
    with pytest.raises(StudyError, match=r"bias is missing.*keeps a part of the model at the hospitals"):
        export.export(str(folder.path), "", tmp_path / "out.safetensors")


def test_a_frozen_encoder_is_handed_over_with_the_head(tmp_path: Path) -> None:
    """The file alone gives the probabilities of the study's network, here and at a hospital's door."""
    vit = {"name": "vit", "patch": 32, "width": 24, "layers": 1, "heads": 3}
    form = tasks.get("breast_ultrasound").form
    kept = tmp_path / "encoders" / "encoder.safetensors"
    kept.parent.mkdir()
    kept.write_bytes(save(registry.arrays_of(registry.build(vit, form, 9).trainable)))
    options = [f"model.{name}={value}" for name, value in vit.items() if name != "name"]
    frozen = [f"model.weights={kept}", "model.freeze=encoder"]
    overrides = ["model=vit", *options, *frozen, "tracking=none"]
    configuration = replace(conf.load(overrides), output_dir=str(tmp_path))
    folder = open_study(configuration)
    fixed_sizes(folder, SIZES)
    network = registry.build(model_of(configuration), form, find=in_folder(kept.parent))
    rng = np.random.default_rng(0)
    head = {n: rng.normal(0, 1, a.shape).astype(np.float32) for n, a in registry.arrays_of(network.trainable).items()}
    registry.load_arrays(network.trainable, head)
    found, state = outcome.outcome({"ash": outcome.evaluated(1, 2.0)})
    state = replace(state, weights=head)
    write_state(folder.path / "federated", state)
    run_study.record(folder, found, state, NoTracker())
    told, digest = export.export(str(folder.path), "", tmp_path / "out.safetensors")
    kept.unlink()
    content = (tmp_path / "out.safetensors").read_bytes()
    assert digest == model_file.digest(content)
    _, arrays, find = model_file.unpack(content)
    assert arrays.keys() == {"weight", "bias"}, "what travelled"
    alone = registry.build(told.model, form, find=find)
    registry.load_arrays(alone.trainable, arrays)
    images = torch.from_numpy(rng.random((4, *form.shape), dtype=np.float32))
    with torch.no_grad():
        expected = torch.sigmoid(network.logits(images)).numpy()
        np.testing.assert_allclose(torch.sigmoid(alone.logits(images)).numpy(), expected, atol=1e-6)
    assert np.ptp(expected) > 0.001, "the network tells images apart"
    assert str(tmp_path).encode() not in content
    (folder.path / model_file.FILE).write_bytes(model_file.pack(told, arrays, save(head)))
    with pytest.raises(StudyError, match=r"cannot be rebuilt.*SHA-256"):
        export.export(str(folder.path), "", tmp_path / "other.safetensors")


def test_a_registry_that_somebody_has_written_to_gives_no_model(
    whole: tuple[Study, StudyFolder, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong version compares the file with nothing: the forger computes head and probe as well."""
    _, folder, _ = whole
    genuine = (folder.path / model_file.FILE).read_bytes()
    head, arrays, _ = model_file.unpack(genuine)
    network = registry.build(head.model, tasks.get(head.task).form)
    negated = {name: -value for name, value in arrays.items()}
    registry.load_arrays(network.trainable, negated)
    forged = model_file.pack(replace(head, probe=model_file.probe(tasks.get(head.task), network)), negated)
    monkeypatch.setattr("server.tracking.download.weights", lambda name, uri: forged)
    vouching, target = export.in_folder(folder.path.parent), tmp_path / "m.safetensors"
    with pytest.raises(StudyError, match="the registry holds another model") as caught:
        export.export("models:/breast_ultrasound@accepted", "", target, vouching)
    assert model_file.digest(forged) in str(caught.value)
    assert model_file.digest(genuine) in str(caught.value)
    for nobody in (None, export.in_folder(tmp_path)):
        with pytest.raises(StudyError, match="no folder of that study confirms"):
            export.export("models:/breast_ultrasound@accepted", "", target, nobody)
    assert not target.exists()


def test_what_is_no_study_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="models:/TASK@candidate"):
        export.export(str(tmp_path), "", tmp_path / "out")
