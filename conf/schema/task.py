"""Which clinical question.

Tested in ``tests/conf/test_every_pair.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.constraints import SettingsGroup


@dataclass
class TaskSettings(SettingsGroup):
    """Which clinical question."""

    name: str
    """A folder of ``tasks/``."""
