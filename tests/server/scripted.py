"""Studies for hospitals that answer as their settings files say; ``scripted_app`` is their app."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from conf import load
from conf.schema.study import Study
from server.rounds.state import Roster
from server.runtime.local_grid import LocalGrid
from server.study.document import document_of
from tests.server.scripted_app import (
    SIZE,
    WEIGHTS,
    honest_histogram,
    honest_joint,
    honest_update,
    load_app,
    load_nothing,
)

__all__ = [
    "SIZE",
    "WEIGHTS",
    "honest_histogram",
    "honest_joint",
    "honest_update",
    "load_app",
    "load_nothing",
    "roster",
    "sites",
    "study",
]


@cache
def study(*overrides: str) -> Study:
    """A configuration for hospitals that play themselves."""
    return load.load(
        ["federation.rounds=3", "evaluation.bins=8", "evaluation.edges=equal", "tracking=none", *overrides]
    )


def sites(folder: Path, **behaviours: Any) -> dict[str, Path]:
    """A settings file for each hospital, by name; a behaviour is a word, or ``{"train": ..., "evaluate": ...}``."""
    paths = {}
    for name, behaviour in behaviours.items():
        paths[name] = folder / f"{name}.json"
        both = behaviour if isinstance(behaviour, dict) else {"train": behaviour, "evaluate": "well"}
        paths[name].write_text(json.dumps({"name": name, **both}))
    return paths


def roster(asked: Study, grid: LocalGrid) -> Roster:
    return Roster(document_of(asked, "scripted-1", dict.fromkeys(grid.nodes, SIZE)), grid.nodes)
