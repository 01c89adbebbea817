"""The model of a study as the one file that hospitals get; ``tasks/models/model_file.py`` has its format.

It is written when a study ends. The study's folder and MLflow's registry hold the same bytes, so the digest in the
model card is the one that hospitals are told. A registry is a view that others may have written to: a model from there
is accepted only if its SHA-256 is the one in the study's own folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load

from conf import load as conf
from conf.schema.model import keeps_its_file
from conf.schema.study import Study
from server.errors import StudyError
from server.results import open_formats
from server.results.results import Results
from server.study.document import document_in, weights_file, weights_of
from server.study.folder import FILE, StudyFolder
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.models import model_file, registry
from tasks.models.model_file import BadModelFile, ModelHead
from tasks.protocol import study

Vouching = Callable[[str], Mapping[str, Any]]
FILES = {
    "consilium": model_file.FILE,
    "torchscript": "model.ts",
    "onnx": "model.onnx",
    "bundle": "model-bundle",
}
"""What an exported model is called, by its format."""
_REGISTERED = "models:/"
_DIGEST = "model_sha256"


def write(folder: StudyFolder, outcome: Results, weights: Path) -> Path:
    """Write the study's ``model.safetensors``. A model of which a part stays at the hospitals has no self-check.

    Args:
        weights: the file of the checkpoint that holds the model.
    """
    arrays = load(weights.read_bytes())
    configuration = conf.from_plain(folder.facts()["config"])
    document = document_in(configuration, folder)
    task = tasks.get(document.task)
    network = registry.build(document.model, task.form, find=weights_of(configuration))
    probe: list[float] = []
    if not registry.misfits(network.trainable, arrays):
        registry.load_arrays(network.trainable, arrays)
        probe = model_file.probe(task, network)
    federated = outcome.details.get("federated")
    point = None if federated is None else federated.everybody.specific
    judged = None if outcome.recalibrated is None else outcome.recalibrated.everybody
    head = ModelHead(
        study=folder.name,
        document=study.digest(document),
        release=document.release,
        task=task.name,
        task_version=document.task_version,
        contract=document.contract,
        model=document.model,
        threshold=None if point is None else point.threshold,
        accepted=None if outcome.gate is None else not outcome.gate,
        probe=probe,
        calibration=None if outcome.recalibrated is None else outcome.recalibrated.line,
        prevalence=None if outcome.recalibrated is None else outcome.recalibrated.prevalence,
        sensitivity=None if point is None else point.sensitivity,
        specificity=None if point is None else point.specificity,
        calibration_error=None if judged is None else judged.calibration_error,
    )
    path = folder.path / model_file.FILE
    write_whole(path, model_file.pack(head, arrays, _encoder(configuration)))
    return path


def _encoder(configuration: Study) -> bytes:
    """The frozen encoder's file, which only participants would have otherwise."""
    path = weights_file(configuration)
    return path.read_bytes() if path is not None and keeps_its_file(configuration.model) else b""


def export(
    source: str, uri: str, to: Path, vouching: Vouching | None = None, form: str = "consilium"
) -> tuple[ModelHead, str]:
    """Write a model to a file of its own. Returns its head and the SHA-256 of the study's own file.

    Args:
        source: a study's folder, or a registered model as MLflow names it: ``models:/TASK@candidate``,
            ``models:/TASK/3``.
        uri: MLflow's store, for a registered model.
        vouching: from a study's name to the facts in its own folder, for a registered model.
        form: one of ``FILES``.

    Raises:
        StudyError: there is no such model, it cannot be used outside the study, or it is not the study's own.
    """
    content = _registered(source, uri) if source.startswith(_REGISTERED) else _of_study(Path(source))
    try:
        head, arrays, find = model_file.unpack(content)
    except BadModelFile as error:
        raise StudyError(f"{source}: {error}") from None
    if source.startswith(_REGISTERED):
        _vouched(source, head.study, model_file.digest(content), vouching)
    try:
        network = registry.build(head.model, tasks.get(head.task).form, find=find)
    except registry.UnknownModel as error:
        raise StudyError(f"{source} cannot be rebuilt from its contents: {error}") from error
    if problems := registry.misfits(network.trainable, arrays):
        raise StudyError(
            f"{source} cannot be used outside its study: {'; '.join(problems)}. With a strategy that keeps a part of "
            "the model at the hospitals, nobody has the whole model"
        )
    if to.exists():
        raise StudyError(f"{to} already exists; an exported model is never overwritten: name another with --out")
    if form == "consilium":
        to.parent.mkdir(parents=True, exist_ok=True)
        write_whole(to, content)
    else:
        registry.load_arrays(network.trainable, arrays)
        open_formats.write(form, to, head, tasks.get(head.task), network)
    return head, model_file.digest(content)


def in_folder(studies: Path) -> Vouching:
    """Facts from the folders of studies on this machine."""

    def facts(name: str) -> dict[str, Any]:
        path = studies / name
        return StudyFolder(name, path, resumed=True).facts() if (path / FILE).exists() else {}

    return facts


def _vouched(source: str, study_name: str, digest: str, vouching: Vouching | None) -> None:
    """Refuse a model that is not the result of the study that it names.

    Raises:
        StudyError: the study is not known, has not ended, or has ended with another model.
    """
    recorded = None if vouching is None else vouching(study_name).get(_DIGEST)
    if recorded is None:
        raise StudyError(
            f"{source} names the study {study_name}, but no folder of that study confirms its SHA-256 {digest}: set "
            "--studies FOLDER to where the studies are, or export the study's folder itself"
        )
    if recorded != digest:
        raise StudyError(
            f"{source} has SHA-256 {digest}, but its study {study_name} has ended with {recorded}: the registry holds "
            "another model. Export the study's folder instead, and tell whoever runs MLflow"
        )


def _of_study(folder: Path) -> bytes:
    path = folder / model_file.FILE
    try:
        return path.read_bytes()
    except OSError as error:
        raise StudyError(
            f"cannot read {path}: {error.strerror}. A study writes it when it ends; name its folder, such as "
            f"outputs/studies/NAME, or a registered model, such as {_REGISTERED}TASK@candidate"
        ) from error


def _registered(name: str, uri: str) -> bytes:
    from server.tracking import download  # takes seconds to import

    return download.weights(name, uri)
