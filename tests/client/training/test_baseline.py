"""A hospital's own baseline has a model that fits, whatever its task's examples are."""

from __future__ import annotations

import pytest

from client.training.baseline import fitting
from tasks import task as tasks
from tasks.input_spec import InputSpec
from tasks.models import registry


@pytest.mark.parametrize("name", tasks.clinical())
def test_every_task_has_a_model_that_fits(name: str) -> None:
    form = tasks.get(name).form
    model, network = fitting(form)
    again = registry.arrays_of(registry.build(model, form).trainable)
    assert {k: v.shape for k, v in again.items()} == {
        k: v.shape for k, v in registry.arrays_of(network.trainable).items()
    }


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 48), (1, 16, 16, 16), (2, 20, 24, 32), (4, 48, 48, 48)])
def test_examples_of_other_shapes_have_one_as_well(shape: tuple[int, ...]) -> None:
    model, network = fitting(InputSpec(shape))
    assert model["name"] == "scatter_linear"
    assert sum(p.numel() for p in network.trainable.parameters()) > len(shape)


def test_what_nothing_fits_says_why() -> None:
    with pytest.raises(registry.UnknownModel, match="scatter_linear"):
        fitting(InputSpec((1, 2, 2)))
