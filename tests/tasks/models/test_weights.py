"""Weights from a file: the one that is meant and no other, every tensor fits, and an encoder stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.models import registry
from tasks.models.network import Network
from tasks.models.registry import UnknownModel, WeightsMissing
from tasks.models.weights import Finder, carried, digest_of, in_folder

FORM = InputSpec((1, 32, 32), (Binary(),) * 2)
OUTLINES = InputSpec((1, 32, 32), (Binary(),) * 2, 1)
RESNET: dict[str, Any] = {"name": "resnet18"}
VIT: dict[str, Any] = {"name": "vit", "patch": 8, "width": 24, "layers": 2, "heads": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def kept(folder: Path, tensors: dict[str, Tensor], name: str = "encoder.safetensors") -> str:
    """Write a file; its digest."""
    folder.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    return digest_of(folder / name)


def tensors_of(spec: dict[str, Any], form: InputSpec = FORM, seed: int = 9) -> dict[str, Tensor]:
    trainable = registry.build(spec, form, seed).trainable
    return {name: p.detach().clone() for name, p in trainable.named_parameters()}


def built(spec: dict[str, Any], digest: str, find: Finder | None, form: InputSpec = FORM, **more: Any) -> Network:
    return registry.build(spec | {"weights": digest} | more, form, 1, find)


@pytest.mark.parametrize(
    ("spec", "form", "head"),
    [
        (RESNET, FORM, {"fc.weight", "fc.bias"}),
        (VIT, FORM, {"backbone.classification_head.weight", "backbone.classification_head.bias"}),
        (
            {"name": "unet", "levels": 3},
            OUTLINES,
            {"backbone.outlines.weight", "backbone.outlines.bias", "findings.weight", "findings.bias"},
        ),
    ],
    ids=["resnet18", "vit", "unet"],
)
@pytest.mark.parametrize("bare", [True, False])
def test_a_network_starts_from_the_file_and_its_last_layer_is_new(
    folder: Path, spec: dict[str, Any], form: InputSpec, head: set[str], bare: bool
) -> None:
    told = tensors_of(spec, form)
    names = {name: name.removeprefix("backbone.") if bare else name for name in told}
    digest = kept(folder, {names[name]: value for name, value in told.items()})
    fresh = tensors_of(spec, form, seed=1)
    trainable = built(spec, digest, in_folder(folder), form).trainable
    for name, value in trainable.named_parameters():
        assert torch.equal(value, (fresh if name in head else told)[name]), name


def test_a_frozen_encoder_is_the_fixed_part_and_the_last_layer_alone_travels(folder: Path) -> None:
    digest = kept(folder, tensors_of(RESNET))
    network = built(RESNET, digest, in_folder(folder), freeze="encoder")
    assert set(registry.arrays_of(network.trainable)) == {"weight", "bias"}
    assert isinstance(network.trainable, nn.Linear)
    assert not network.outlines
    assert network.features is not None
    images = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    features = network.features.train()(images)
    assert features.shape == (3, 512)
    assert not features.requires_grad
    assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(network.features(images[:1]), features[:1], atol=1e-4)
    assert (features[0] - features[1]).norm() > 0.05, "it tells images apart"
    again = built(RESNET, digest, in_folder(folder), freeze="encoder")
    assert again.features is not None
    assert torch.equal(again.features(images), features), "the same at every hospital"
    assert network.outputs(images).shape == (3, 2)


def test_a_frozen_encoder_may_keep_batch_normalisation_with_the_files_statistics(folder: Path) -> None:
    from monai.networks.nets.resnet import resnet18

    torch.manual_seed(0)
    monai = resnet18(spatial_dims=2, n_input_channels=1, num_classes=5)
    monai(torch.rand(8, 1, 32, 32))  # which moves its statistics
    digest = kept(folder, monai.state_dict())
    network = built(RESNET, digest, in_folder(folder), freeze="encoder", groups=0)
    assert network.features is not None
    before = {name: value.clone() for name, value in network.features.named_buffers()}
    images = torch.rand(2, 1, 32, 32)
    monai.fc = nn.Identity()  # type: ignore[assignment]
    assert torch.allclose(network.features._encoded(images), monai.eval()(images), atol=1e-5)  # type: ignore[operator]
    network.features.train()(images)
    assert all(torch.equal(before[name], value) for name, value in network.features.named_buffers())
    with pytest.raises(UnknownModel, match=r"bn1\.running_mean is unknown"):
        built(RESNET, digest, in_folder(folder))
    with pytest.raises(UnknownModel, match="groups=0"):
        built(RESNET, digest, in_folder(folder), groups=0)


def test_every_tensor_that_does_not_fit_is_told_at_once(folder: Path) -> None:
    told = tensors_of(VIT)
    told["backbone.norm.weight"] = torch.ones(7)
    told["backbone.norm.bias"] = torch.full((24,), torch.nan)
    told["surplus"] = torch.ones(1)
    del told["backbone.cls_token"]
    digest = kept(folder, told)
    with pytest.raises(UnknownModel) as refused:
        built(VIT, digest, in_folder(folder))
    for words in (
        "cls_token is missing",
        "surplus is unknown",
        "norm.weight is torch.float32 (7,), not (24,)",
        "norm.bias has values that are not finite",
    ):
        assert words in str(refused.value)


def test_only_the_file_that_is_meant_is_taken(folder: Path) -> None:
    digest = kept(folder, tensors_of(VIT))
    other = kept(folder, tensors_of(VIT, seed=8), "another.safetensors")
    assert digest != other
    assert in_folder(folder)(digest) == folder / "encoder.safetensors"
    kept(folder, tensors_of(VIT, seed=7))
    with pytest.raises(WeightsMissing, match=f"{digest}.*site.yaml"):
        built(VIT, digest, in_folder(folder))
    with pytest.raises(WeightsMissing):
        built(VIT, other, in_folder(folder / "nowhere"))
    with pytest.raises(WeightsMissing):
        built(VIT, other, None, freeze="encoder")
    assert built(VIT, other, None).trainable is not None, "the caller brings all the values"


@pytest.mark.parametrize(
    ("spec", "more", "told"),
    [
        (RESNET, {"weights": "../../etc/passwd"}, "not a SHA-256"),
        (RESNET, {"weights": 3}, "weights=3"),
        (RESNET, {"freeze": "encoder"}, "needs weights=FILE"),
        (RESNET, {"weights": "0" * 64, "freeze": "everything"}, "use one of nothing, encoder"),
        ({"name": "scatter_linear"}, {"weights": "0" * 64}, "cannot use weights"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_refused(spec: dict[str, Any], more: dict[str, Any], told: str) -> None:
    with pytest.raises(UnknownModel, match=told):
        registry.build(spec | more, InputSpec((1, 64, 64)), find=in_folder(Path("nowhere")))


def test_a_network_that_outlines_has_no_single_last_layer_to_train_alone(folder: Path) -> None:
    spec = {"name": "segresnet"}
    digest = kept(folder, tensors_of(spec, OUTLINES))
    with pytest.raises(UnknownModel, match="freeze=encoder is for densenet121"):
        built(spec, digest, in_folder(folder), OUTLINES, freeze="encoder")


def test_a_file_that_is_no_safetensors_is_refused(folder: Path) -> None:
    folder.mkdir()
    file = folder / "pickle.safetensors"
    file.write_bytes(b"\x80\x04 not tensors")
    with pytest.raises(UnknownModel, match="cannot read"):
        built(RESNET, digest_of(file), in_folder(folder))


def test_a_file_may_be_at_hand_instead_of_in_a_folder(folder: Path) -> None:
    digest = kept(folder, tensors_of(VIT))
    (file,) = folder.iterdir()
    there, here = built(VIT, digest, in_folder(folder)), built(VIT, digest, carried(file.read_bytes()))
    for name, value in there.trainable.state_dict().items():
        assert torch.equal(value, here.trainable.state_dict()[name])
    with pytest.raises(WeightsMissing):
        built(VIT, digest, carried(file.read_bytes() + b"\0"))
