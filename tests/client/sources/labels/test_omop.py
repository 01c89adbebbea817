"""Labels from OMOP tables: by person, or by imaging study and its day."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from client.errors import SiteMisconfigured
from client.sources.labels.annotations import read_annotations
from client.sources.labels.table import Labels
from client.sources.settings import Annotations

ADAPTER: TypeAdapter[Any] = TypeAdapter(Annotations)
PERSONS = "person_id,person_source_value\n1,MRN1\n2,MRN2\n3,MRN3\n4,\n"
CONDITIONS = """PERSON_ID,CONDITION_CONCEPT_ID,CONDITION_START_DATE
1,100,2026-01-10
2,200,2026-01-10
3,100,2020-01-01
3,200,2026-01-10
9,100,2026-01-10
1,777,2026-01-10
"""
IMAGES = """person_id,image_study_uid,accession_id,image_occurrence_date
1,1.2.1,A1,2026-01-12
1,1.2.1,A1,2026-01-12
2,1.2.2,A2,2026-01-12
3,1.2.3,A3,2026-01-12
3,1.2.4,A4,2020-01-02
4,1.2.5,A5,
"""


def _labels(folder: Path, **settings: Any) -> Labels:
    said = {"kind": "omop", "path": folder, "table": "condition_occurrence", "key": "PatientID", "positive": [100]}
    return read_annotations(ADAPTER.validate_python(said | {"negative": [200]} | settings))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    (tmp_path / "person.csv").write_text(PERSONS, "utf-8")
    (tmp_path / "condition_occurrence.csv").write_text(CONDITIONS, "utf-8")
    (tmp_path / "image_occurrence.csv").write_text(IMAGES, "utf-8")
    return tmp_path


def test_persons_are_labelled_by_their_concepts(tables: Path) -> None:
    labels = _labels(tables)
    assert labels.key == "PatientID"
    assert labels.values == {"MRN1": 1, "MRN2": 0}
    assert +labels.left_out == {"CONTRADICTING_LABEL_ROWS": 1, "PERSON_WITHOUT_IMAGE": 1}


def test_a_study_is_labelled_by_what_was_true_around_its_day(tables: Path) -> None:
    assert _labels(tables, key="StudyInstanceUID", within_days=7).values == {
        "1.2.1": 1, "1.2.2": 0, "1.2.3": 0, "1.2.4": 1
    }  # fmt: skip
    assert _labels(tables, key="AccessionNumber", within_days=1, absent_is_negative=True).values == {
        "A1": 0, "A2": 0, "A3": 0, "A4": 1, "A5": 0
    }  # fmt: skip


def test_who_has_none_of_the_concepts_is_negative_only_if_said(tables: Path) -> None:
    values = _labels(tables, negative=[], absent_is_negative=True).values
    assert values == {"MRN1": 1, "MRN2": 0, "MRN3": 1}


def test_observations_count_by_their_value_and_their_own_concept(tables: Path) -> None:
    text = "person_id,observation_concept_id,value_as_concept_id\n1,5,100\n2,200,0\n"
    (tables / "observation.csv").write_text(text, "utf-8")
    assert _labels(tables, table="observation").values == {"MRN1": 1, "MRN2": 0}


def test_what_is_missing_or_misspelt_is_told_with_its_line(tables: Path) -> None:
    with pytest.raises(SiteMisconfigured, match=r"cannot read .*measurement.csv"):
        _labels(tables, table="measurement")
    (tables / "person.csv").write_text("person_id,name\n1,x\n", "utf-8")
    with pytest.raises(SiteMisconfigured, match=r"lacks the column\(s\) person_source_value; it has person_id, name"):
        _labels(tables)
    (tables / "image_occurrence.csv").write_text(IMAGES.replace("2020-01-02", "2.1.2020"), "utf-8")
    with pytest.raises(SiteMisconfigured, match=r"image_occurrence_date must be written .*\n  line 6: '2.1.2020'"):
        _labels(tables, key="StudyInstanceUID", within_days=1)


def test_settings_that_cannot_label_are_refused(tmp_path: Path) -> None:
    for settings, why in (
        ({"negative": []}, "otherwise nobody is negative"),
        ({"within_days": 3}, "label by StudyInstanceUID"),
        ({"negative": [100]}, "positive and negative at once"),
    ):
        with pytest.raises(ValidationError, match=why):
            _labels(tmp_path, **settings)
