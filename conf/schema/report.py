"""How a study is reported.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from conf.schema.constraints import SettingsGroup, one_of


@dataclass
class Report(SettingsGroup):
    """How a study is reported."""

    language: Annotated[str, one_of("en", "zh", "de")] = "en"
    """Of the report's page: English, Simplified Chinese or German. What programs read stays English: ``results.json``,
    MLflow, the model card."""
