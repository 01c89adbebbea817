"""A model file from elsewhere: check that it is the expected one, and that it computes the same results here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort.on_device import OnDevice
from client.errors import ModelRefused, OtherRelease, SiteMisconfigured
from client.prediction.judged import sentences
from client.prediction.told import Told, measures, told_of
from conf.schema.model import is_foreign, permission_of
from tasks import contract as contracts
from tasks import faults
from tasks import task as tasks
from tasks.machine.device import Placement
from tasks.machine.language import number, say
from tasks.models import model_file, registry
from tasks.models.model_file import MOST_BYTES, BadModelFile, ModelHead
from tasks.models.network import Network
from tasks.protocol.study import release
from tasks.task import Task

_DIGEST = re.compile(r"[0-9a-f]{64}")
_AT_ONCE = 32


@dataclass(frozen=True)
class Looked:
    """A model's output for some images.

    Attributes:
        scores: of the positive class or of the event, from 0 to 1, shape (images,).
        marked: what it marks, shape (images, structures, *example_shape[1:]); ``None`` where it outlines nothing.
        told: of questions that ask for more than yes or no, for each image; ``None`` where there are none.
    """

    scores: NDArray[np.float64]
    marked: NDArray[np.bool_] | None = None
    told: list[Told] | None = None


@dataclass(frozen=True)
class CheckedModel:
    """A model that was checked.

    Attributes:
        sha256: of its file.
        apart: the device that computes other results than the model's author, so that the processor is used; "" for
            none.
    """

    head: ModelHead
    sha256: str
    task: Task
    network: Network
    outputs: Callable[[Tensor], Tensor] | None = None
    """``network.outputs`` by way of a device; ``None``: the processor computes."""
    apart: str = ""

    @property
    def remarks(self) -> list[str]:
        """What a person should know of it, a sentence each, in the language spoken."""
        notes = _remarks(self.head, self.task)
        if not self.apart:
            return notes
        return [
            *notes,
            say(
                "Device {device} computes other results than the model's author; the processor was used.",
                device=self.apart,
            ),
        ]

    @torch.no_grad()
    def look(self, examples: NDArray[np.float32]) -> Looked:
        """Its output for examples of shape (images, *example_shape)."""
        outputs = (self.outputs or self.network.outputs)(torch.from_numpy(np.ascontiguousarray(examples)))
        form = self.task.form
        scores, told = form.scores(outputs), told_of(self.task, outputs)
        if not self.network.outlines:
            return Looked(scores, told=told)
        return Looked(scores, form.marked(outputs).numpy(), told)

    def probability(self, score: float) -> float:
        """What a score means: the patient's probability, as the study's validation patients have calibrated it from
        the mean over images. A model that carries no calibration leaves it as it is."""
        calibration = self.head.calibration
        return score if calibration is None else float(calibration.probability(score))

    @property
    def threshold(self) -> float | None:
        """The probability from which a patient counts as positive."""
        return None if self.head.threshold is None else self.probability(self.head.threshold)


def open_model(path: Path, sha256: str, models: Collection[str] = ()) -> CheckedModel:
    """The model in a file, or in the only safetensors file of a folder, ready to score.

    Nothing in the file is believed before its digest is the one that a person was told.

    Args:
        models: the hospital's ``policy.models``: of other packages only what stands there is loaded.

    Raises:
        SiteMisconfigured: the file cannot be read, or what was typed is no digest.
        ModelRefused: it is another file than was meant, no model, or its tensors do not fit or are not finite.
        OtherRelease: the task, the contract or the computation is another one here; every reason at once.
    """
    content = _read(path)
    typed, there = "".join(sha256.split()).lower(), model_file.digest(content)
    if not _DIGEST.fullmatch(typed):
        raise SiteMisconfigured(f"--sha256 {sha256!r} is no SHA-256: it has 64 digits from 0 to f; ask the coordinator")
    if typed != there:
        raise ModelRefused(
            f"{path} is not the expected file: its SHA-256 is {there}, you entered {typed}. Ask whoever gave you the "
            "file for the digest again, through another channel; if they still differ, do not use the file"
        )
    try:
        head, arrays, find = model_file.unpack(content)
    except BadModelFile as error:
        raise ModelRefused(f"{path}: {error}") from None
    task = _task(head)
    if is_foreign(head.model) and (entry := permission_of(head.model)) not in models:
        raise ModelRefused(f"{path} needs the code of {entry}; add it to policy.models in site.yaml if it may run here")
    try:
        network = registry.build(head.model, task.form, find=find)
    except registry.UnknownModel as error:
        raise ModelRefused(f"{path}: {error}") from error
    if problems := registry.misfits(network.trainable, arrays):
        raise ModelRefused(f"the tensors in {path} do not fit {head.model.get('name')}: {'; '.join(problems)}")
    registry.load_arrays(network.trainable, arrays)
    _refuse_another_computation(head, task, network)
    network.trainable.eval()
    return CheckedModel(head, there, task, network)


class _Whole(nn.Module):
    """A network's fixed part and its trained one together."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._features, self._trainable = network.features, network.trainable

    def forward(self, images: Tensor) -> Tensor:
        """All logits."""
        return Network(self._features, self._trainable).outputs(images)


