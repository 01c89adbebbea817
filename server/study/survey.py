"""A survey's document, from the configuration that asks for it.

Tested in ``tests/server/results/test_survey.py``.
"""

from __future__ import annotations

from conf import load as conf
from conf.schema.ask import JOINED
from conf.schema.study import Study
from tasks import contract as contracts
from tasks import task as tasks
from tasks.protocol.study import release
from tasks.protocol.survey import AGE, INTENSITY, KNOWN, MOST_CELLS, SPACING, THICKNESS, VENDOR, SurveyDocument
from tasks.task import Task


def is_survey(study: Study) -> bool:
    """Whether a question is asked in place of a study."""
    return bool(study.ask.by)


def refuse_survey(study: Study) -> None:
    """Pass if a study is one.

    Raises:
        ConfigError: a question is asked in its place, which would be left unanswered.
    """
    if is_survey(study):
        raise conf.ConfigError("ask.by: a survey is no study; ask it with `consilium ask`, or leave ask.by out")


def survey_of(study: Study, name: str, asked_by: str = "") -> SurveyDocument:
    """The document that hospitals are asked to approve.

    Raises:
        ConfigError: there is no such task, it has no such attribute, or the tables have too many cells.
    """
    try:
        task = tasks.get(study.task.name)
    except tasks.UnknownTask as error:
        raise conf.ConfigError(str(error)) from error
    ask, tables = study.ask, [table.split(JOINED) for table in study.ask.by]
    asked = {attribute for table in tables for attribute in table}
    _require_known(task, asked)
    try:
        return SurveyDocument(
            kind="survey",
            name=name,
            release=release(),
            task=task.name,
            task_version=task.example_version,
            contract=contracts.digest_of_task(task.name),
            tables=tables,
            epsilon=ask.epsilon,
            delta=study.privacy.delta,
            ages=list(ask.ages) if AGE in asked else [],
            vendors=list(ask.vendors) if VENDOR in asked else [],
            spacings_mm=list(ask.spacings_mm) if SPACING in asked else [],
            thicknesses_mm=list(ask.thicknesses_mm) if THICKNESS in asked else [],
            intensities=ask.intensities if INTENSITY in asked else 0,
            asked_by=asked_by,
        )
    except ValueError as error:  # all else was judged before
        raise conf.ConfigError(
            f"ask.by: the tables cannot be asked for together (at most {MOST_CELLS} cells in all); ask for fewer bands "
            f"or fewer tables ({' '.join(str(error).split())[:200]})"
        ) from error


def _require_known(task: Task, asked: set[str]) -> None:
    findings = [finding.name for finding in task.secondary_findings]
    if strange := sorted(asked - {*KNOWN, *findings}):
        raise conf.ConfigError(
            f"ask.by: task {task.name} has no {' and no '.join(strange)}; it has {', '.join([*KNOWN, *findings])}"
        )
    if THICKNESS in asked and not task.sequences:
        raise conf.ConfigError(f"ask.by: task {task.name} reads pictures, which have no thickness; leave it out")
