"""Evaluations in bins whose edges were released before: one look, then each evaluation's quantiles for the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.rounds.evaluation import edges_of
from server.rounds.round import run_rounds
from server.rounds.state import StudyState
from server.runtime.local_grid import LocalGrid
from tasks.metrics.histogram import ScoreHistogram, quantiles
from tasks.protocol.wire import RANGE
from tests.server import scripted
from tests.server.scripted_app import honest_range

LOOKING = ("federation.deadline_s=20", "evaluation.edges=released", "evaluation.bins=8")


def play(folder: Path, *overrides: str, **behaviours: Any) -> StudyState:
    asked = scripted.study(*LOOKING, *overrides)
    with LocalGrid(scripted.sites(folder, **behaviours), scripted.load_app) as grid:
        return run_rounds(asked, scripted.roster(asked, grid), grid, StudyState(scripted.WEIGHTS), lambda _: None)


def test_the_first_look_decides_the_first_edges_and_each_evaluation_the_next(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", elm="well")
    first, second, third = ended.rounds
    assert first.edges == edges_of([honest_range(name)[RANGE] for name in ("ash", "elm")], 8)
    assert 0.2 < first.edges[0] < first.edges[-1] < 0.6, "where the four cells are"
    assert second.edges == first.next_edges
    assert third.edges == second.next_edges
    both = ScoreHistogram(ended.scores["ash"] + ended.scores["elm"], 0.0, np.array(third.edges))
    np.testing.assert_allclose(third.next_edges, quantiles(both, 8))


def test_a_hospital_that_does_not_look_is_scored_in_the_others_edges(tmp_path: Path) -> None:
    ended = play(tmp_path, ash="well", elm={"range": "refuse"})
    assert ended.rounds[0].edges == edges_of([honest_range("ash")[RANGE]], 8)
    assert ended.rounds[0].hospitals["elm"].auc is not None


def test_where_nobody_looks_bins_are_as_good_as_none_was_asked(tmp_path: Path) -> None:
    ended = play(tmp_path, ash={"range": "raise"})
    np.testing.assert_allclose(ended.rounds[0].edges, np.arange(1, 8) / 8)


@pytest.mark.parametrize(("epsilon", "evaluated"), [("null", [1, 2, 3]), ("4", [3])])
def test_with_noise_only_the_last_round_is_evaluated_unless_more_is_asked(
    tmp_path: Path, epsilon: str, evaluated: list[int]
) -> None:
    ended = play(tmp_path, f"evaluation.epsilon={epsilon}", ash="well")
    seen = [r.number for r in ended.rounds if r.hospitals["ash"].bytes_up and (r.hospitals["ash"].auc or r.dropped)]
    assert seen == evaluated
    asked = scripted.study(*LOOKING, "evaluation.epsilon=4", "evaluation.every=1")
    assert replace(asked.evaluation).every == 1
