"""Which studies and series of an archive belong to a source's scope.

Archives are free to ignore a search key that they do not support (PS3.4 C.2.2.1.3, PS3.18 8.3.4), so what they return
is compared once more.

Tested in ``tests/client/sources/pacs/test_walk.py``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

from client.sources.pacs.search import Match, value
from client.sources.settings import Scope

_SEGMENTATION = "SEG"
"""Modality of segmentations (PS3.3 C.8.20.1)."""


def study_in_scope(scope: Scope, study: Match) -> bool:
    """Whether a study's date, names and description are in scope, as far as the archive tells."""
    day = value(study, "StudyDate")
    if re.fullmatch(r"\d{8}", day):
        first = f"{scope.since:%Y%m%d}" if scope.since else ""
        last = f"{scope.until:%Y%m%d}" if scope.until else "99999999"
        if not first <= day <= last:
            return False
    return (
        _listed(scope.accessions, value(study, "AccessionNumber"))
        and _listed(scope.studies, value(study, "StudyInstanceUID"))
        and _described(scope.study_descriptions, value(study, "StudyDescription"))
    )


def _listed(names: Iterable[str], name: str) -> bool:
    return not names or name in names


def _described(patterns: Iterable[str], text: str) -> bool:
    """PS3.4 C.2.2.2.4; brackets, which mean nothing in DICOM, are escaped."""
    escaped = [re.sub(r"\[", "[[]", pattern.upper()) for pattern in patterns]
    return not escaped or any(fnmatchcase(text.upper(), pattern) for pattern in escaped)


def in_scope(scope: Scope, series: Match, left_out: Counter[str]) -> bool:
    """Whether to include a series; those excluded for their body part are counted.

    Another modality of the same examination is no loss and is not counted. A segmentation rarely tells a body part: it
    is that of the images it refers to, so it follows them.
    """
    modality, body_part = value(series, "Modality").upper(), value(series, "BodyPartExamined").upper()
    if modality not in {name.upper() for name in scope.modalities}:
        return False
    if not scope.body_parts or body_part in {name.upper() for name in scope.body_parts}:
        return True
    if not body_part and (scope.body_part_unknown == "keep" or modality == _SEGMENTATION):
        return True
    left_out["SERIES_OF_OTHER_BODY_PART" if body_part else "SERIES_OF_UNKNOWN_BODY_PART"] += 1
    return False
