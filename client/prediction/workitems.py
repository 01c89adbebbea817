"""Scored examinations as workitems of the archive's own worklist: UPS-RS (PS3.18 section 11, PS3.4 annex CC).

One workitem per examination whose report is in the archive: scheduled, with the report and the images as its input, and
a priority by the study's operating threshold. Its UID follows from the report's, so a second run enters nothing twice,
and what a reader has begun or finished stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from functools import partial

import requests
from pydicom import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from client.errors import ArchiveRefused, ArchiveUnreachable
from client.prediction.model import CheckedModel
from client.prediction.predict import Predictions, called, mean
from client.sources.pacs.own import NOT_FOR_CLINICAL_USE, own_uid
from client.sources.pacs.retry import Temporary, persistently
from client.sources.pacs.spool import InstanceMissing
from client.sources.pacs.web import named, session_for
from client.sources.settings import DicomwebSource

PUSH = UID("1.2.840.10008.5.1.4.34.6.1")
"""Unified Procedure Step - Push SOP Class, under which workitems are created (PS3.4 CC.2)."""
_INTERPRETATION = Code("110005", "DCM", "Interpretation")  # PS3.16 CID 9231
_PRIORITIES = {True: "HIGH", None: "MEDIUM", False: "LOW"}
_COPIED = ("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
           "StudyInstanceUID")  # fmt: skip
_EMPTY = ("ScheduledStationNameCodeSequence", "ScheduledStationClassCodeSequence",
          "ScheduledStationGeographicLocationCodeSequence", "ScheduledProcessingParametersSequence",
          "AdmissionID", "IssuerOfAdmissionIDSequence", "AdmittingDiagnosesDescription",
          "AdmittingDiagnosesCodeSequence", "ReferencedRequestSequence", "ScheduledHumanPerformersSequence",
          "ProcedureStepProgressInformationSequence", "UnifiedProcedureStepPerformedProcedureSequence",
          "TransactionUID")  # fmt: skip
"""Type 2 of a new workitem (PS3.4 table CC.2.5-3)."""
_ATTEMPTS, _FIRST_WAIT_S = 4, 1.0
_THERE = 409
_NO_WORKLIST = (404, 405, 501)


def priorities(model: CheckedModel, predictions: Predictions) -> Mapping[str, str]:
    """ScheduledProcedureStepPriority by StudyInstanceUID: HIGH at or above the threshold, LOW below it, MEDIUM
    where the study has none."""
    return {
        study: _PRIORITIES[called(model, mean(images))]
        for patient in predictions.patients
        for study, images in patient.examinations().items()
    }


def workitem_of(report: Dataset, priority: str, due: datetime) -> Dataset:
    """The workitem of an examination, from its report.

    Args:
        due: when it is scheduled for.
    """
    item = Dataset()
    for keyword in _COPIED:
        if keyword in report:
            item[keyword] = report[keyword]
    for keyword in _EMPTY:
        setattr(item, keyword, None)
    item.SOPClassUID = PUSH
    item.ScheduledProcedureStepPriority = priority
    item.ProcedureStepLabel = str(report.SeriesDescription)
    item.WorklistLabel = NOT_FOR_CLINICAL_USE
    item.ScheduledProcedureStepStartDateTime = f"{due:%Y%m%d%H%M%S}"
    item.ScheduledWorkitemCodeSequence = [_coded(_INTERPRETATION)]
    item.InputReadinessState, item.ProcedureStepState = "READY", "SCHEDULED"
    item.InputInformationSequence = [_input(report, *one) for one in _referenced(report).items()]
    return item


def _coded(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _referenced(report: Dataset) -> dict[str, list[tuple[str, str]]]:
    """Class and UID of the report and of what it refers to in its own study, by series."""
    found = {str(report.SeriesInstanceUID): [(str(report.SOPClassUID), str(report.SOPInstanceUID))]}
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or ():
            for series in study.ReferencedSeriesSequence if study.StudyInstanceUID == report.StudyInstanceUID else ():
                found.setdefault(str(series.SeriesInstanceUID), []).extend(
                    (str(one.ReferencedSOPClassUID), str(one.ReferencedSOPInstanceUID))
                    for one in series.ReferencedSOPSequence
                )
    return found


def _input(report: Dataset, series: str, objects: list[tuple[str, str]]) -> Dataset:
    """PS3.4 table CC.2.5-2b: instances in the archive that the workitem is sent to."""
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = report.StudyInstanceUID, series
    item.ReferencedSOPSequence = []
    for sop_class, uid in objects:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, uid
        item.ReferencedSOPSequence.append(reference)
    return item


def enter(source: DicomwebSource, key: bytes, report: Dataset, priority: str) -> bool:
    """Create the workitem of a report in the archive's worklist. Returns whether it is new.

    Args:
        key: the hospital's secret, under which it is named.

    Raises:
        ArchiveUnreachable: the archive does not answer, however often it is asked.
        ArchiveRefused: it has no worklist, or does not take the workitem.
    """
    uid = own_uid(key, "workitem", str(report.SOPInstanceUID))
    content = json.dumps([workitem_of(report, priority, datetime.now()).to_json_dict()])
    try:
        return persistently(partial(_create, source, uid, content), _ATTEMPTS, _FIRST_WAIT_S)
    except Temporary as error:
        raise ArchiveUnreachable(
            f"{source.url} failed {_ATTEMPTS} times, last with: {error}. Reports are stored; run the same command with "
            "another --out: nothing is stored or entered twice"
        ) from error
    except InstanceMissing as error:
        raise ArchiveRefused(f"{source.url} does not take the workitem: {error}") from error


def _create(source: DicomwebSource, uid: str, content: str) -> bool:
    """PS3.18 11.4."""
    url = source.url.rstrip("/")
    with closing(session_for(source)) as session, named(url):
        answer = session.post(
            f"{url}/workitems?{uid}",
            content,
            headers={"Content-Type": "application/dicom+json", "Accept": "application/dicom+json"},
            timeout=(source.connect_seconds, source.silence_seconds),
        )
        if answer.status_code in _NO_WORKLIST:
            raise ArchiveRefused(
                f"{url} has no worklist by UPS-RS (HTTP {answer.status_code}); reports are stored. Remove "
                "`workitems: true`, or ask its administrator"
            )
        if answer.status_code != _THERE:
            answer.raise_for_status()
        return answer.status_code == requests.codes.created
