"""What does not go with shared noise is refused with a sentence, all at once."""

from __future__ import annotations

import pytest

from conf import load

SHARED = ("experiment=demo_shared",)


@pytest.mark.parametrize("experiment", ["demo_shared", "rare_disease_shared"])
def test_the_experiments_are_as_they_should_be(experiment: str) -> None:
    study = load.load([f"experiment={experiment}"])
    assert (study.privacy.noise, study.training.steps) == ("shared", 1)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "fedadagrad", "fedyogi"])
def test_means_go_with_sums(strategy: str) -> None:
    assert load.load([*SHARED, f"strategy={strategy}"]).strategy.name == strategy


@pytest.mark.parametrize(
    "strategy",
    [
        *("median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "norm_bounding"),
        *("scaffold", "ditto", "fedper", "fedrep", "fedbn", "fedprox", "mr_mtl", "cyclic"),
    ],
)
def test_what_needs_single_updates_is_refused_with_a_sentence(strategy: str) -> None:
    with pytest.raises(load.ConfigError, match=f"strategy={strategy}: .*set strategy=fedavg"):
        load.load([*SHARED, f"strategy={strategy}"])


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("training.steps=10", "each step is a sum of its own"),
        ("training.momentum=0.9", "strategy=fedavgm"),
        ("training.weight_decay=0.1", "weight_decay"),
        ("training.final_noise=0.5", "one noise"),
        ("privacy.epsilon=null", "no noise"),
        ("strategy.weighting=uniform", "every patient alike"),
        ("strategy.weighting=inverse_noise_variance", "every patient alike"),
        ("federation.participation=0.5", "everybody's parts at once"),
        ("federation.late_rounds=1", "everybody's parts at once"),
        ("wire=lean", "cannot be rounded"),
        ("privacy.colluding=2", "at least two must be honest"),
        ("privacy.least_hospitals=4", "there are 3 hospitals"),
        ("evaluation.pooled_only=true", "no noise to share"),
    ],
)
def test_each_setting_that_does_not_go_with_it_is_refused(setting: str, why: str) -> None:
    with pytest.raises(load.ConfigError, match=why):
        load.load([*SHARED, setting])


def test_all_reasons_are_told_at_once() -> None:
    with pytest.raises(load.ConfigError) as caught:
        load.load([*SHARED, "strategy=krum", "training.steps=10", "wire=lean"])
    assert len(str(caught.value).splitlines()) == 3
