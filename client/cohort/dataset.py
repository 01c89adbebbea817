"""A cohort: one side of the split as tensors, grouped by patient, because the patient is the unit of privacy."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from client.cohort import cache, catalog, inputs
from client.cohort.alone import side_by_side
from client.cohort.on_device import OnDevice
from client.site import SiteSettings, secret
from tasks.answers import Answer, Binary
from tasks.machine.device import Placement, placement
from tasks.models.network import Network
from tasks.task import Augmentation, Task

_LOG = logging.getLogger(__name__)
UNKNOWN = 255
_AT_ONCE = 128
"""Images between two looks at the clock."""
_TELL_EVERY_S = 60.0


@dataclass(frozen=True)
class Cohort:
    """Patients and their images.

    Attributes:
        inputs: float32 of shape (images, ...): examples, or what the network's fixed part made of them.
        targets: float32 of shape (images, questions), what the network should say: truths as ``tasks/answers.py`` has
            them, NaN where nobody knows; the task's question first, then its secondary findings.
        rows: for each patient the int64 row numbers of its images in ``inputs``.
        patients: their pseudonyms, in the same order.
        masks: uint8 of shape (images, structures, ...), 0, 1, or ``UNKNOWN`` where nobody has outlined; ``None`` for a
            network that does not outline.
        augment: the random part of the task's transform, if images are drawn with it.
        answers: of which kind the answer to each question is; empty: they are all yes or no.
    """

    inputs: Tensor
    targets: Tensor
    rows: list[Tensor]
    patients: tuple[str, ...] = ()
    masks: Tensor | None = None
    augment: Augmentation | None = None
    answers: tuple[Answer, ...] = ()

    @property
    def kinds(self) -> tuple[Answer, ...]:
        """Of which kind the answer to each question is."""
        return self.answers or (Binary(),) * self.targets.shape[1]

    def draw(self, patients: list[int], images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw new images of some patients.

        A patient with fewer images than asked for brings them again, each as often as the others give or take one.

        Returns:
            Inputs of shape (patients, images, ...) and targets of shape (patients, images, questions), or with the
            pixels of each structure behind, if the network outlines.
        """
        chosen = _nobody(images)
        if patients:
            chosen = torch.stack([_spread(self.rows[p], images, generator) for p in patients])
        inputs, targets = self.inputs[chosen], self.targets[chosen]
        masks = None if self.masks is None else self.masks[chosen]
        if self.augment is not None and patients:
            inputs, masks = _augmented(self.augment, inputs, masks, generator)
        return inputs, targets if masks is None else torch.cat([targets, _pixels(masks.flatten(2))], dim=2)

    def nobody(self, images: int) -> tuple[Tensor, Tensor]:
        """What ``draw`` gives, for one fictitious patient: zeros."""
        outputs = self.targets.shape[1] + (0 if self.masks is None else self.masks[0].numel())
        return torch.zeros(1, images, *self.inputs.shape[1:]), torch.zeros(1, images, outputs)

    def patient_labels(self, question: int = 0) -> Tensor:
        """Of one of the questions, the task's own by default: 1 for a patient with the event, of a yes-or-no question
        one with at least one positive image; 0 without, NaN where nobody knows; float32 of shape (patients,)."""
        events = self.kinds[question].event_of(self.patient_truths(question))
        return torch.from_numpy(events.astype(np.float32))

    def patient_truths(self, question: int = 0) -> NDArray[np.float64]:
        """The truth of each patient that its images' make, as the task declares; shape (patients,)."""
        column, answer = self.targets[:, question].numpy(), self.kinds[question]
        return np.array([answer.of_patient(column[rows.numpy()]) for rows in self.rows], np.float64)


def _nobody(images: int) -> Tensor:
    return torch.empty((0, images), dtype=torch.int64)


def _pixels(masks: Tensor) -> Tensor:
    """As targets: float32, NaN where not outlined."""
    return torch.where(masks == UNKNOWN, math.nan, masks.float())


def _augmented(
    augment: Augmentation, inputs: Tensor, masks: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor | None]:
    """Each image augmented at random. Images without outlines stay without."""
    images = inputs.flatten(0, 1)
    none = torch.zeros((len(images), 0, *images.shape[2:]), dtype=torch.uint8)
    outlined = none if masks is None else masks.flatten(0, 1)
    known = outlined.where(outlined != UNKNOWN, 0)
    both = [_changed(augment, i, m.bool(), generator) for i, m in zip(images, known, strict=True)]
    changed = torch.stack([image for image, _ in both]).reshape(inputs.shape)
    if masks is None:
        return changed, None
    moved = torch.stack([mask.to(torch.uint8) for _, mask in both])
    return changed, torch.where(outlined == UNKNOWN, outlined, moved).reshape(masks.shape)


