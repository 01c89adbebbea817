"""What a prediction leaves on the disk: reports, list and table, in a new folder that its owner alone can enter."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydicom import Dataset

from client.errors import SiteMisconfigured
from client.prediction import structured_report, triage
from client.prediction.model import Model
from client.prediction.predict import Predictions, called
from tasks.disk import write_secret

REPORTS, TRIAGE, SCORES = "reports", "triage.html", "scores.csv"
_COLUMNS = ("PatientID", "StudyInstanceUID", "SOPInstanceUID", "frame", "file", "probability of the image",
            "of the patient", "at or above threshold", "contract warnings", "read without", "training side",
            "not scored because")  # fmt: skip
"""After them, where the model outlines: of each structure, the percent of the image that it marks."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        reports: the files, in the order of the list.
        refused: studies of which no report could be made, by the kind of error.
    """

    reports: list[Path]
    refused: Counter[str]


def new_folder(path: Path) -> Path:
    """Make a folder that its owner alone can enter.

    Raises:
        SiteMisconfigured: it holds something already, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(path.iterdir()):
            raise SiteMisconfigured(f"{path} is not empty: reports of two predictions must not lie side by side")
        path.chmod(0o700)
    except OSError as error:
        raise SiteMisconfigured(f"cannot make {path}: {error.strerror}") from error
    return path


def write(folder: Path, site: str, model: Model, found: Predictions, told: Callable[[str, int, int], None]) -> Written:
    """Write ``reports/*.dcm``, one a study, ``triage.html`` and ``scores.csv``, mode 0600.

    Args:
        folder: a new one, see ``new_folder``.

    Raises:
        SiteMisconfigured: the disk cannot be written; it is full, for instance.
    """
    reports: list[Path] = []
    refused: Counter[str] = Counter()
    studies = [images for patient in found.patients for images in patient.studies().values()]
    try:
        (folder / REPORTS).mkdir(mode=0o700)
        for number, images in enumerate(studies, start=1):
            told("writing reports", number, len(studies))
            try:
                content = _encoded(structured_report.report_of(model, images))
            except Exception as error:  # headers hold anything, and highdicom checks as it writes
                refused[type(error).__name__] += 1
                continue
            reports.append(folder / REPORTS / f"{number:05d}.dcm")
            write_secret(reports[-1], content)
        made = datetime.now().astimezone()
        write_secret(folder / TRIAGE, triage.page(site, model, found, made).encode())
        write_secret(folder / SCORES, _table(model, found).encode())
    except OSError as error:
        raise SiteMisconfigured(f"cannot write to {folder}: {error.strerror}") from error
    return Written(reports, refused)


def _encoded(report: Dataset) -> bytes:
    stream = io.BytesIO()
    report.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _table(model: Model, found: Predictions) -> str:
    stream = io.StringIO()
    rows = csv.writer(stream)
    rows.writerow(("NOT FOR CLINICAL USE", f"study {model.head.study}", f"SHA-256 {model.sha256}"))
    structures = model.task.structures if model.network.outlines else ()
    rows.writerow((*_COLUMNS, *(f"{structure.name}, percent of the image" for structure in structures)))
    rows.writerows(_rows(model, found))
    return stream.getvalue()


def _rows(model: Model, found: Predictions) -> Iterator[tuple[object, ...]]:
    for patient in found.patients:
        side = {None: "", True: "yes", False: "no"}[called(model, patient.probability)]
        for scored in patient.images:
            image = scored.image
            names = (_plain(image.patient), image.study, image.uid, image.frame + 1, _plain(str(image.path)))
            numbers = (f"{scored.probability:.6f}", f"{patient.probability:.6f}", side)
            told = (" ".join(image.warned), " ".join(image.without), "yes" if image.trained else "")
            yield (*names, *numbers, *told, "", *(f"{100 * part:.4f}" for part in scored.marked))
    for one in found.left_out:
        yield (_plain(one.patient), "", "", "", _plain(str(one.path)), "", "", "", "", "", "", one.reason)


def _plain(text: str) -> str:
    """A spreadsheet must not take a name for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
