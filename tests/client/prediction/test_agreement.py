"""What an object says of its patient and images, read from reports and segmentations alike."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from client.prediction.agreement import claim_of, standing
from client.sources.pacs.search import Match, SearchAnswer

STUDY = "1.2.3"


def _series(uid: str, keyword: str, *instances: str) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = uid
    items = []
    for instance in instances:
        item = Dataset()
        item.ReferencedSOPInstanceUID = instance
        items.append(item)
    setattr(series, keyword, items)
    return series


def _made(**texts: str) -> Dataset:
    made = Dataset()
    made.StudyInstanceUID, made.PatientID, made.PatientName = STUDY, "A", "Doe^Jane"
    for keyword, text in texts.items():
        setattr(made, keyword, text)
    return made


def test_references_of_reports_and_segmentations_are_found() -> None:
    report, evidence, other = _made(), Dataset(), Dataset()
    evidence.StudyInstanceUID, other.StudyInstanceUID = STUDY, "1.2.4"
    evidence.ReferencedSeriesSequence = [_series("1.2.3.1", "ReferencedSOPSequence", "1.1", "1.2")]
    other.ReferencedSeriesSequence = [_series("1.2.4.1", "ReferencedSOPSequence", "9.9")]
    report.CurrentRequestedProcedureEvidenceSequence = [evidence, other]
    assert claim_of(report).images == {"1.2.3.1": {"1.1", "1.2"}}, "an earlier study is not where it is stored"
    outlines = _made()
    outlines.ReferencedSeriesSequence = [_series("1.2.3.1", "ReferencedInstanceSequence", "1.1")]
    assert claim_of(outlines).images == {"1.2.3.1": {"1.1"}}
    assert claim_of(outlines).texts["PatientName"] == "Doe^Jane"


class _Archive:
    """Has one study, whose study level it tells as it is given."""

    def __init__(self, study: Match) -> None:
        self._study = {"StudyInstanceUID": (STUDY,), **study}

    def studies(self, keys: object) -> SearchAnswer:
        return SearchAnswer([self._study])

    def series(self, study: str) -> SearchAnswer:
        return SearchAnswer([])

    def instances(self, study: str, series: str) -> SearchAnswer:
        return SearchAnswer([])


def _problems(told: Match, **texts: str) -> tuple[str, ...]:
    return standing([claim_of(_made(**texts))], _Archive(told), lambda series: False).problems


@pytest.mark.parametrize(
    ("told", "agrees"),
    [
        ({"PatientID": ("A",)}, True),
        ({"PatientID": ("A",), "PatientName": ("DOE^JANE^^^",)}, True),
        ({"PatientID": ("A",), "PatientName": ("Doe^Jane=X=Y",)}, True),
        ({"PatientID": ("A",), "PatientName": ("Doe^John",)}, False),
        ({"PatientID": ("A",), "PatientName": ()}, False),
        ({"PatientID": ("a",)}, False),
        ({"PatientID": ()}, False),
        ({}, False),
        ({"PatientID": ("A",), "PatientSex": ("F",)}, True),
        ({"PatientID": ("A",), "StudyInstanceUID": ("1.2.9",)}, True),
    ],
)
def test_patients_agree_as_far_as_both_tell(told: Match, agrees: bool) -> None:
    assert (_problems(told) == ()) is agrees


def test_a_contradiction_in_what_is_optional_is_one() -> None:
    assert _problems({"PatientID": ("A",), "PatientSex": ("F",)}, PatientSex="M")
    assert _problems({"PatientID": ("A",), "AccessionNumber": ("2",)}, AccessionNumber="1")
    assert not _problems({"PatientID": ("A",), "PatientSex": ()}, PatientSex="M")


@given(st.text(min_size=1, max_size=16).filter(str.strip), st.text(min_size=1, max_size=16).filter(str.strip))
def test_no_other_number_agrees(one: str, other: str) -> None:
    made = Dataset()
    made.StudyInstanceUID = STUDY
    claim = claim_of(made)
    texts = {**claim.texts, "PatientID": one}
    problems = standing(
        [type(claim)(STUDY, texts, {})], _Archive({"PatientID": (other,)}), lambda series: False
    ).problems
    assert (problems == ()) == (one == other)
