"""What all DICOM objects of a prediction have in common: patient, equipment, and the mark that they are not a
physician's finding.

Tested in ``tests/client/prediction/test_structured_report.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from highdicom.sr import CodedConcept
from pydicom import Dataset
from pydicom.datadict import dictionary_VR

from client.prediction.model import CheckedModel
from client.reading.dicom import read_header
from client.sources.own import MANUFACTURER
from client.sources.pacs.own import NOT_FOR_CLINICAL_USE
from tasks.codes import Code
from tasks.protocol.study import release

LONGEST = 64
"""Characters of a DICOM long string (PS3.5 6.2)."""
_SEXES = ("M", "F", "O")
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
           "StudyTime", "ReferringPhysicianName")  # fmt: skip
_KEPT = ("SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription")
_METHODS = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")


def source_header(path: Path) -> Dataset:
    """A file's header with every attribute that derived objects copy, empty where the file has none (type 2)."""
    header = read_header(path)
    for keyword in _TYPE_2:
        if keyword not in header or header[keyword].value is None:
            header.add_new(keyword, dictionary_VR(keyword), "")
    if header.PatientSex not in _SEXES:  # highdicom makes nothing of another; empty is allowed (PS3.3 C.7.1.1)
        header.PatientSex = ""
    return header


def equipment(model: CheckedModel) -> dict[str, Any]:
    """The equipment (PS3.3 C.7.5.1) and the series description, as arguments of highdicom's constructors."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": release(),
        "device_serial_number": model.sha256[:LONGEST],
        "series_description": f"{NOT_FOR_CLINICAL_USE}: {model.task.name}"[:LONGEST],
    }


def complete(made: Dataset, source: Dataset) -> None:
    """Copy the image's attributes that highdicom does not."""
    if "PatientIdentityRemoved" in made and not any(map(source.get, _METHODS)):
        del made.PatientIdentityRemoved  # it may be said only with how (type 1C, PS3.3 C.7.1.1)
    for keyword in (*_KEPT, *_METHODS):
        if source.get(keyword):
            made[keyword] = source[keyword]


def coded(code: Code) -> CodedConcept:
    """A code in highdicom's form."""
    return CodedConcept(code.value, code.scheme, code.meaning)
