"""What DICOM writes falls into one level each, and what it does not write into the last one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.protocol.subgroups import LEVELS, known, level


@pytest.mark.parametrize(
    ("attribute", "told", "expected"),
    [
        ("sex", "F", "female"),
        ("sex", "M ", "male"),
        ("sex", "O", "not recorded"),
        ("sex", "", "not recorded"),
        ("age", "045Y", "40 to 59"),
        ("age", "059Y", "40 to 59"),
        ("age", "060Y", "60 to 74"),
        ("age", "102Y", "75 and over"),
        ("age", "018M", "under 18"),
        ("age", "003W", "under 18"),
        ("age", "45", "not recorded"),
        ("age", "Y", "not recorded"),
        ("age", "", "not recorded"),
        ("vendor", "SIEMENS", "Siemens"),
        ("vendor", "Siemens Healthineers", "Siemens"),
        ("vendor", "GE MEDICAL SYSTEMS", "GE"),
        ("vendor", "GE", "GE"),
        ("vendor", "Gemini", "other"),
        ("vendor", "TOSHIBA_MEC", "Canon"),
        ("vendor", "Consilium phantoms", "other"),
        ("vendor", "", "not recorded"),
    ],
)
def test_a_value_has_its_level(attribute: str, told: str, expected: str) -> None:
    assert LEVELS[attribute][level(attribute, told)] == expected


@given(st.sampled_from(sorted(LEVELS)), st.text(max_size=70))
def test_whatever_a_header_says_is_in_some_level(attribute: str, told: str) -> None:
    assert 0 <= level(attribute, told) < len(LEVELS[attribute])


def test_the_last_level_takes_whoever_is_not_told() -> None:
    assert {levels[-1] for levels in LEVELS.values()} == {"not recorded"}
    assert all(len(set(levels)) == len(levels) for levels in LEVELS.values())


def test_an_attribute_that_is_none_is_refused() -> None:
    assert known("sex") == "sex"
    with pytest.raises(ValueError, match="there are sex, age, vendor"):
        known("PatientName")
