"""Experiment, network and strategy are three choices: any experiment composes with any of the others.

Composing all of some seven thousand triples from files would take a quarter of an hour. Each choice is composed once
and put in its place; that this is what Hydra does holds as long as no experiment's own file sets what only some
choices of a group have, which is tested too.
"""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from itertools import cycle, islice
from typing import Any

import pytest
import yaml

from conf import load, validation
from conf.groups import groups
from conf.schema.study import Study
from conf.schema.task import TaskSettings
from server.run_study import initial_state
from tasks import task as tasks

DOOR = ["runtime.address=server:8444", "runtime.authority=authority.crt", "runtime.certificate=me.pem"]
FILE = {
    "encoder": ["model.weights=encoder.safetensors"],
    "custom": ["model.entry=my_package.net:build"],
}
"""What a choice needs besides."""
IMAGES = ["data_root=somewhere", "archive=somewhere/pathmnist.npz"]
"""For those who read real ones."""
OUTLINING = ["scatter_outline", "scatter_outline_3d", "unet", "segresnet", "dynunet"]
FOR_IMAGES = ["scatter_linear", "scatter_linear_32", "scatter_outline"]


def names(group: str) -> list[str]:
    return sorted(path.stem for path in (load.FOLDER / group).glob("*.yaml"))


OWN_NOISE = [name for name in names("experiment") if not name.endswith("_shared")]
"""Experiments that go with every strategy."""


@cache
def composed(group: str, name: str) -> dict[str, Any]:
    """Plain values with one choice, and nothing that is still to be given."""
    more = [*IMAGES, *(DOOR if name == "deployed" else []), *FILE.get(name, [])]
    return load.to_plain(load.load([f"{group}={name}", *more]))


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_composes_with_every_network_and_every_strategy(experiment: str) -> None:
    whole = composed("experiment", experiment)
    for model in names("model"):
        for strategy in names("strategy"):
            parts = {"model": composed("model", model)["model"], "strategy": composed("strategy", strategy)["strategy"]}
            study, problems = validation.judged(whole | parts)
            assert study is not None
            known = ("strategy=cyclic: each hospital plans", *_not_of_sums(study, strategy), *_few_steps(study))
            assert [line for line in problems if not line.startswith(known)] == []
            assert (study.model.name, study.strategy.name) == (parts["model"]["name"], parts["strategy"]["name"])


def _not_of_sums(study: Study, strategy: str) -> list[str]:
    """What a strategy that needs single updates is told where noise is shared; ``test_sums.py`` has them all."""
    return [f"strategy={strategy}: "] if study.privacy.noise == "shared" else []


def _few_steps(study: Study) -> list[str]:
    """What FedRep is told where a round has no more steps than its head takes."""
    return ["strategy.head_steps="] if study.training.steps <= 5 else []


@pytest.mark.parametrize("experiment", names("experiment"))
def test_an_experiment_sets_only_what_every_choice_of_a_group_has(experiment: str) -> None:
    """Options of one network, set in an experiment's own file, would refuse every other network."""
    own = yaml.safe_load((load.FOLDER / "experiment" / f"{experiment}.yaml").read_text("utf-8"))
    for group in groups().keys() & own.keys():
        of_all = [{field.name for field in fields(kind)} for kind in groups()[group].values()]
        assert own[group].keys() <= set.intersection(*of_all), group


@pytest.mark.parametrize(
    ("experiment", "model", "strategy"),
    list(islice(zip(cycle(OWN_NOISE), cycle(names("model")), cycle(names("strategy")), strict=False), 21)),
)
def test_hydra_puts_them_together_as_the_test_above_does(experiment: str, model: str, strategy: str) -> None:
    turns = [] if strategy == "mr_mtl" else ["federation.participation=0.5"]  # whose mean is of all
    words = [f"experiment={experiment}", f"model={model}", f"strategy={strategy}", *turns]
    door = DOOR if experiment == "deployed" else []
    study = load.load([*words, *IMAGES, *door, *FILE.get(model, [])])
    plain = load.to_plain(study)
    assert plain["model"] == composed("model", model)["model"]
    assert plain["strategy"] == composed("strategy", strategy)["strategy"]
    assert study.experiment == experiment


def study_of(task: str, model: str) -> Study:
    study = load.from_plain(composed("model", model))
    return replace(study, task=TaskSettings(task))


@pytest.mark.parametrize("model", OUTLINING)
@pytest.mark.parametrize("task", [name for name in tasks.clinical() if not tasks.get(name).structures])
def test_a_network_that_outlines_is_refused_where_there_is_nothing_to_outline(task: str, model: str) -> None:
    with pytest.raises(load.ConfigError, match=r"structures.*take .*scatter_linear") as caught:
        initial_state(study_of(task, model))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", FOR_IMAGES)
@pytest.mark.parametrize("task", [name for name in tasks.clinical() if len(tasks.get(name).form.shape) == 4])
def test_a_network_for_images_is_refused_for_volumes(task: str, model: str) -> None:
    fits = "scatter_outline_3d" if "outline" in model else "scatter_linear_3d"
    with pytest.raises(load.ConfigError, match=f"model={fits} has options for volumes"):
        initial_state(study_of(task, model))


@pytest.mark.parametrize("strategy", ["fedbn", "fedper", "fedrep"])
def test_a_strategy_for_deep_models_is_refused_for_a_linear_one(strategy: str) -> None:
    with pytest.raises(load.ConfigError, match=rf"strategy={strategy}: .*networks of layers are densenet121, resnet18"):
        initial_state(load.from_plain(composed("strategy", strategy)))
