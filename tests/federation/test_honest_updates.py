"""No hospital that does what the study says is dropped for the length of its update, whatever method, form or schedule:
the hospitals' own code trains, the server judges with the default settings, and nobody deserves a look."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from conf.schema.model import ViT
from tests.federation import embedded
from tests.federation.embedded import Ended, play

QUICK = ("evaluation.arms=[]", "evaluation.every=9", "federation.rounds=3")


@pytest.mark.parametrize(
    "overrides",
    [
        ("training.momentum=0.9",),
        ("training.weight_decay=0.05",),
        ("training.final_rate=0.1", "training.final_noise=0.5"),
        ("strategy=fedprox", "strategy.mu=0.1"),
        ("strategy=scaffold",),
        ("strategy=scaffold", "wire.up=int8", "training.final_rate=0.2"),
        ("strategy=fedper",),
        ("strategy=fedrep", "strategy.head_steps=1"),
        ("strategy=ditto",),
        ("strategy=mr_mtl", "training.final_rate=0.5"),
        ("wire=lean",),
        ("strategy=median",),
        ("training.optimizer=adam", "training.learning_rate=0.1", "training.weight_decay=0.05", "training.warm_up=1"),
        ("training.sample_rate=0.1", "privacy.epsilon=1"),
    ],
    ids=" ".join,
)
def test_honest_updates_are_neither_dropped_nor_named(
    ground: Path, whole: Ended, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    configure = embedded.configure
    if {"strategy=fedper", "strategy=fedrep"} & set(overrides):  # of a linear head nothing would travel
        deep = ViT(patch=32, width=24, layers=1, heads=3)
        monkeypatch.setattr(embedded, "configure", lambda *words: replace(configure(*words), model=deep))
    ended = play(ground, "honest", *QUICK, *overrides)
    assert ended.results.dropped == {}
    assert ended.results.named == {}
    for record in ended.state().rounds:
        assert all((figures.update_norm or 0) > 0 for figures in record.hospitals.values())