def moved(model: CheckedModel, on: Placement) -> CheckedModel:
    """The model, which a device computes from now on, if that gives what the model's author has got; told where it does
    not."""
    if not on.beside:
        return model
    device = OnDevice(_Whole(model.network), on, _AT_ONCE)
    found = device(torch.from_numpy(model_file.probe_examples(model.task)))[:, : model.task.answer.outputs]
    if not model.head.probe or model_file.agrees(model.head.probe, [float(output) for output in found.flatten()]):
        return replace(model, outputs=device)
    return replace(model, apart=str(on.device))


def _read(path: Path) -> bytes:
    try:
        file = model_file.found(path)
        if file.stat().st_size > MOST_BYTES:
            raise ModelRefused(f"{file} has more than {MOST_BYTES} bytes; no network of this release is so large")
        return file.read_bytes()
    except BadModelFile as error:
        raise SiteMisconfigured(str(error)) from None
    except OSError as error:
        raise SiteMisconfigured(f"cannot read the model {faults.of_system(error)}") from error
    except ValueError as error:
        raise SiteMisconfigured(f"cannot read the model {str(path)!r}: {error}") from error


def _task(head: ModelHead) -> Task:
    if head.task not in tasks.names():
        raise OtherRelease(f"the model is for task {head.task!r}; this release has {', '.join(tasks.names())}")
    task, problems = tasks.get(head.task), []
    if task.example_version != head.task_version:
        problems.append(f"task {task.name} has version {task.example_version} here, the model has {head.task_version}")
    if contracts.digest_of_task(task.name) != head.contract:
        problems.append(f"the acquisition contract of {task.name} differs from the one it was trained with")
    if problems:
        raise OtherRelease(
            f"the model is of release {head.release}, this is {release()}: {'; '.join(problems)}. Install that release"
        )
    return task


def _refuse_another_computation(head: ModelHead, task: Task, network: Network) -> None:
    """Another release may be used if it computes the same, which the probe shows and its number does not."""
    here = model_file.probe(task, network)
    if not model_file.agrees(head.probe, here):
        raise OtherRelease(
            f"this installation computes different results from the model's author: on the test images it should give "
            f"{_numbers(head.probe)} and gives {_numbers(here)}. The model is of release {head.release}, this is "
            f"{release()}; install that release, with the versions in its constraints.txt"
        )


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values) or "nothing"


def _remarks(head: ModelHead, task: Task) -> list[str]:
    notes = []
    if head.release != release():
        notes.append(
            say(
                "The model is of release {release}, this is {own}; on the test images they agree.",
                release=head.release,
                own=release(),
            )
        )
    if head.accepted is False:
        notes.append(say("The model has not passed its study's own quality gate."))
    if measures(task):
        notes.append(say("Patients are in the order of the measured value. What it is worth is in the study's report."))
    elif head.calibration is None:
        notes.append(say("The model's scores were not calibrated: 30 % does not mean 30 patients in 100."))
    elif head.prevalence is not None:
        notes.append(
            say(
                "Probabilities are calibrated on the study's validation patients, of whom about {prevalence} had the "
                "finding. Where it is rarer they are too high, where it is more frequent too low.",
                prevalence=number(head.prevalence, ".0%"),
            )
        )
    if head.threshold is None:
        notes.append(say("The study has no operating threshold: patients are ranked, without positive or negative."))
    return [*notes, *sentences(head, measured=measures(task))]
