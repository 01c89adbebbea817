"""A survey as a page that loads nothing: a chart and a table of each of its questions.

Tested in ``tests/server/results/test_survey.py``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from markupsafe import Markup

from server.pages.report import PAGES
from server.pages.svg import COLOURS, HOSPITALS, Chart, Scale, axis_x, legend, line, mark, text
from server.results.survey import CUT, EVERYBODY, SurveyResults, SurveyTable, shown
from tasks import task as tasks
from tasks.protocol.survey import INTENSITY

_SHAPES = ("square", "diamond", "circle", "cross", "bar")
_MOST_DRAWN = 5
"""Hospitals of more than so many are in the table alone."""
_LEFT, _RIGHT, _ROW, _LABEL = 14.0, 340.0, 16.0, 18.0


def page(found: SurveyResults) -> str:
    """The survey as HTML."""
    return PAGES.get_template("survey.html.j2").render(
        found=found,
        question=tasks.get(found.task).question,
        charts={table.name: Markup(chart(found, table).svg()) for table in found.tables},
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        shown=partial(shown, found),
        everybody=EVERYBODY,
        cut=CUT,
        intensity=INTENSITY,
    )


def chart(found: SurveyResults, table: SurveyTable) -> Chart:
    """Each cell with its interval: of all hospitals, and of each where they are few."""
    drawn = [
        EVERYBODY,
        *(each if len(each := [who for who in table.counts if who != EVERYBODY]) <= _MOST_DRAWN else []),
    ]
    looks = {who: (_SHAPES[n % len(_SHAPES)], HOSPITALS[n + 1]) for n, who in enumerate(drawn[1:])}
    looks[EVERYBODY] = ("circle", COLOURS["federated"])
    picture = Chart(f"Patients by {table.title}", _description(found, table), 0)
    entries = [(who, partial(mark, looks[who][0], colour=looks[who][1])) for who in drawn]
    top = legend(picture, 12, entries) + 8
    block = _LABEL + _ROW * len(drawn) + 6
    bottom = top + block * len(table.cells)
    highest = max(found.interval(who, count)[1] for who in drawn for count in table.counts[who])
    scale = Scale(0.0, max(highest, 1.0), _LEFT, _RIGHT)
    axis_x(picture, scale, bottom, "patients, with the 95 % interval of the noise", top)
    for number, cell in enumerate(table.cells):
        y = top + number * block
        picture.add(text(_LEFT, y + 13, cell, fill="#1c2733", font_weight="600"))
        for row, who in enumerate(drawn):
            middle, count = y + _LABEL + row * _ROW + 6, table.counts[who][number]
            low, high = found.interval(who, count)
            shape, colour = looks[who]
            picture.add(line(scale(low), middle, scale(high), middle, colour=colour, width=2.2))
            picture.add(mark(shape, scale(count), middle, colour, 4.0))
            picture.add(text(_RIGHT + 10, middle + 4, shown(found, who, count), font_size="11.5", fill="#3c4a58"))
    picture = Chart(picture.title, picture.description, bottom + 42, picture.pieces)
    return picture


def _description(found: SurveyResults, table: SurveyTable) -> str:
    cells = zip(table.cells, table.counts[EVERYBODY], strict=True)
    return f"All hospitals together: {'; '.join(f'{cell}: {shown(found, EVERYBODY, n)}' for cell, n in cells)}"
