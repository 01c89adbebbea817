"""An encoder's file: read from either format, written with a head, and refused in words where it cannot run."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from tasks.models.encoders import encoder_file
from tasks.models.encoders.directions import fitted
from tasks.models.encoders.encoder_file import BadEncoder
from tests.tasks.models.encoders.graphs import graph
from tests.tasks.models.encoders.published import VisionConvNeXt, unsettled

TENSORS: dict[str, Tensor] = {name: t.clone() for name, t in unsettled(VisionConvNeXt()).state_dict().items()}
CONTENT = save(TENSORS)
IMAGE = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1))


def test_one_grey_channel_is_shown_thrice_at_the_encoders_own_size_and_colours() -> None:
    encoder = encoder_file.unpacked(CONTENT)
    seen: list[Tensor] = []
    watched = encoder_file.PublicEncoder(
        **{**vars(encoder), "layer": lambda images: seen.append(images) or encoder.layer(images)}
    )
    assert watched.encode(torch.full((1, 1, 40, 40), 0.5)).shape == (1, 32)
    assert seen[0].shape == (1, 3, 224, 224)
    expected = [(0.5 - mean) / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)]
    torch.testing.assert_close(seen[0].mean(dim=(0, 2, 3)), torch.tensor(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("content", [CONTENT, graph().SerializeToString()], ids=["tensors", "graph"])
def test_what_is_written_is_read_again_with_its_directions(content: bytes) -> None:
    encoder = encoder_file.unpacked(content)
    images = torch.rand(40, 1, 20, 20, generator=torch.Generator().manual_seed(2))
    found = torch.cat([encoder.encode(image[None]) for image in images])
    facts = encoder_file.with_facts(encoder.facts, {"licence": "CC0", "side": encoder.facts.side})
    packed = encoder_file.packed(content, facts, fitted(found, "40 of nothing"))
    again = encoder_file.unpacked(packed)
    assert again.facts.licence == "CC0"
    assert again.directions is not None
    assert again.directions.told == "40 of nothing"
    torch.testing.assert_close(again.encode(IMAGE), encoder.encode(IMAGE), rtol=0, atol=0)
    assert encoder_file.packed(packed, again.facts, again.directions) == packed  # to the byte
    assert not any(name.startswith("classifier.2") for name in load(packed))


def test_facts_that_cannot_be_are_told() -> None:
    facts = encoder_file.unpacked(CONTENT).facts
    with pytest.raises(BadEncoder, match=r"side.*2048"):
        encoder_file.with_facts(facts, {"side": 10**6})
    with pytest.raises(BadEncoder, match="std"):
        encoder_file.with_facts(facts, {"std": [0.0, 1.0, 1.0]})
    with pytest.raises(BadEncoder, match="takes 3 channels, and has mean and std of 2, 3"):
        encoder_file.unpacked(CONTENT, encoder_file.with_facts(facts, {"mean": [0.0, 0.0]}))


def _with_head(head: dict[str, object]) -> bytes:
    return save(TENSORS, {"consilium-encoder": json.dumps(head)})


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither safetensors nor ONNX"),
        (b"PK\x03\x04" + bytes(100), "consilium encoder FILE"),
        (CONTENT[:-1], "neither safetensors nor ONNX"),
        (_with_head({"layout": "x"}), "its head is of another release, or damaged: side"),
        (_with_head({"layout": "x", "side": 1, "mean": [0.0], "std": [1.0], "run": "rm"}), "run: Unexpected"),
        (save(TENSORS | {"features.1.0.block.3.weight": torch.zeros(5, 7)}), "do not fit together"),
        (save(TENSORS | {"classifier.0.weight": torch.full((32,), 3e38)}), "not finite"),
        (
            save(TENSORS | {f"consilium.{n}": torch.zeros(3) for n in ("mean", "spread", "axes")}),
            "directions are damaged",
        ),
    ],
    ids=["empty", "pickle", "cut", "head", "more", "shapes", "overflow", "directions"],
)
def test_a_file_that_cannot_run_is_told(content: bytes, told: str) -> None:
    with pytest.raises(BadEncoder, match=told):
        encoder_file.unpacked(content)


@given(st.integers(0, len(CONTENT) - 1), st.binary(min_size=1, max_size=40))
def test_whatever_the_bytes_are_it_is_read_or_refused_in_words(at: int, other: bytes) -> None:
    content = CONTENT[: at % 4000] + other + CONTENT[at % 4000 + len(other) :]
    try:
        encoder = encoder_file.unpacked(content)
    except BadEncoder:
        return
    assert encoder.encode(IMAGE).shape == (1, encoder.features)
