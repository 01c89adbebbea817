"""An outliner's file, and a linear model that begins with its outlines."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch.nn.functional import interpolate

from tasks import task as tasks
from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import outliner, registry
from tasks.models.network import Network
from tasks.models.outliner import BadOutliner, Outliner
from tasks.models.weights import carried, digest_of, shipped
from tasks.phantoms.breast_ultrasound.lesion import lesion_of
from tasks.phantoms.breast_ultrasound.phantom import image_of
from tasks.phantoms.breast_ultrasound.scanner import scanner_of
from tasks.task import PhantomHospital, Picture

TASK = tasks.get("breast_ultrasound")
SPEC = {"name": "scatter_outline", "resolution": 32, "J": 3, "L": 2, "pool": 2}


def content(**changes: torch.Tensor) -> bytes:
    """Of an outliner that has learned nothing."""
    torch.manual_seed(1)
    return save({name: value.half().contiguous() for name, value in Outliner().state_dict().items()} | changes)


def built(file: bytes, form: InputSpec = TASK.form) -> Network:
    return registry.build(SPEC | {"weights": hashlib.sha256(file).hexdigest()}, form, find=carried(file))


def test_a_study_begins_with_the_outliners_outlines() -> None:
    file, draw = content(), torch.Generator().manual_seed(3)
    network, images = built(file), torch.rand(3, *TASK.form.shape, generator=draw)
    assert network.outlines
    begun = network.outputs(images)[:, TASK.form.outputs :].reshape(3, 1, *TASK.form.shape[1:])
    own = outliner.read(file)(images)
    expected = interpolate(4 * torch.tanh(own / 4), size=TASK.form.shape[1:], mode="bilinear")
    torch.testing.assert_close(begun, expected, rtol=1e-4, atol=1e-4)
    assert (network.outputs(images)[:, : TASK.form.outputs] == 0).all(), "the question begins with nothing"


def test_what_is_trained_and_sent_is_a_number_more() -> None:
    with_it = registry.arrays_of(built(content()).trainable)
    without = registry.arrays_of(registry.build(SPEC, TASK.form).trainable)
    more = with_it.keys() - without.keys()
    assert [with_it[name].shape for name in more] == [(1, 1)]
    assert sum(np.abs(value).sum() for name, value in with_it.items() if name not in more) == 0


@pytest.mark.parametrize(
    "form",
    [
        InputSpec((1, 64, 64), (Binary(),), 2),
        InputSpec((1, 16, 32, 32), (Binary(),), 1),
        InputSpec((2, 64, 64), (Binary(),), 1),
    ],
)
def test_other_tasks_are_told_what_it_is_for(form: InputSpec) -> None:
    with pytest.raises(registry.UnknownModel, match="one structure on images of one channel"):
        built(content(), form)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"\x80\x04K\x01.", "no safetensors file"),
        (save({"weight": torch.zeros(1)}), r"down.0.0.weight is missing; .*"),
        (content(more=torch.zeros(2)), "more is unknown"),
        (content(**{"outlines.bias": torch.zeros(2)}), r"outlines.bias is \(2,\), not \(1,\)"),
        (content(**{"outlines.bias": torch.full((1,), torch.inf)}), "outlines.bias has values that are not finite"),
    ],
)
def test_what_is_no_outliner_is_refused(file: bytes, why: str) -> None:
    with pytest.raises(BadOutliner, match=why):
        outliner.read(file)
    with pytest.raises(registry.UnknownModel, match="the outliner in the model's file cannot be used"):
        built(file)


def test_the_file_that_comes_with_the_package_finds_what_phantoms_show() -> None:
    """Lesions of new phantoms; it is small, and names what made it."""
    path = shipped("shipped:breast_ultrasound_outlines")
    assert isinstance(path, Path)
    assert path.stat().st_size < 2e6
    assert len(digest_of(path)) == 64
    rng, network, dice = np.random.default_rng(1), outliner.read(path.read_bytes()), []
    assert TASK.read_masks is not None
    for n in range(8):
        scanner = scanner_of(PhantomHospital("oak", 1, 0.5))
        grey, truth = image_of(scanner, lesion_of(rng, n % 2 == 0), (0.2, 0.7), rng)
        picture = Picture(grey.astype(np.float32) / np.float32(255), masks=truth[None])
        said = interpolate(network(torch.from_numpy(TASK.read_example(picture))[None]), scale_factor=2, mode="bilinear")
        marked, real = said[0, 0].numpy() > 0, TASK.read_masks(picture)[0]
        dice.append(2 * (marked & real).sum() / (marked.sum() + real.sum()))
    assert np.mean(dice) > 0.7
