"""The model of a study as the one file that is handed to hospitals; ``tasks/model_file.py`` has its form.

It is written when a study ends, stands in the study's folder and in MLflow's registry, byte for byte the same: the
digest in the model card is the one that a hospital is told.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load

from conf import load as conf
from conf import schema
from server.errors import StudyError
from server.folder import StudyFolder
from server.report import Results
from server.study import document_of, fixed_sizes, weights_file, weights_of
from tasks import model_file, study
from tasks import task as tasks
from tasks.disk import write_whole
from tasks.model_file import BadModelFile, ModelHead
from tasks.models import registry

_REGISTERED = "models:/"


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


def export(source: str, uri: str, to: Path) -> tuple[ModelHead, str]:
    """Copy a model to a file of its own. Returns its head and its SHA-256.

    Args:
        source: a study's folder, or a registered model as MLflow names it: ``models:/TASK@candidate``,
            ``models:/TASK/3``.
        uri: MLflow's store, for a registered model.

    Raises:
        StudyError: there is no such model, or none that could be used outside the study.
    """
    content = _registered(source, uri) if source.startswith(_REGISTERED) else _of_study(Path(source))
    try:
        head, arrays, find = model_file.unpack(content)
    except BadModelFile as error:
        raise StudyError(f"{source}: {error}") from None
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
    from server import tracking_export  # takes seconds to import

    return tracking_export.weights(name, uri)
