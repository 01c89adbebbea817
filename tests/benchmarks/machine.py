"""On what a benchmark ran; stands beside its numbers."""

from __future__ import annotations

import os
import platform


def facts() -> dict[str, str | int | None]:
    """Platform, Python and number of cores."""
    return {"platform": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
