"""Surveys of the tiny hospital."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tasks import contract, task
from tasks.protocol.study import release
from tasks.protocol.survey import SurveyDocument
from tests.client.hospital import TASK

ALLOWED = {"surveys": ["label", "sex", "age", "vendor", "spacing", "intensity"]}
"""A policy that answers them."""


def survey(*tables: str, **changes: Any) -> SurveyDocument:
    """A survey of these tables, such as ``label`` and ``label*sex``."""
    lists = [table.split("*") for table in tables or ("label",)]
    asked = {attribute for table in lists for attribute in table}
    document = SurveyDocument(
        kind="survey",
        name="ask-1",
        release=release(),
        task=TASK,
        task_version=task.get(TASK).example_version,
        contract=contract.digest_of_task(TASK),
        tables=lists,
        epsilon=1.0,
        delta=1e-4,
        ages=[20, 40, 60, 80] if "age" in asked else [],
        vendors=["GE", "Philips"] if "vendor" in asked else [],
        spacings_mm=[0.05, 0.1, 0.2] if "spacing" in asked else [],
        thicknesses_mm=[2.0] if "thickness" in asked else [],
        intensities=8 if "intensity" in asked else 0,
    )
    return replace(document, **changes)
