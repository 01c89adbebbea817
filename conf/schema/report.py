"""How a study is reported.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from conf.schema.constraints import SettingsGroup, one_of

Language = Literal["en", "zh", "de"]
"""English, Simplified Chinese, German: the languages that texts for people are in (``tasks/machine/language.py``)."""
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass
class Report(SettingsGroup):
    """How a study is reported."""

    language: Annotated[str, one_of(*LANGUAGES)] = "en"
    """Of the report's page. What programs read stays English: ``results.json``,
    MLflow, the model card."""
