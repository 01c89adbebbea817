"""A file of another layout: every name that is missing or unknown, and the likeliest layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tasks.models.encoders.layouts import OtherLayout, recognise
from tests.tasks.models.encoders.published import VisionConvNeXt, VisionEfficientNet, VisionViT

TENSORS: dict[str, Tensor] = dict(VisionViT().state_dict())


def refused(tensors: dict[str, Tensor]) -> str:
    with pytest.raises(OtherLayout) as told:
        recognise(tensors)
    return str(told.value)


def test_all_that_is_missing_and_unknown_is_told_for_the_likeliest_layout() -> None:
    less = {name: t for name, t in TENSORS.items() if "layer_1.ln_2" not in name}
    text = refused(less | {"encoder.extra": torch.zeros(2), "decoder.weight": torch.zeros(2)})
    assert "most like those of torchvision ViT" in text
    for part in ("blocks.1.norm2.weight is missing", "blocks.1.norm2.bias is missing", "encoder.extra is unknown"):
        assert part in text
    assert "decoder.weight is unknown" in text
    assert "exported as ONNX" in text


def test_many_problems_are_counted() -> None:
    assert "; and 80 more" in refused(TENSORS | {f"extra.{n:03}": torch.zeros(1) for n in range(100)})


def test_names_of_no_layout_are_shown() -> None:
    assert "its 2 names, a.weight; b.weight, are of none" in refused(
        {"a.weight": torch.zeros(1), "b.weight": torch.zeros(1)}
    )
    assert "its 0 names" in refused({})


@pytest.mark.parametrize("prefix", ["module.", "model.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("network", [VisionViT, VisionEfficientNet, VisionConvNeXt])
def test_what_stands_before_all_names_does_not_matter(prefix: str, network: type[torch.nn.Module]) -> None:
    tensors = {f"{prefix}{name}": tensor for name, tensor in network().state_dict().items()}
    assert recognise(tensors).facts.layout.startswith("torchvision")


def test_a_head_is_left_out_and_not_needed() -> None:
    bare = {name: t for name, t in TENSORS.items() if not name.startswith("heads.")}
    assert recognise(bare).kept == recognise(TENSORS).kept
    assert not any(name.startswith("heads.") for name in recognise(TENSORS).kept)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.to(torch.int8), "is torch.int8, and must be floating-point numbers"),
        (lambda t: torch.full_like(t, torch.nan), "has values that are not finite"),
    ],
)
def test_tensors_of_other_kinds_are_told_by_name(change, told: str) -> None:  # type: ignore[no-untyped-def]
    assert f"encoder.ln.weight {told}" in refused(TENSORS | {"encoder.ln.weight": change(TENSORS["encoder.ln.weight"])})


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(kind: torch.dtype) -> None:
    tensors = {name: t.to(kind) for name, t in TENSORS.items()}
    image = torch.rand(1, 3, 32, 32)
    made = recognise(tensors).run(image)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, recognise(TENSORS).run(image), rtol=0.1, atol=0.1)
