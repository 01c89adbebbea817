"""Files of a prediction: reports, list and table, in a new folder that only its owner can access.

Tested in ``tests/client/prediction/test_predict.py``.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom import Dataset

from client.cohort.preparation import Decoding
from client.errors import SiteMisconfigured
from client.prediction import triage
from client.prediction.model import CheckedModel
from client.prediction.predict import Predictions, ScoredImage, called
from client.prediction.segmentation import segmentations_of
from client.prediction.spreadsheet import table_of
from client.prediction.structured_report import report_of
from client.prediction.told import cells, columns, measures
from tasks import faults
from tasks.machine.disk import write_secret
from tasks.machine.language import Language, spoken

REPORTS, OUTLINES, TRIAGE, SCORES = "reports", "outlines", "triage.html", "scores.csv"
_COLUMNS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "frame", "file", "probability of the image",
            "of the patient", "score of the image", "score of the patient", "at or above threshold",
            "contract warnings", "read without", "training side", "not scored because")  # fmt: skip
"""Further columns: of each question that asks for more than yes or no, what is told of the image and of the patient; if
the model outlines, for each structure the percentage of the image that it marks. Where a value is measured, scores are
no probabilities, and those cells are empty."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        reports: the files, in the order of the list.
        outlines: likewise the segmentations of a model that outlines.
        refused: how often an examination's report or segmentations could not be made, by the kind of error.
    """

    reports: list[Path] = field(default_factory=list)
    outlines: list[Path] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def new_folder(path: Path) -> Path:
    """Create a folder that only its owner can access.

    Raises:
        SiteMisconfigured: it holds something already, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(path.iterdir()):
            raise SiteMisconfigured(f"{path} is not empty: choose a new folder for --out, to keep predictions separate")
        path.chmod(0o700)
    except OSError as error:
        raise SiteMisconfigured(f"cannot create --out {faults.of_system(error)}") from error
    return path


def write(
    folder: Path,
    site: str,
    model: CheckedModel,
    predictions: Predictions,
    progress: Callable[[str, int, int], None],
    key: bytes,
    language: Language = "en",
) -> Written:
    """Write ``reports/*.dcm``, one per examination, ``outlines/*.dcm`` if the model outlines, ``triage.html`` and
    ``scores.csv``, mode 0600.

    Args:
        folder: a new one, see ``new_folder``.
        key: the hospital's secret, under which objects are named.
        language: of the list; reports in DICOM and the table are English, because other systems read them.

    Raises:
        SiteMisconfigured: the disk cannot be written; it is full, for instance.
    """
    written = Written()
    examinations = [images for patient in predictions.patients for images in patient.examinations().values()]
    try:
        with Decoding() as decoding:
            for number, images in enumerate(examinations, start=1):
                progress("writing reports", number, len(examinations))
                drawn: list[Dataset] = []
                if model.network.outlines:
                    decoder = decoding.decoder(predictions.images)
                    made = partial(segmentations_of, model, images, decoder, key)
                    drawn = _write(folder / OUTLINES, written.outlines, written.refused, made)
                _write(folder / REPORTS, written.reports, written.refused, partial(_report, model, images, key, drawn))
        now = datetime.now().astimezone()
        with spoken(language):
            page = triage.page(site, model, predictions, now)
        write_secret(folder / TRIAGE, page.encode("utf-8", "replace"))
        write_secret(folder / SCORES, table_of(_table(model, predictions)).encode())
    except OSError as error:
        raise SiteMisconfigured(f"cannot write to {folder}: {faults.of_system(error)}") from error
    return written


def _report(model: CheckedModel, images: list[ScoredImage], key: bytes, drawn: list[Dataset]) -> list[Dataset]:
    return [report_of(model, images, key, drawn)]


def _write(folder: Path, files: list[Path], refused: Counter[str], make: Callable[[], list[Dataset]]) -> list[Dataset]:
    """Write one examination's objects, numbered consecutively; failures are counted. Returns what was written."""
    try:
        made = make()
        contents = [_encoded(one) for one in made]
    except Exception as error:  # headers hold anything, and highdicom checks as it writes
        refused[type(error).__name__] += 1
        return []
    folder.mkdir(mode=0o700, exist_ok=True)
    for content in contents:
        files.append(folder / f"{len(files) + 1:05d}.dcm")
        write_secret(files[-1], content)
    return made


def _encoded(report: Dataset) -> bytes:
    stream = io.BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _table(model: CheckedModel, found: Predictions) -> Iterator[tuple[object, ...]]:
    yield "NOT FOR CLINICAL USE", f"study {model.head.study}", f"SHA-256 {model.sha256}"
    structures = model.task.structures if model.network.outlines else ()
    yield (*_COLUMNS, *columns(model.task), *(f"{structure.name}, percent of the image" for structure in structures))
    for patient in found.patients:
        side = {None: "", True: "yes", False: "no"}[called(model, patient.score)]
        told = patient.told
        for scored in patient.images:
            image = scored.image
            names = (image.patient, image.study, image.uid, image.frame + 1, image.path)
            both = (scored.score, patient.score)
            chances = ("", "") if measures(model.task) else (f"{p:.6f}" for p in map(model.probability, both))
            numbers = (*chances, *(f"{score:.6f}" for score in both), side)
            remarks = (" ".join(image.warned), " ".join(image.without), "yes" if image.trained else "")
            answers = () if scored.told is None or told is None else cells(scored.told, told)
            parts = () if scored.outline is None else scored.outline.fractions()
            yield (*names, *numbers, *remarks, "", *answers, *(f"{100 * part:.4f}" for part in parts))
    for one in found.left_out:
        yield one.patient, "", "", "", one.path, "", "", "", "", "", "", "", "", one.reason
