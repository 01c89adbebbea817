"""A survey's document decides the shape of every answer, and no text of a file has no cell."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.protocol import documents
from tasks.protocol import survey as surveys
from tasks.protocol.study import BadDocument, StudyDocument
from tasks.protocol.subgroups import UNKNOWN
from tasks.protocol.survey import SurveyDocument, unfit_band, unfit_tables

SURVEY = SurveyDocument(
    kind="survey",
    name="ask-1",
    release="0.2.0",
    task="breast_ultrasound",
    task_version=1,
    contract="0" * 64,
    tables=[["label"], ["sex", "age"], ["vendor"], ["spacing"], ["thickness"], ["intensity"], ["effusion"]],
    epsilon=1.0,
    delta=1e-4,
    ages=[18, 60],
    vendors=["GE", "United Imaging"],
    spacings_mm=[0.1, 0.5],
    thicknesses_mm=[2.0],
    intensities=4,
)


def with_(**changes: Any) -> str:
    return json.dumps(asdict(SURVEY) | changes)


def test_a_document_is_read_as_it_was_written() -> None:
    assert surveys.read(surveys.canonical(SURVEY)) == SURVEY
    assert documents.read(json.dumps(json.loads(surveys.canonical(SURVEY)), indent=2)) == SURVEY
    assert documents.digest(SURVEY) == surveys.digest(SURVEY)
    assert surveys.digest(replace(SURVEY, epsilon=2.0)) != surveys.digest(SURVEY)


def test_a_study_is_no_survey(document: StudyDocument) -> None:
    assert documents.read(documents.canonical(document)) == document
    with pytest.raises(BadDocument, match="not a survey"):
        surveys.read(documents.canonical(document))
    with pytest.raises(BadDocument, match="not a study"):
        documents.read("[" * 100_000)


def test_cells_have_names_that_follow_from_the_document_alone() -> None:
    assert SURVEY.levels("age") == ("under 18", "18 to 59", "60 and over", UNKNOWN)
    assert SURVEY.levels("vendor") == ("GE", "United Imaging", "other", UNKNOWN)
    assert SURVEY.levels("spacing") == ("under 0.1 mm", "0.1 to below 0.5 mm", "0.5 mm and over", UNKNOWN)
    assert SURVEY.levels("thickness") == ("under 2 mm", "2 mm and over", UNKNOWN)
    assert SURVEY.levels("intensity") == ("0 to 0.25", "0.25 to 0.5", "0.5 to 0.75", "0.75 to 1")
    shapes = {"label": (2,), "sex.age": (3, 4), "vendor": (4,), "spacing": (4,), "thickness": (3,)}
    assert SURVEY.shapes() == {**shapes, "intensity": (4,), "effusion": (3,)}


@pytest.mark.parametrize(
    ("attribute", "value", "level"),
    [
        ("sex", "F", 0), ("sex", " m ", 1), ("sex", "O", 2), ("sex", "", 2),
        ("age", "017Y", 0), ("age", "018Y", 1), ("age", "059Y", 1), ("age", "060Y", 2), ("age", "018M", 0),
        ("age", "300M", 1), ("age", "52", 3), ("age", "", 3), ("age", "99999999999Y", 3), ("age", "\u0665Y", 3),
        ("vendor", "GE MEDICAL SYSTEMS", 0), ("vendor", "General Electric", 0), ("vendor", "united imaging x", 1),
        ("vendor", "SIEMENS", 2), ("vendor", "a private maker", 2), ("vendor", " ", 3),
        ("spacing", "0.05", 0), ("spacing", "0.1", 1), ("spacing", "7", 2), ("spacing", "-1", 3), ("spacing", "nan", 3),
        ("thickness", "inf", 2), ("thickness", "1.5", 0), ("thickness", "x", 2),
    ],
)  # fmt: skip
def test_a_value_has_the_level_that_a_reader_would_give_it(attribute: str, value: str, level: int) -> None:
    assert SURVEY.level(attribute, value) == level


@given(st.sampled_from(["sex", "age", "vendor", "spacing", "thickness"]), st.text(max_size=80))
def test_whatever_a_file_says_has_one_of_the_levels(attribute: str, value: str) -> None:
    assert 0 <= SURVEY.level(attribute, value) < len(SURVEY.levels(attribute))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tables": []}, "tables"),
        ({"tables": [["label", "label"]]}, "twice the same attribute"),
        ({"tables": [["label", "intensity"]]}, "stand alone"),
        ({"tables": [["label", "sex"], ["sex", "label"]]}, "asked for twice"),
        ({"tables": [["Label"]]}, "should match pattern"),
        ({"ages": [60, 18]}, "ages: must rise"),
        ({"ages": [18, 18]}, "ages: must rise"),
        ({"ages": []}, "ages: needed"),
        ({"tables": [["label"]]}, "not needed"),
        ({"vendors": ["GE", "ge"]}, "names one twice"),
        ({"spacings_mm": [float("nan")]}, "spacings_mm"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": None}, "epsilon"),
        ({"kind": "study"}, "not a study"),
        ({"code": "x"}, "code"),
    ],
)
def test_a_document_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(BadDocument, match=told):
        documents.read(with_(**changes))


def test_a_document_of_too_many_cells_is_refused() -> None:
    lists = {"ages": [*range(1, 21)], "vendors": [f"M{n}" for n in range(40)], "intensities": 0}
    lists |= {"spacings_mm": [float(n) for n in range(1, 41)], "thicknesses_mm": [float(n) for n in range(1, 21)]}
    tables = [["vendor", "spacing"], ["age", "vendor"], ["age", "spacing"], ["thickness"]]
    documents.read(with_(tables=tables, **lists))
    with pytest.raises(BadDocument, match="4558 cells in all, at most 4096"):
        documents.read(with_(tables=[*tables, ["vendor", "thickness"]], **lists))


def test_reasons_are_sentences_for_people() -> None:
    assert unfit_tables([["label"], ["sex"]]) == []
    assert unfit_band(["GE"]) == unfit_band([1, 2.5]) == unfit_band([]) == ""
