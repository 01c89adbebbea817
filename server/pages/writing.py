"""A study's results as files in its folder: numbers, charts, report and model card.

Tested in ``tests/federation/test_whole_study.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from server.pages.model_card import card
from server.pages.report import Story, page, pictures
from server.results.results import Results
from server.rounds.state import RoundRecord
from server.study.folder import StudyFolder
from tasks.machine.disk import write_whole

REPORT, CARD, NUMBERS, FIGURES = "report.html", "model-card.md", "results.json", "figures"


def write(
    folder: StudyFolder,
    results: Results,
    rounds: list[RoundRecord],
    model: Path,
    conformance: Mapping[str, tuple[int, int]] | None = None,
) -> list[Path]:
    """Write all of it; returns the files.

    Args:
        model: the file with the final weights.
        conformance: see ``Story``.
    """
    facts = folder.facts()
    told, sizes = conformance or {}, facts.get("sizes") or {}
    story = Story(results, rounds, facts["config"], facts.get("words", []), conformance=told, sizes=sizes)
    texts = {
        NUMBERS: json.dumps(asdict(results), indent=1),
        REPORT: page(story),
        CARD: card(story, hashlib.sha256(model.read_bytes()).hexdigest()),
        **{f"{FIGURES}/{name}.svg": chart.svg() for name, chart in pictures(story).items()},
    }
    (folder.path / FIGURES).mkdir(exist_ok=True)
    for name, text in texts.items():
        write_whole(folder.path / name, text.encode())
    return [folder.path / name for name in texts]
