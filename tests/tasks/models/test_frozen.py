"""``encoder``: a linear head on what an encoder says and on scattering, and words for a file that does not fit."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import model_file, registry
from tasks.models.encoders import encoder_file, random_images
from tasks.models.encoders.directions import fitted
from tasks.models.network import Network
from tests.tasks.models.encoders.graphs import graph
from tests.tasks.models.encoders.published import VisionConvNeXt, unsettled

FORM = InputSpec((1, 32, 32), (Binary(),) * 2)
CONTENT = save({name: tensor.clone() for name, tensor in unsettled(VisionConvNeXt()).state_dict().items()})
IMAGES = random_images.drawn(3, (32, 32), seed=5)


def built(content: bytes, form: InputSpec = FORM, **options: Any) -> Network:
    digest = hashlib.sha256(content).hexdigest()
    return registry.build({"name": "encoder", "weights": digest} | options, form, find=lambda wanted: content)


def with_directions(number: int = 8) -> bytes:
    encoder = encoder_file.unpacked(CONTENT)
    images = random_images.drawn(40, (32, 32))
    found = fitted(torch.cat([encoder.encode(one[None]) for one in images]), "40 random processes", number)
    return encoder_file.packed(CONTENT, encoder.facts, found)


def test_both_parts_weigh_the_same_and_a_vector_has_norm_one() -> None:
    network = built(CONTENT)
    assert network.features is not None
    made = network.features(IMAGES)
    assert made.shape == (3, 32 + 976)
    for part in (made[:, :32], made[:, 32:]):
        torch.testing.assert_close(part.norm(dim=1), torch.full((3,), 0.5**0.5))
    alone = built(CONTENT, pool=0).features
    assert alone is not None
    torch.testing.assert_close(alone(IMAGES), made[:, :32] * 2**0.5)


def test_only_the_head_is_trained_and_starts_at_zero() -> None:
    arrays = registry.arrays_of(built(CONTENT).trainable)
    assert {name: value.shape for name, value in arrays.items()} == {"weight": (2, 1008), "bias": (2,)}
    assert not any(value.any() for value in arrays.values())


def test_nobodys_features_depend_on_who_else_is_there() -> None:
    features = built(with_directions(), directions=4).features
    assert features is not None
    together = features(IMAGES)
    for row, image in enumerate(IMAGES):
        assert torch.equal(features(image[None])[0], together[row])


def test_the_widest_directions_are_used() -> None:
    content = with_directions()
    few, more = (built(content, directions=number, pool=0).features for number in (3, 8))
    assert few is not None
    assert more is not None
    made = more(IMAGES)[:, :3]
    torch.testing.assert_close(few(IMAGES), made / made.norm(dim=1, keepdim=True))


def test_sequences_are_shown_one_at_a_time_and_one_that_is_missing_adds_nothing() -> None:
    form = InputSpec((4, 32, 32))
    images = random_images.drawn(4, (32, 32)).reshape(1, 4, 32, 32).clone()
    images[:, 2] = 0
    features = built(CONTENT, form, pool=0).features
    assert features is not None
    parts = features(images).reshape(4, 32)
    assert not parts[2].any()
    assert all(part.any() for part in parts[[0, 1, 3]])


def test_an_encoder_of_as_many_channels_sees_them_together() -> None:
    content = graph(image=(1, 3, 32, 32)).SerializeToString()
    features = built(content, InputSpec((3, 32, 32)), pool=0).features
    assert features is not None
    assert features(torch.rand(2, 3, 32, 32)).shape == (2, 8)


@pytest.mark.parametrize(
    ("content", "form", "options", "told"),
    [
        (
            CONTENT,
            InputSpec((1, 16, 16, 16)),
            {"resolution": 16, "J": 2, "L": 3},
            "for images, and the task has volumes",
        ),
        (CONTENT, FORM, {"directions": 5}, "the file has none: .*--directions"),
        (with_directions(8), FORM, {"directions": 9}, "directions=9, and the file has 8"),
        (CONTENT, FORM, {"directions": 1000}, "use at most 128"),
        (b"nothing", FORM, {}, "neither safetensors nor ONNX"),
        (graph(image=(1, 3, 8, 8), outputs=("y", "w")).SerializeToString(), FORM, {}, "2 outputs"),
        (CONTENT, FORM, {"J": 9}, "scattering"),
    ],
    ids=["volumes", "none", "too few", "too many", "nothing", "outputs", "scattering"],
)
def test_a_file_that_does_not_fit_is_told(content: bytes, form: InputSpec, options: dict[str, Any], told: str) -> None:
    with pytest.raises(registry.UnknownModel, match=f"model encoder: .*{told}"):
        built(content, form, **options)


def test_channels_that_nobody_has_are_told() -> None:
    import numpy as np

    weight = np.ones((8, 5, 3, 3), np.float32)
    content = graph(image=(1, 5, 32, 32), values={"w": weight}).SerializeToString()
    with pytest.raises(registry.UnknownModel, match="takes 5 channels; the task's inputs have 1"):
        built(content)


@pytest.mark.parametrize("find", [None, lambda digest: None])
def test_without_its_file_it_is_not_built(find: Any) -> None:
    with pytest.raises(registry.WeightsMissing, match=r"site.yaml names as `weights`"):
        registry.build({"name": "encoder", "weights": "0" * 64}, FORM, find=find)
    with pytest.raises(registry.UnknownModel, match="is not a SHA-256"):
        registry.build({"name": "encoder", "weights": "file.onnx"}, FORM, find=find)


def test_a_model_carries_its_encoder() -> None:
    network = built(CONTENT)
    head = model_file.ModelHead(
        "s-1", "0" * 64, "0.2.0", "pneumonia_xray", 1, "1" * 64,
        {"name": "encoder", "weights": hashlib.sha256(CONTENT).hexdigest()}, None, None, [],
    )  # fmt: skip
    packed = model_file.pack(head, registry.arrays_of(network.trainable), CONTENT)
    again, arrays, find = model_file.unpack(packed)
    other = registry.build(again.model, FORM, find=find)
    registry.load_arrays(other.trainable, arrays)
    assert torch.equal(other.outputs(IMAGES), network.outputs(IMAGES))
