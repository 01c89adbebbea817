"""A survey, wherever it runs: asked once of every hospital, then recorded as a study's results are.

What hospitals have answered is on their own disks. So a survey that is interrupted is asked again under its name, and
gets the stored answers, which costs nothing more.

Tested in ``tests/federation/test_survey.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from flwr.serverapp import Grid

from conf.schema.study import Study
from server.errors import RoundFailed
from server.pages import survey as pages
from server.results import survey
from server.results.survey import SurveyResults
from server.rounds.exchange import Channel, SurveyRoster
from server.rounds.ledger_witness import Witness
from server.rounds.survey import Answers, collect
from server.study.folder import StudyFolder
from server.study.survey import survey_of
from server.tracking.tracker import Tracker
from tasks.machine.disk import write_whole
from tasks.protocol.survey import SurveyDocument

NUMBERS, REPORT = "survey.json", "report.html"


def document_in(study: Study, folder: StudyFolder) -> SurveyDocument:
    """The document of a survey that has a folder."""
    return survey_of(study, folder.name, folder.facts().get("asked_by") or "")


def ask(
    study: Study,
    folder: StudyFolder,
    nodes: dict[str, int],
    grid: Grid,
    witnessed: Path | None = None,
    answered: Callable[[int], None] = lambda number: None,
) -> Answers:
    """Ask the hospitals.

    Args:
        nodes: the grid's node number of each invited hospital.
        witnessed: as in ``server.run_study.play_rounds``.

    Raises:
        RoundFailed: fewer have answered than ``federation.quorum`` wants.
    """
    document = document_in(study, folder)
    roster = SurveyRoster(document, nodes, Witness({}, witnessed))
    answers = collect(Channel(grid, study.federation.deadline_s), roster, answered)
    needed = max(1, math.ceil(study.federation.quorum * len(nodes)))
    if len(answers.reports) < needed:
        raise RoundFailed(document.name, 0, "survey", needed, answers.problems)
    return answers


def record(study: Study, folder: StudyFolder, answers: Answers, notes: list[str], tracker: Tracker) -> SurveyResults:
    """Write numbers and page, and pass them to the tracker."""
    found = survey.results(document_in(study, folder), answers, notes)
    texts = {NUMBERS: survey.text(found), REPORT: pages.page(found)}
    for name, content in texts.items():
        write_whole(folder.path / name, content.encode())
    tracker.finish([], found.metrics(), [folder.path / name for name in texts])
    return found
