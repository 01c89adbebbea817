"""Words and numbers that must not leave a hospital: planted in its images, looked for in every form they could take."""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pydicom
from numpy.typing import NDArray

TEXTS = {
    "PatientID": "ZQXPID-77",
    "PatientName": "Zqxberg^Ottilie",
    "AccessionNumber": "ZQXACC00",
    "InstitutionName": "Zqxhaus am Wald",
    "StudyInstanceUID": "1.2.826.0.1.7770.31.",
    "SeriesInstanceUID": "1.2.826.0.1.7770.32.",
    "SOPInstanceUID": "1.2.826.0.1.7770.33.",
    "folder": "zqxfolder ward 7",
    "file": "zqxfile+image",
}
"""By what it is. Numbers follow where each patient or image needs one of its own."""

PIXELS = bytes([7, 201, 66, 148, 19, 250, 91, 133, 4, 222, 58, 175, 33, 240, 110, 187])
"""A run of grey values."""

Forms = dict[str, bytes]


def plant(hospital: Path) -> None:
    """Put the canaries into every file of a phantom hospital and its labels, and add two files that cannot be read."""
    with (hospital / "labels.csv").open(newline="") as file:
        labels = {row["SOPInstanceUID"]: row["label"] for row in csv.DictReader(file)}
    rows = [("PatientID", "SOPInstanceUID", "label")]
    patients: dict[str, int] = {}
    home = hospital / "dicom" / TEXTS["folder"]
    home.mkdir()
    files = {path: pydicom.dcmread(path) for path in sorted((hospital / "dicom").glob("*/*.dcm"))}
    named: dict[str, str] = {}
    for number, (path, image) in enumerate(files.items()):
        patient = patients.setdefault(image.PatientID, len(patients))
        for keyword in ("PatientID", "AccessionNumber", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(image, keyword, f"{TEXTS[keyword]}{patient}")
        image.PatientName, image.InstitutionName = TEXTS["PatientName"], TEXTS["InstitutionName"]
        label = labels.get(image.SOPInstanceUID)
        named[image.SOPInstanceUID] = f"{TEXTS['SOPInstanceUID']}{number}"
        _rename(image, named[image.SOPInstanceUID])
        path.unlink()
        if label is None:
            image.SeriesInstanceUID += ".1"
            image.walk(partial(_refer, named))  # the images that were outlined come before
            image.save_as(home / f"{TEXTS['file']} outline-{number}.dcm")
            continue
        image.PixelData = _with_pattern(image)
        image.save_as(home / f"{TEXTS['file']} {number}.dcm")
        rows.append((image.PatientID, image.SOPInstanceUID, label))
    image, label = next((one, row[2]) for one in files.values() for row in rows[1:] if row[1] == one.SOPInstanceUID)
    _rename(image, f"{TEXTS['SOPInstanceUID']}999")
    image.PixelData = image.PixelData[:100]
    image.save_as(home / f"{TEXTS['file']} cut.dcm")
    rows.append((image.PatientID, image.SOPInstanceUID, label))
    (home / f"{TEXTS['file']} broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + TEXTS["PatientName"].encode() + PIXELS)
    with (hospital / "labels.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _refer(named: dict[str, str], dataset: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.keyword == "ReferencedSOPInstanceUID":
        element.value = named[element.value]


def _rename(image: pydicom.FileDataset, uid: str) -> None:
    image.SOPInstanceUID = uid
    image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)


def _with_pattern(image: pydicom.Dataset) -> bytes:
    """The pixels with the pattern in a square of the middle."""
    pixels = np.frombuffer(image.PixelData, np.uint8)[: image.Rows * image.Columns].copy()
    middle = pixels.reshape(image.Rows, image.Columns)[image.Rows // 2 :, image.Columns // 2 :]
    middle[:16, : len(PIXELS)] = np.frombuffer(PIXELS, np.uint8)
    return pixels.tobytes() + b"\0" * (pixels.size % 2)


def all_forms(text: str) -> Forms:
    """A text in whatever case and encoding it could travel."""
    forms: Forms = {}
    for case, word in {"as it is": text, "lower": text.lower(), "upper": text.upper()}.items():
        raw = word.encode()
        forms |= {f"{case}, {encoding}": word.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")}
        forms |= {f"{case}, quoted": quote(word).encode(), f"{case}, percent": _percent(raw)}
        forms |= {f"{case}, {name}": form for name, form in forms_of_bytes(raw).items()}
    return forms


def forms_of_bytes(raw: bytes) -> Forms:
    """Bytes as they are, turned round, and as text in hexadecimal digits or base64."""
    even = raw[: len(raw) // 2 * 2]
    swapped = bytes(byte for pair in zip(even[1::2], even[::2], strict=True) for byte in pair)
    forms = {"bytes": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode()}
    forms |= {"reversed": raw[::-1], "swapped": swapped}
    for shift in range(3):
        # Whole groups of three bytes only: what stands before and after would change the others' letters.
        inside = raw[-shift % 3 :]
        inside = inside[: len(inside) // 3 * 3]
        forms[f"base64, shift {shift}"] = base64.b64encode(inside)
        forms[f"base64 for URLs, shift {shift}"] = base64.urlsafe_b64encode(inside)
    return forms


def forms_of_numbers(values: NDArray[np.float32]) -> Iterator[bytes]:
    """A few neighbouring values of an image or of its features, in every number format that could carry them."""
    for dtype in ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2"):
        yield values.astype(dtype).tobytes()


def telling_run(values: NDArray[np.float32], length: int) -> NDArray[np.float32] | None:
    """The neighbours that differ most among themselves; none where there are no such, as in an image that is black."""
    flat = values.reshape(-1)
    runs = np.lib.stride_tricks.sliding_window_view(flat, length)
    best: NDArray[np.float32] = runs[int(np.argmax(runs.std(axis=1)))]
    return best if len(np.unique(best)) == length else None


def found(content: bytes, forms: Forms) -> list[str]:
    """Which of the forms are in it."""
    return [name for name, form in forms.items() if form in content]


def _percent(raw: bytes) -> bytes:
    return "".join(f"%{byte:02X}" for byte in raw).encode()
