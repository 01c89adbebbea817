"""The model of a study as the one file that is handed to hospitals; ``tasks/models/model_file.py`` has its form.

It is written when a study ends, stands in the study's folder and in MLflow's registry, byte for byte the same: the
digest in the model card is the one that a hospital is told. A registry is a view that others may have written to: what
comes from there is taken only if its SHA-256 is the one that the study's own folder vouches for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load

from conf import load as conf
from conf import schema
from server.errors import StudyError
from server.results.results import Results
from server.study.document import document_of, fixed_sizes, weights_file, weights_of
from server.study.folder import FILE, StudyFolder
from tasks import task as tasks
from tasks.machine.disk import write_whole
from tasks.models import model_file, registry
from tasks.models.model_file import BadModelFile, ModelHead
from tasks.protocol import study

Vouching = Callable[[str], Mapping[str, Any]]
_REGISTERED = "models:/"
_DIGEST = "model_sha256"


def write(folder: StudyFolder, outcome: Results, weights: Path) -> Path:
    """Write the study's ``model.safetensors``. A model of which a part stayed at the hospitals has no probe.

    Args:
        weights: the file of the checkpoint that holds the model.
    """
    arrays = load(weights.read_bytes())
    configuration = conf.from_plain(folder.facts()["config"])
    document = document_of(configuration, folder.name, fixed_sizes(folder))
    task = tasks.get(document.task)
    network = registry.build(document.model, task.form, find=weights_of(configuration))
    probe: list[float] = []
    if not registry.misfits(network.trainable, arrays):
        registry.load_arrays(network.trainable, arrays)
        probe = model_file.probe(task, network)
    federated = outcome.details.get("federated")
    head = ModelHead(
        study=folder.name,
        document=study.digest(document),
        release=document.release,
        task=task.name,
        task_version=document.task_version,
        contract=document.contract,
        model=document.model,
        threshold=None if federated is None else federated.everybody.specific.threshold,
        accepted=None if outcome.gate is None else not outcome.gate,
        probe=probe,
    )
    path = folder.path / model_file.FILE
    write_whole(path, model_file.pack(head, arrays, _encoder(configuration)))
    return path


def _encoder(configuration: schema.Study) -> bytes:
    """The frozen encoder's file, which nobody but those who took part would have."""
    path = weights_file(configuration)
    if path is None or not isinstance(configuration.model, schema.Deep) or configuration.model.freeze != "encoder":
        return b""
    return path.read_bytes()


def export(source: str, uri: str, to: Path, vouching: Vouching | None = None) -> tuple[ModelHead, str]:
    """Copy a model to a file of its own. Returns its head and its SHA-256.

    Args:
        source: a study's folder, or a registered model as MLflow names it: ``models:/TASK@candidate``,
            ``models:/TASK/3``.
        uri: MLflow's store, for a registered model.
        vouching: from a study's name to what its own folder says, for a registered model.

    Raises:
        StudyError: there is no such model, none that could be used outside the study, or another than the study's own.
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
        raise StudyError(f"{source} cannot be rebuilt from what is in it: {error}") from error
    if problems := registry.misfits(network.trainable, arrays):
        raise StudyError(
            f"{source} cannot be used outside its study: {'; '.join(problems)}. With a strategy of which a part of the "
            "model stays at the hospitals nobody has the whole of it"
        )
    if to.exists():
        raise StudyError(f"{to} exists already; a model that was handed over is never overwritten")
    to.parent.mkdir(parents=True, exist_ok=True)
    write_whole(to, content)
    return head, model_file.digest(content)


def in_folder(studies: Path) -> Vouching:
    """What the folders of studies on this machine say."""

    def facts(name: str) -> dict[str, Any]:
        path = studies / name
        return StudyFolder(name, path, resumed=True).facts() if (path / FILE).exists() else {}

    return facts


def _vouched(source: str, study_name: str, digest: str, vouching: Vouching | None) -> None:
    """Refuse a model that the study which it names did not end with.

    Raises:
        StudyError: the study is not known, has not ended, or has ended with another model.
    """
    told = None if vouching is None else vouching(study_name).get(_DIGEST)
    if told is None:
        raise StudyError(
            f"{source} says that it is of the study {study_name}, and no folder of that study vouches for its SHA-256 "
            f"{digest}: say --studies FOLDER, where the studies are, or export the study's folder itself"
        )
    if told != digest:
        raise StudyError(
            f"{source} has SHA-256 {digest}, and its study {study_name} has ended with {told}: somebody has put "
            "another model into the registry. Export the study's folder, and tell whoever runs MLflow"
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
