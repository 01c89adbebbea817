"""Every choice of ``strategy=`` is built, plays rounds, and goes on identically from a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from conf import load, validation
from conf.schema.strategy import Robust, StrategySettings
from server.errors import CheckpointDamaged
from server.rounds.checkpoint import read_state, write_state
from server.rounds.state import RoundRecord, StudyState
from server.strategy.registry import WEIGHTINGS, build

NAMES = sorted(path.stem for path in (load.FOLDER / "strategy").glob("*.yaml"))
HOSPITALS = [f"hospital {number}" for number in range(6)]


@cache
def settings(name: str, *overrides: str) -> StrategySettings:
    return load.load([f"strategy={name}", *overrides]).strategy


def play(strategy: StrategySettings, state: StudyState, rounds: int) -> StudyState:
    """Random updates that depend on the model and the round only."""
    built = build(strategy)
    for _ in range(rounds):
        number = len(state.rounds) + 1
        memory = state.memory if state.rounds else built.start(state.weights)
        rng = np.random.default_rng(number)
        invited = built.invited(HOSPITALS, number)
        combiner = built.combiner(state.weights, len(invited))
        for hospital in invited:
            old = sorted(state.weights.items())
            update = {name: (rng.normal(size=v.shape) - 0.1 * v).astype(np.float32) for name, v in old}
            combiner.add(hospital, update, built.weight(100, None))
        weights, memory = built.step(state.weights, memory, combiner.combined(), len(invited) / len(HOSPITALS))
        state = StudyState(weights, [*state.rounds, RoundRecord(number, 0.0, 0.0, {})], memory)
    return state


def initial() -> StudyState:
    rng = np.random.default_rng(0)
    return StudyState({"a": rng.normal(size=(3, 4)).astype(np.float32), "b": rng.normal(size=5).astype(np.float32)})


@pytest.mark.parametrize("name", NAMES)
def test_a_study_that_was_interrupted_goes_on_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    strategy = settings(name)
    whole = play(strategy, initial(), 5)
    write_state(tmp_path, play(strategy, initial(), 2))
    halfway = read_state(tmp_path)
    assert halfway is not None
    resumed = play(strategy, halfway, 3)
    assert resumed.weights.keys() == whole.weights.keys()
    assert resumed.memory.keys() == whole.memory.keys()
    for name, value in (whole.weights | whole.memory).items():
        assert (resumed.weights | resumed.memory)[name].tobytes() == value.tobytes()


def test_a_memory_that_was_changed_on_disk_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path, play(settings("fedadam"), initial(), 1))
    file = tmp_path / "memory-0001.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with pytest.raises(CheckpointDamaged, match=r"memory-0001\.safetensors has changed"):
        read_state(tmp_path)


def test_every_choice_of_the_folder_is_told_apart_by_its_name() -> None:
    kinds = [type(settings(name)) for name in NAMES]
    assert len(set(kinds)) == len(NAMES)
    assert [settings(name).name for name in NAMES] == NAMES


def test_settings_reach_the_strategy() -> None:
    weights = {"w": np.zeros(1)}
    built = build(settings("fedavgm", "strategy.server_momentum=0.5", "strategy.server_learning_rate=2"))
    weights, memory = built.step(weights, built.start(weights), {"w": np.ones(1)}, 1.0)
    weights, memory = built.step(weights, memory, {"w": np.ones(1)}, 1.0)
    assert weights["w"].tolist() == [2 + 3]


def test_only_cyclic_invites_fewer_than_all_and_robust_ones_do_not_listen_to_declared_sizes() -> None:
    for name in NAMES:
        strategy = settings(name)
        assert len(build(strategy).invited(HOSPITALS, 1)) == (1 if name == "cyclic" else 6)
        assert build(strategy).weight(500, None) == (1.0 if isinstance(strategy, Robust) else 500.0)


def test_a_kind_that_no_strategy_belongs_to_is_refused() -> None:
    @dataclass
    class Mine(StrategySettings):
        name: str = "mine"

    with pytest.raises(TypeError, match="Mine"):
        build(Mine())


def test_the_configuration_allows_the_weightings_that_there_are() -> None:
    for weighting in WEIGHTINGS:
        assert load.load([f"strategy.weighting={weighting}"]).strategy.weighting == weighting


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["strategy=fedavgm", "strategy.server_momentum=1"], "strategy.server_momentum=1"),
        (["strategy=fedadam", "strategy.beta_1=1"], "strategy.beta_1=1"),
        (["strategy=fedadam", "strategy.beta_2=-0.1"], "strategy.beta_2=-0.1"),
        (["strategy=fedyogi", "strategy.tau=0"], "strategy.tau=0"),
        (["strategy=norm_bounding", "strategy.norm_bound=inf"], "strategy.norm_bound=inf"),
        (["strategy=trimmed_mean", "strategy.trim=0.5"], "strategy.trim=0.5"),
        (["strategy=fedprox", "strategy.mu=0"], "strategy.mu=0"),
        (
            ["strategy=fedprox", "strategy.mu=0.2"],
            "and beyond; set strategy.mu=0.01",
        ),
        (["strategy=scaffold", "training.optimizer=adam"], "set training.optimizer=sgd"),
        (["training.momentum=0.5", "training.optimizer=adam"], "set training.momentum=0"),
        (["training.warm_up=10"], "training.warm_up=10: must be below federation.rounds=10"),
        (["strategy=ditto", "strategy.pull=-1"], "strategy.pull=-1"),
        (["strategy=mr_mtl", "strategy.pull=0.2"], "the mean and beyond; set strategy.pull=0.01"),
        (["strategy=mr_mtl", "training.optimizer=adam"], "set training.optimizer=sgd"),
        (["strategy=mr_mtl", "federation.participation=0.5"], "set federation.participation=1"),
        (["strategy=mr_mtl", "strategy.ema=0.9"], "set strategy.ema=0"),
        (["strategy=mr_mtl", "strategy.server_learning_rate=0.5"], "set strategy.server_learning_rate=1"),
        (["strategy=fedrep", "strategy.head_steps=10"], "must be below training.steps=10"),
        (["strategy.ema=0.9", "wire=lean"], "a second model to send"),
        (["strategy=cyclic", "federation=busi_blocks", "data_root=x"], "federation.participation=FRACTION"),
        (["strategy=krum", "strategy.attackers=0"], "strategy.attackers=0"),
        (["strategy=multi_krum", "strategy.selected=0"], "strategy.selected=0"),
        (["strategy=median", "strategy.memory_limit_gb=0"], "strategy.memory_limit_gb=0"),
        (["strategy=median", "strategy.weighting=public_size"], "median allows uniform only"),
        (["strategy=median", "strategy.name=krum"], "set another with strategy=NAME"),
        (["strategy=krum", "strategy.trim=0.2"], "krum has no such setting; it belongs to strategy=trimmed_mean"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_key(overrides: list[str], told: str) -> None:
    with pytest.raises(load.ConfigError) as caught:
        load.load(overrides)
    assert told in str(caught.value)


def test_every_number_of_every_strategy_has_a_rule() -> None:
    study = load.load()
    for name in NAMES:
        study = replace(study, training=replace(study.training, steps=10**5))
        numbers = {f.name: math.inf if f.type == "float" else -1 for f in fields(settings(name)) if f.type != "str"}
        told = validation.problems(replace(study, strategy=replace(settings(name), **numbers)))
        assert {line.split("=")[0] for line in told} == {f"strategy.{key}" for key in numbers}
