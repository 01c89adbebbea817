"""One private step on the hospital's device and one on its processor, on invented images: is the device used, and what
is it worth?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from client.privacy import PatientSteps, StepTerms
from client.site import SiteSettings
from client.training.noise import entropy
from client.training.train import loss_for
from conf.schema.training import TrainingSettings
from tasks.machine.device import PROCESSOR, Placement, finished, forget_peak, peak_bytes, telling
from tasks.models import registry
from tasks.models.network import Network
from tasks.task import Task

_PATIENTS, _IMAGES = 2, 1
_HARDLY_ANY = 1e-9
"""Noise that leaves the sums comparable; with none there would be no clip."""
_OTHERWISE = "densenet121"
_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Trial:
    """A step on a device beside the processor's.

    Attributes:
        network: the first of ``policy.models`` that is more than one linear layer, otherwise DenseNet121.
        seconds, processor_seconds: of a step of two patients with an image each, when everything is warm.
        megabytes: most memory on the device, with the network; ``None`` where it does not say.
        processor_megabytes: how far the processor's step raised this process's memory; likewise.
        apart: the largest difference between the two sums, as a fraction of the largest value.
        failures: what the device has not done.
    """

    network: str
    seconds: float
    processor_seconds: float
    megabytes: int | None
    processor_megabytes: int | None
    apart: float
    failures: list[str]


def tried(site: SiteSettings, task: Task, on: Placement) -> Trial:
    """Take the steps. Nothing is released, and no patient's image is used.

    Raises:
        ModelRefused: one patient's step needs more than ``max_memory_mb``.
    """
    name, network = _network(site, task)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(_PATIENTS * _IMAGES, *task.form.shape, generator=draw)
    with torch.no_grad():
        kept = images if network.features is None else network.features(images)
        outputs = network.trainable.eval()(kept).shape[1]
    inputs = kept.unflatten(0, (_PATIENTS, _IMAGES))
    labels = torch.zeros(_PATIENTS, _IMAGES, outputs - task.form.outputs + len(task.answers))
    failures: list[str] = []
    step = partial(_step, site, task, network=network, inputs=inputs, labels=labels)
    with telling(failures.append):
        forget_peak(on.device)
        there, seconds = _timed(step(on=on), on)
        peak = peak_bytes(on.device)
    _forget_resident()
    before = _resident("VmRSS")
    here, processor_seconds = _timed(step(on=PROCESSOR), PROCESSOR)
    after = _resident("VmHWM")
    return Trial(
        network=name,
        seconds=seconds,
        processor_seconds=processor_seconds,
        megabytes=None if peak is None else peak >> 20,
        processor_megabytes=None if before is None or after is None else max(0, after - before) >> 10,
        apart=float((there - here).abs().max() / here.abs().max().clamp(min=1e-12)),
        failures=failures,
    )


def _network(site: SiteSettings, task: Task) -> tuple[str, Network]:
    for name in (*site.policy.models, _OTHERWISE):
        try:
            network = registry.build({"name": name}, task.form)
        except registry.UnknownModel:  # it needs a file, or does not fit the task by its defaults
            continue
        if not isinstance(network.trainable, torch.nn.Linear):
            return name, network
    raise AssertionError(f"{_OTHERWISE} fits every task")


def _step(
    site: SiteSettings, task: Task, network: Network, inputs: Tensor, labels: Tensor, on: Placement
) -> Callable[[], Tensor]:
    terms = StepTerms(_HARDLY_ANY, 1.0, _PATIENTS, site.max_memory_mb, on)
    loss = loss_for(task, TrainingSettings().class_weights)
    steps = PatientSteps(network.trainable, loss, partial(torch.optim.SGD, lr=0.0), terms, entropy())
    steps.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(labels[:1]))
    return lambda: steps.noised_sum(list(range(_PATIENTS)), lambda chosen: (inputs[chosen], labels[chosen]))


def _timed(step: Callable[[], Tensor], on: Placement) -> tuple[Tensor, float]:
    step()
    finished(on.device)
    started = time.perf_counter()
    total = step()
    finished(on.device)
    return total, time.perf_counter() - started


def _forget_resident() -> None:
    """Begin to measure ``VmHWM``; Linux only."""
    try:
        _FORGET.write_text("5")
    except OSError:
        return


def _resident(field: str) -> int | None:
    """In KiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(field)), None)
