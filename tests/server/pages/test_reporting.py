"""The report says where each item of TRIPOD+AI is, or that it is missing, and what decides the label."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from server.pages.report import page
from server.pages.reporting import reference, tripod
from server.study.baselines import Arms
from tasks import task as tasks
from tests.server.outcome import story


def test_every_item_is_there_or_said_to_be_missing() -> None:
    items = tripod(story().results)
    assert [int(re.match(r"\d+", item.number)[0]) for item in items] == sorted(  # type: ignore[index]
        int(re.match(r"\d+", item.number)[0])  # type: ignore[index]
        for item in items
    )
    assert {int(re.match(r"\d+", item.number)[0]) for item in items} == set(range(1, 28))  # type: ignore[index]
    assert all(bool(item.where) != bool(item.missing) for item in items)


def test_a_place_that_is_named_is_a_heading_or_a_part_of_the_page() -> None:
    told = page(story())
    for name in ("Hospital by hospital", "At the operating threshold", "Subgroups", "Patients",
                 "How each figure is computed", "The whole configuration", "How to check and repeat it"):  # fmt: skip
        assert re.search(rf"<(?:h[23]|summary)>{name}", told), name
    assert all(f"<td>{item.number}</td>" in told for item in tripod(story().results))


def test_what_a_study_lacks_is_missing() -> None:
    whole = {item.number: item for item in tripod(story().results)}
    bare = {item.number: item for item in tripod(replace(story(arms=Arms()).results, groups=[], gains={}))}
    assert whole["25"].where
    assert bare["25"].missing
    assert bare["14"].missing


@pytest.mark.parametrize(
    "task", [name for name in tasks.names() if name in ("breast_ultrasound", "lung_ct", "brain_mr")]
)
def test_the_reference_standard_is_the_tasks_own_without_markup(task: str) -> None:
    lines = reference(tasks.get(task))
    assert len(lines) > 1
    assert not [line for line in lines if re.search(r"\*\*|`|^\||^- ", line)]


def test_patients_are_told_as_declared_and_rounded() -> None:
    told = page(replace(story(), sizes={"ash": 1200, "elm": 300}))
    assert "<td>1,200</td>" in told
    assert "Reference standard" in told
    assert "Intended use" in told
    assert "of 1,000 such patients" in told
    assert "not known here" in page(story())
