"""Where results are recorded.

Tested in ``tests/conf/test_load.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from conf.schema.constraints import SettingsGroup, one_of


@dataclass
class Tracking(SettingsGroup):
    """Where results are recorded."""

    name: Annotated[str, one_of("mlflow", "none")] = "mlflow"
    """``mlflow`` or ``none``."""
    uri: str = ""
    """MLflow tracking server or store; empty means ``sqlite`` in ``output_dir``."""
