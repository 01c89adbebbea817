"""A hospital that answers a survey badly loses its own tables, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from conf import load
from server.rounds.exchange import Channel, SurveyRoster
from server.rounds.ledger_witness import Witness
from server.rounds.survey import collect
from server.runtime.local_grid import LocalGrid
from server.study.survey import survey_of
from tasks.protocol import wire
from tasks.protocol.wire import ErrorCode, Refusal, SurveyOrder, SurveyReport

DOCUMENT = survey_of(load.load(["experiment=demo", "ask.by=[label,sex]"]), "ask-1")
TABLES = {"label": np.array([3.5, 1.2]), "sex": np.array([4.0, 0.1, 0.6])}
GOOD = SurveyReport("ask-1", 0, 0.99, 1e-4, 4.0, "b" * 64, TABLES)


def with_label(label: np.typing.NDArray[np.generic]) -> SurveyReport:
    return replace(GOOD, arrays={**TABLES, "label": label})


BEHAVIOURS: dict[str, tuple[Callable[[], wire.Message], str]] = {
    "refuses": (lambda: Refusal("ask-1", 0, ErrorCode.NOT_APPROVED), "refused with NOT_APPROVED"),
    "no-number": (lambda: with_label(np.array([np.nan, 1.0])), "not finite"),
    "gigantic": (lambda: with_label(np.array([1e300, 1.0])), "beyond"),
    "longer": (lambda: with_label(np.zeros(3)), "not float64 (2,)"),
    "whole": (lambda: with_label(np.zeros(2, np.int64)), "int64"),
    "less": (lambda: replace(GOOD, arrays={"label": TABLES["label"]}), "exactly label, sex"),
    "more": (lambda: replace(GOOD, arrays={**TABLES, "age": np.zeros(2)}), "exactly label, sex"),
    "exact": (lambda: replace(GOOD, noise=0.0), "no noise"),
    "generous": (lambda: replace(GOOD, epsilon=5.0), "grants 1"),
    "careless": (lambda: replace(GOOD, delta=0.5), "delta"),
    "other": (lambda: replace(GOOD, study="ask-2"), "answered for study ask-2"),
}


def load_app() -> ClientApp:
    app = ClientApp()

    @app.query("survey")
    def survey(message: Message, context: Context) -> Message:
        name = json.loads(Path(str(context.node_config["site"])).read_text())["name"]
        order = wire.decode(message.content, SurveyOrder)
        assert order.study == DOCUMENT
        report = BEHAVIOURS[name][0]() if name in BEHAVIOURS else GOOD
        return Message(wire.encode(report), reply_to=message)

    return app


def test_each_bad_answer_is_dropped_by_name_with_the_reason(tmp_path: Path) -> None:
    sites = {}
    for name in ("good", *BEHAVIOURS):
        sites[name] = tmp_path / f"{name}.yaml"
        sites[name].write_text(json.dumps({"name": name}))
    witness, told = Witness({}), list[int]()
    with LocalGrid(sites, load_app, 0) as grid:
        answers = collect(Channel(grid, 60.0), SurveyRoster(DOCUMENT, grid.nodes, witness), told.append)
    assert set(answers.reports) == {"good"}
    assert answers.problems.keys() == BEHAVIOURS.keys()
    for name, (_, problem) in BEHAVIOURS.items():
        assert problem in answers.problems[name], name
    assert told == [*range(1, len(sites) + 1)]
    assert witness.head("good") == "b" * 64, "its next order says which ledger was seen"


def test_the_good_answer_alone_is_as_it_was_sent(tmp_path: Path) -> None:
    site = tmp_path / "good.yaml"
    site.write_text(json.dumps({"name": "good"}))
    with LocalGrid({"good": site}, load_app, 0) as grid:
        report = collect(Channel(grid, 60.0), SurveyRoster(DOCUMENT, grid.nodes)).reports["good"]
    assert report.arrays.keys() == TABLES.keys()
    assert all(np.array_equal(report.arrays[name], table) for name, table in TABLES.items())
    with pytest.raises(wire.WireError, match="SurveyReport"):
        wire.decode(wire.encode(report), SurveyOrder)