def _changed(augment: Augmentation, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An image that cannot be augmented stays as it is: an error would lose all others' gradients of the step."""
    try:
        return augment(image, mask, generator)
    except Exception:
        _LOG.exception("an image cannot be augmented; the original is used")
        return image, mask


def _spread(rows: Tensor, images: int, generator: torch.Generator) -> Tensor:
    if len(rows) == 1:  # no order to draw, which takes longer than all else here
        return rows.expand(images)
    rounds = -(-images // len(rows))
    shuffled = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[:images]


def open_cohort(site: SiteSettings, task: Task, side: str, spec: Mapping[str, Any], network: Network) -> Cohort:
    """The hospital's cohort for a task, ready for a network's trainable part.

    What the fixed part makes of each image is computed at the first call and kept; later calls read one file.

    Args:
        side: ``train`` or ``validation``.
        spec: the order's model, part of the kept file's name.

    Raises:
        CatalogStale, SamePersonTwice: see ``client.cohort.catalog.sides``.
    """
    catalog.honour_withdrawals(site)
    entries = catalog.sides(site, task)[side]
    patients = sorted({entry.patient for entry in entries})
    made = _inputs(site, task, side=side, spec=spec, entries=entries, features=network.features)
    targets = torch.tensor([_truths(task, entry) for entry in entries]).reshape(len(entries), len(task.answers))
    masks = (
        _kept(site, task, side=side, what="masks", entries=entries, make=partial(_masks, task))
        if network.outlines
        else None
    )
    rows: dict[str, list[int]] = {patient: [] for patient in patients}
    for row, entry in enumerate(entries):
        rows[entry.patient].append(row)
    # What the fixed part made of an image once cannot be made of another variant of it.
    augment = task.augment if side == "train" and network.features is None else None
    by_patient = [torch.tensor(rows[patient]) for patient in patients]
    cohort = Cohort(
        inputs=made,
        targets=targets,
        rows=by_patient,
        patients=tuple(patients),
        masks=masks,
        augment=augment,
        answers=task.answers,
    )
    if side == "train" and site.shuffled_labels:
        return _shuffled(cohort, secret(site), site.shuffled_labels)
    return cohort


def _truths(task: Task, entry: catalog.CatalogEntry) -> list[float]:
    unknown: tuple[None, ...] = (None,) * len(task.secondary_findings)
    return [math.nan if known is None else float(known) for known in (entry.label, *(entry.findings or unknown))]


def _masks(task: Task, entries: list[catalog.CatalogEntry]) -> Tensor:
    shape = (len(task.structures), *task.example_shape[1:])
    masks = torch.full((len(entries), *shape), UNKNOWN, dtype=torch.uint8)
    for row, entry in enumerate(entries):
        known = cache.load_masks(entry.example)
        if known is not None:
            masks[row] = torch.from_numpy(known.astype(np.uint8))
    return masks


def _shuffled(cohort: Cohort, key: bytes, number: int) -> Cohort:
    """Each patient's images get another patient's truths, the same patient's in every round; ``number`` selects the
    permutation."""

    def place(patient: int) -> bytes:
        return hmac.digest(key, f"shuffled labels {number} {cohort.patients[patient]}".encode(), "sha256")

    order = sorted(range(len(cohort.rows)), key=place)
    truths = [torch.from_numpy(cohort.patient_truths(n)).float() for n in range(cohort.targets.shape[1])]
    dealt = torch.stack([each[order] for each in truths], dim=1)
    targets = cohort.targets.clone()
    for rows, told in zip(cohort.rows, dealt, strict=True):
        targets[rows] = told
    return replace(cohort, targets=targets)


def _inputs(
    site: SiteSettings,
    task: Task,
    side: str,
    spec: Mapping[str, Any],
    entries: list[catalog.CatalogEntry],
    features: nn.Module | None,
) -> Tensor:
    model = hashlib.sha256(json.dumps(dict(spec), sort_keys=True).encode()).hexdigest()[:16]
    what = model if features is not None else "examples"
    on = placement(site.trainer.device)

    def make(some: list[catalog.CatalogEntry]) -> Tensor:
        return _computed(task, some, features, on)

    return _kept(site, task, side=side, what=what, entries=entries, make=make)


def _kept(
    site: SiteSettings,
    task: Task,
    side: str,
    what: str,
    entries: list[catalog.CatalogEntry],
    make: Callable[[list[catalog.CatalogEntry]], Tensor],
) -> Tensor:
    """The features of these entries, from one file; missing ones are computed and stored.

    Only what is missing is made: were it all made again when one patient is gone, the next answer's time would tell.
    """
    path = site.catalog / "inputs" / f"{site.name}-{task.name}-{side}-{what}.safetensors"
    names = [entry.example.stem for entry in entries]
    stored, kept = inputs.read(path)
    if stored == names and kept is not None:
        return kept
    place = {name: row for row, name in enumerate(stored)}
    missing = list({entry.example.stem: entry for entry in entries if entry.example.stem not in place}.values())
    made = [] if kept is None else [kept]
    told = time.monotonic()
    for start in range(0, len(missing), _AT_ONCE) if missing or made else [0]:
        some = missing[start : start + _AT_ONCE]
        made.append(make(some))
        place |= {entry.example.stem: len(place) + row for row, entry in enumerate(some)}
        if time.monotonic() - told > _TELL_EVERY_S:  # a large encoder takes hours for a large hospital
            _LOG.info("%s of %s: %d of %d images are made ready", what, path.name, start + len(some), len(missing))
            made = [torch.cat(made)]
            inputs.write(path, list(place), made[0])  # whoever is ended here goes on from there
            told = time.monotonic()
    whole = torch.cat(made)[[place[name] for name in names]]
    inputs.write(path, names, whole)
    return whole


def _computed(
    task: Task, entries: list[catalog.CatalogEntry], features: Callable[[Tensor], Tensor] | None, on: Placement
) -> Tensor:
    """The fixed part's output for each image by itself: nobody's features depend on who else is there."""
    blank = _made_by(features, torch.zeros(1, *task.example_shape))  # some parts make ready what they need at first
    if isinstance(features, nn.Module) and on.beside:
        there = OnDevice(features, on, at_once=1)
        return torch.cat([blank[:0], *(_features(there, entry) for entry in entries)])
    return torch.cat([blank[:0], *side_by_side(partial(_features, features), entries)])


def _features(features: Callable[[Tensor], Tensor] | None, entry: catalog.CatalogEntry) -> Tensor:
    return _made_by(features, torch.from_numpy(cache.load_example(entry.example))[None])


@torch.no_grad()
def _made_by(features: Callable[[Tensor], Tensor] | None, image: Tensor) -> Tensor:
    return (image if features is None else features(image)).contiguous()
