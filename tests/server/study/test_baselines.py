"""The other arms: same rounds, same first weights, no noise, one hospital at a time; and what is not trained twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.schema.evaluation import EXACT_BINS
from server.runtime.local_grid import LocalGrid
from server.study.baselines import Arms, compare
from tests.server import scripted

IMAGINARY = {"pooled": ["everybody"], "shuffled": ["nobody", "nobody.2"]}


def arms(folder: Path, *overrides: str, told: list[tuple[str, int, int]] | None = None, **behaviours: Any) -> Arms:
    asked = scripted.study("federation.rounds=2", "federation.deadline_s=20", *overrides)
    known = {"ash": "well", "elm": "well", "everybody": "well", "nobody": "well", "nobody.2": "well"} | behaviours
    advance = (told if told is not None else []).append
    with LocalGrid(scripted.sites(folder, **known), scripted.load_app) as grid:
        return compare(
            asked, "demo-1", {"ash": 90, "elm": 70}, folder / "arms", grid, IMAGINARY, scripted.WEIGHTS,
            lambda *step: advance(step),
        )  # fmt: skip


def test_every_arm_is_trained_where_it_belongs_and_judged_at_every_hospital(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    found = arms(tmp_path, told=told)
    assert len(found.shuffled) == 2
    for arm in (found.local, found.pooled, *found.shuffled):
        assert arm.keys() == {"ash", "elm"}
        for name, each in arm.items():
            expected = scripted.honest_histogram(name, EXACT_BINS)["histogram"]
            np.testing.assert_array_equal(each.scores["histogram"], expected)
            assert (each.problem, each.figures.evaluation_noise) == ("", 0.0)
    trained = ["local.ash", "local.elm", "pooled", "nobody", "nobody.2"]
    assert told == [(label, number, 2) for label in trained for number in (1, 2)]
    assert found.own.keys() == {"ash", "elm"}
    assert all(each.keys() == scripted.WEIGHTS.keys() for each in found.own.values())
    assert not np.array_equal(found.own["ash"]["weight"], found.own["elm"]["weight"])


@pytest.mark.parametrize(
    ("asked", "empty"), [("[]", {"local", "pooled", "shuffled"}), ("[local]", {"pooled", "shuffled"})]
)
def test_only_what_was_asked_for_is_trained(tmp_path: Path, asked: str, empty: set[str]) -> None:
    found = arms(tmp_path, f"evaluation.arms={asked}")
    assert {name for name in ("local", "pooled", "shuffled") if not getattr(found, name)} == empty


def test_an_arm_that_was_trained_is_not_trained_again(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    first = arms(tmp_path)
    again = arms(tmp_path, told=told, everybody="raise", nobody="raise", ash={"train": "raise", "evaluate": "well"})
    assert told == []
    np.testing.assert_equal(again.own, first.own)
    assert again.pooled.keys() == first.pooled.keys()


def test_arms_ask_for_no_noise_whatever_the_study_asks_for(tmp_path: Path) -> None:
    """A study that asks for noise drops hospitals that train without; the arms' hospitals are not dropped."""
    found = arms(
        tmp_path, "privacy.epsilon=3", "evaluation.epsilon=2", "evaluation.bins=16", "evaluation.subgroups=[sex]"
    )
    assert all(each.problem == "" for each in found.local.values())
