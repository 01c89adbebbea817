"""Which clinical question."""

from __future__ import annotations

from dataclasses import dataclass

from conf.schema.constraints import SettingsGroup


@dataclass
class TaskSettings(SettingsGroup):
    """Which clinical question."""

    name: str
    """A folder of ``tasks/``."""
