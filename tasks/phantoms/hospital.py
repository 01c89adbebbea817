"""Fills a phantom hospital's folder: patients, files, labels, and the mark that it is complete."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from tasks.answers import Answer, Measure
from tasks.phantoms.dicom_writer import common_attributes, patient_id, uid, write
from tasks.task import PhantomHospital

LABELS, MARK = "labels.csv", "phantom.json"
Attributes = dict[str, Any]
Dependent = Callable[[Sequence[Attributes]], Attributes]
"""From the attributes of the patient's files so far to those of one that refers to them, such as a segmentation."""


@dataclass(frozen=True)
class Described:
    """An image with what a reader noted of it.

    Attributes:
        image: its attributes.
        findings: 0, 1 or ``None`` where nobody has noted it, in the order of ``Recipe.secondary``; of another kind of
            answer what a labels file says.
        label: what a labels file says of it; "" for the name of its class.
    """

    image: Attributes
    findings: tuple[int | str | None, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Recipe:
    """A task's part in drawing a hospital.

    Attributes:
        task: its name.
        version: changes whenever other pictures would be drawn from the same hospital and seed.
        classes: names of the negative and the positive class.
        draw_patient: from the hospital, the patient's random numbers and whether the patient is positive to the
            attributes of each image: the image modules with the pixels, SOPClassUID and Modality, and SeriesNumber
            where there are several series. Files that refer to others come after them.
        labelled: what has a row in ``labels.csv``: an image by its SOPInstanceUID, or an examination of many by its
            StudyInstanceUID.
        secondary: names of the secondary findings, which are columns of ``labels.csv``.
    """

    task: str
    version: int
    classes: tuple[str, str]
    draw_patient: Callable[[PhantomHospital, np.random.Generator, bool], Iterator[Attributes | Described | Dependent]]
    labelled: str = "SOPInstanceUID"
    secondary: tuple[str, ...] = ()


def fill(folder: Path, hospital: PhantomHospital, seed: int, recipe: Recipe) -> None:
    """Write ``dicom/<patient>/<n>.dcm``, ``labels.csv`` and ``phantom.json``.

    A folder that is complete for the same order is left as it is; an interrupted or different drawing is removed and
    redone, so files of two hospitals never mix. ``labels.csv`` is renamed into place last: where it is, all files are.

    Args:
        folder: made when missing; only the three names above are touched in it.
        hospital: what to draw.
        seed: the same hospital and seed give the same bytes; on another processor a grey value may round differently.
        recipe: how the task draws a patient.

    Raises:
        FileExistsError: ``dicom`` is there without ``phantom.json``: somebody else's files, which are not removed.
        OSError: the folder cannot be written.
    """
    order = {"hospital": asdict(hospital), "seed": seed, "task": recipe.task, "version": recipe.version}
    digest = hashlib.sha256(json.dumps(order, sort_keys=True).encode()).hexdigest()
    if _is_complete(folder, digest):
        return
    _clear(folder)
    _replace(folder / MARK, json.dumps({"digest": digest} | order, indent=1) + "\n")
    numbers = range(1, hospital.patients + 1)
    rows = [row for number in numbers for row in _patient(folder, hospital, seed, recipe, number)]
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([("PatientID", recipe.labelled, "label", *recipe.secondary), *rows])
    _replace(folder / LABELS, text.getvalue())


def random_numbers(*names: object) -> np.random.Generator:
    """A generator that belongs to these names; Python's own ``hash`` differs from process to process."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(names).encode()).digest()[:16], "big"))


def drawn_truth(answer: Answer, positive: bool, rng: np.random.Generator) -> float:
    """A patient's truth with or without the event of a question: each class or grade is as likely as the others, and so
    is each value on its side of the threshold."""
    if isinstance(answer, Measure):
        low, high = sorted((answer.threshold, answer.high if positive == (answer.event_below is None) else answer.low))
        value = float(rng.uniform(low, high))
        return round(value, 1) if answer.event_of(np.array([round(value, 1)]))[0] == positive else value
    numbers = np.arange(answer.cells)
    return float(rng.choice(numbers[answer.event_of(numbers) == positive]))


def severity(answer: Answer, truth: float) -> float:
    """Where a truth lies among all there are: 0 for the first class or grade or the lowest value, 1 for the last."""
    low, high = (answer.low, answer.high) if isinstance(answer, Measure) else (0.0, answer.cells - 1.0)
    return (truth - low) / (high - low)


def _patient(
    folder: Path, hospital: PhantomHospital, seed: int, recipe: Recipe, number: int
) -> Iterator[tuple[str | int, ...]]:
    # Each patient has numbers of its own: adding patients to a hospital leaves those before them as they were.
    rng = random_numbers(recipe.task, hospital.name, seed, number)
    positive = bool(rng.random() < hospital.prevalence)
    if hospital.positives is not None:
        positive = number in _drawn(recipe.task, hospital, seed)
    patient = patient_id(hospital.name, number)
    files: list[Attributes] = []
    named: set[str] = set()
    for instance, one in enumerate(recipe.draw_patient(hospital, rng, positive), start=1):
        described = one if isinstance(one, Described) else Described({})
        drawn = one.image if isinstance(one, Described) else one
        attributes = (
            drawn(files)
            if callable(drawn)
            else _identified(drawn, hospital, seed=seed, recipe=recipe, number=number, instance=instance)
        )
        write(folder / "dicom" / patient / f"{instance}.dcm", attributes)
        files.append(attributes)
        name = str(attributes[recipe.labelled])
        if not callable(drawn) and name not in named:
            named.add(name)
            findings = described.findings or [None] * len(recipe.secondary)
            noted = ["" if finding is None else finding for finding in findings]
            yield patient, name, described.label or recipe.classes[positive], *noted


def _identified(
    image: Attributes, hospital: PhantomHospital, seed: int, recipe: Recipe, number: int, instance: int
) -> Attributes:
    """An image with what says whose it is, and to which series and space it belongs."""
    named = (recipe.task, hospital.name, seed, number)
    attributes = common_attributes(recipe.task, hospital.name, number, seed) | image
    attributes |= {"SOPInstanceUID": uid(*named, instance), "InstanceNumber": instance}
    if "SeriesNumber" in image:
        attributes["SeriesInstanceUID"] = uid(*named, "series", image["SeriesNumber"])
    if "ImagePositionPatient" in image:
        attributes |= {"FrameOfReferenceUID": uid(*named, "frame of reference"), "PositionReferenceIndicator": ""}
    return attributes


def _drawn(task: str, hospital: PhantomHospital, seed: int) -> set[int]:
    """The positive patients, where their number is given; with another number of patients they are others."""
    order = random_numbers(task, hospital.name, seed, "positives").permutation(hospital.patients) + 1
    return set(order[: hospital.positives].tolist())


def _is_complete(folder: Path, digest: str) -> bool:
    try:
        mark = json.loads((folder / MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / LABELS).is_file() and isinstance(mark, dict) and mark.get("digest") == digest


def _clear(folder: Path) -> None:
    if (folder / "dicom").exists() and not (folder / MARK).exists():
        raise FileExistsError(f"{folder} has files that no phantom drew; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LABELS).unlink(missing_ok=True)
    if (folder / "dicom").exists():
        shutil.rmtree(folder / "dicom")


def _replace(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, "utf-8")
    os.replace(part, path)
