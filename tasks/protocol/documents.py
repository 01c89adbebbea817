"""What a hospital can be asked to approve: a study, or a survey before one. An approval is for a document's digest.

Tested in ``tests/tasks/protocol/test_survey.py``.
"""

from __future__ import annotations

import json

from tasks.protocol import study as studies
from tasks.protocol import survey as surveys
from tasks.protocol.study import StudyDocument
from tasks.protocol.survey import SurveyDocument

Document = StudyDocument | SurveyDocument


def canonical(document: Document) -> str:
    """The document as JSON with sorted keys and no spaces: equal documents, equal text."""
    return studies.canonical(document) if isinstance(document, StudyDocument) else surveys.canonical(document)


def digest(document: Document) -> str:
    """SHA-256 of the canonical text, as hexadecimal digits."""
    return studies.digest(document) if isinstance(document, StudyDocument) else surveys.digest(document)


def read(text: str) -> Document:
    """The document in a JSON text; what names no kind is a study.

    Raises:
        BadDocument: listing every field that is missing, unknown or out of range.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    is_survey = isinstance(values, dict) and values.get("kind") == "survey"
    return surveys.read(text) if is_survey else studies.read(text)
