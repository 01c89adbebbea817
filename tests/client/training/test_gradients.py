"""Patients' gradients are the same by every route, for classification and segmentation, in two and three dimensions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet121, SegResNet, UNet
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from client.cohort.alone import linear_outputs
from client.errors import ModelRefused
from client.training.gradients import PatientGradients, Route

Made = tuple[nn.Module, tuple[int, ...], tuple[int, ...]]
"""A model, the shape of an image, the shape of its label."""


def linear() -> Made:
    return nn.Linear(20, 1), (20,), (1,)


def two_findings() -> Made:
    return nn.Linear(37, 2, bias=False), (37,), (2,)


def small_convolutions() -> Made:
    layers = [nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 1)]
    return nn.Sequential(*layers), (1, 8, 8), (1,)


def densenet() -> Made:
    norm = ("group", {"num_groups": 8})
    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1, norm=norm), (1, 32, 32), (1,)


def segresnet() -> Made:
    return SegResNet(spatial_dims=2, init_filters=8, in_channels=1, out_channels=2), (1, 48, 48), (2, 48, 48)


def unet3d() -> Made:
    norm = ("instance", {"affine": True})
    unet = UNet(3, 1, 1, channels=(16, 32, 64), strides=(1, 2), num_res_units=1, norm=norm)
    return unet, (1, 16, 16, 16), (1, 16, 16, 16)


class WithAUnusedAndAFrozenPart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.used, self.unused = nn.Linear(5, 4), nn.Linear(4, 1), nn.Linear(7, 7)
        self.frozen.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(torch.tanh(self.frozen(x)))


def partly_trained() -> Made:
    return WithAUnusedAndAFrozenPart(), (5,), (1,)


class Deciding(nn.Module):
    """Looks at its data to decide what to do, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) if x.sum() > 0 else self.head(-x)


def deciding() -> Made:
    return Deciding(), (6,), (1,)


MODELS: list[tuple[Callable[[], Made], Route]] = [
    (linear, Route.LINEAR),
    (two_findings, Route.LINEAR),
    (partly_trained, Route.EACH),
    (deciding, Route.EACH),
    (small_convolutions, Route.EACH),
    (densenet, Route.EACH),
    (segresnet, Route.EACH),
    (unet3d, Route.EACH),
]


def patients_of(image: tuple[int, ...], label: tuple[int, ...], patients: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(7)
    return torch.randn(patients, 2, *image), torch.randint(0, 2, (patients, 2, *label)).float()


def by_hand(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Each patient's gradient by ``backward``, one patient after the other."""
    rows = []
    for images, targets in zip(inputs, labels, strict=True):
        module.zero_grad()
        binary_cross_entropy_with_logits(module(images), targets).backward()
        trained = [p for p in module.parameters() if p.requires_grad]
        rows.append(torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in trained]))
    return torch.stack(rows)


@pytest.mark.parametrize(("make", "route"), MODELS, ids=[make.__name__ for make, _ in MODELS])
def test_every_route_gives_each_patients_own_gradient(make: Callable[[], Made], route: Route) -> None:
    torch.manual_seed(1)
    module, image, label = make()
    inputs, labels = patients_of(image, label)
    expected = by_hand(module, inputs, labels)

    gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=2048)
    gradients.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(labels[:1]))
    scale = float(expected.abs().max())
    assert torch.allclose(gradients.compute(inputs, labels), expected, atol=2e-5 * scale)
    assert gradients.route is route


@pytest.mark.parametrize("make", [linear, two_findings, partly_trained, small_convolutions, segresnet, unet3d])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_patients_gradient_is_the_same_to_the_last_bit_whoever_else_is_there(
    make: Callable[[], Made], size: float
) -> None:
    """Large weights that nearly cancel make rounding as large as what is learned from: a coordinator may send them."""
    torch.manual_seed(2)
    module, image, label = make()
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(size)
    gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=2048)
    few = 5 if len(image) > 1 else 40
    inputs, labels = patients_of(image, label, few)
    together = gradients.compute(inputs, labels)
    for chosen in ([3], [4, 3], [0, 1, 2, 3], list(range(1, few)), [3, *range(few - 1, 3, -1)]):
        alone = gradients.compute(inputs[chosen], labels[chosen])
        assert alone.numpy().tobytes() == together[chosen].numpy().tobytes()


def test_a_matrix_product_of_all_patients_would_have_let_them_touch_each_other() -> None:
    """The wrong version: what the last bits of a row are depends on the rows beside it."""
    torch.manual_seed(0)
    features, null = torch.randn(250, 1953), torch.randn(1953)
    weight = 1e4 * null
    moved = [
        count for count in range(1, 250) if not torch.equal((features[:count] @ weight), (features @ weight)[:count])
    ]
    alone = [count for count in (1, 2, 63, 64, 65, 249) if not _same_for(features, weight, count)]
    assert alone == []
    if not moved:
        pytest.skip("this processor's matrix products happen to treat all rows alike")


def _same_for(features: Tensor, weight: Tensor, count: int) -> bool:
    layer = nn.Linear(len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(weight[None])
    return torch.equal(linear_outputs(layer, features[:count]), linear_outputs(layer, features)[:count])


def test_two_threads_with_a_patient_each_compute_what_one_does() -> None:
    module, image, label = segresnet()
    inputs, labels = patients_of(image, label, 5)
    expected = by_hand(module, inputs, labels)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=2048)
        gradients.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(labels[:1]))
        assert gradients.patients_at_once == 2
        found = torch.cat([gradients.compute(inputs[i : i + 2], labels[i : i + 2]) for i in (0, 2, 4)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.allclose(found, expected, atol=2e-5 * float(expected.abs().max()))


def test_what_the_model_computes_does_not_change_and_follows_the_vector() -> None:
    module, image, _ = small_convolutions()
    x = torch.rand(2, *image)
    before = module(x)
    gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=64)
    assert torch.equal(module(x), before)
    with torch.no_grad():
        gradients.vector.zero_()
    assert all((p == 0).all() for p in module.parameters())


def test_a_model_that_is_simply_broken_says_so_itself() -> None:
    gradients = PatientGradients(nn.Linear(3, 1), binary_cross_entropy_with_logits, max_memory_mb=64)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        gradients.prepare(*patients_of((4,), (1,), 1))


def test_dropout_has_a_mask_for_each_patient() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(200, 1))
    gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=64)
    inputs, labels = torch.ones(2, 1, 200), torch.ones(2, 1, 1)
    gradients.prepare(inputs[:1], labels[:1])
    one, other = gradients.compute(inputs, labels)
    assert ((one == 0) != (other == 0)).any()


class Counting(nn.Module):
    """Keeps a running mean of what it has seen, which no list of layers knows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.detach().mean(dim=0)
        return self.head(x - self.seen)


def test_a_model_in_which_patients_leave_traces_is_refused() -> None:
    gradients = PatientGradients(Counting(), binary_cross_entropy_with_logits, max_memory_mb=64)
    with pytest.raises(ModelRefused, match="seen changes while the model runs"):
        gradients.prepare(*patients_of((4,), (1,), 1))


def test_nothing_to_train_and_other_precisions_are_refused() -> None:
    with pytest.raises(ModelRefused, match="nothing to train"):
        PatientGradients(nn.ReLU(), binary_cross_entropy_with_logits, max_memory_mb=64)
    with pytest.raises(ModelRefused, match=r"weight is torch.float64, not float32; bias is torch.float64"):
        PatientGradients(nn.Linear(2, 1).double(), binary_cross_entropy_with_logits, max_memory_mb=64)


def test_more_memory_is_more_patients_at_a_time() -> None:
    at_once = []
    for megabytes in (20, 40, 80):
        gradients = PatientGradients(nn.Linear(100_000, 1), binary_cross_entropy_with_logits, max_memory_mb=megabytes)
        gradients.prepare(*patients_of((100_000,), (1,), 1))
        at_once.append(gradients.patients_at_once)
    assert at_once == sorted(set(at_once))
    assert at_once[2] >= 3 * at_once[0]


def test_too_little_memory_for_one_patient_is_told_with_the_remedy() -> None:
    module, image, label = segresnet()
    gradients = PatientGradients(module, binary_cross_entropy_with_logits, max_memory_mb=2)
    with pytest.raises(ModelRefused, match=r"needs about \d+ MiB, 2 MiB are allowed: raise max_memory_mb"):
        gradients.prepare(*patients_of(image, label, 1))


_PEAK = """
import sys, torch
from functools import partial
from pathlib import Path
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from client.training.noise import entropy
from client.privacy import PatientSteps, StepTerms

def status(field):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))

torch.set_num_threads(int(sys.argv[3]))
layers = [nn.Linear(100_000, 1)]
if sys.argv[1] == "convolutions":
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3), nn.Flatten(), nn.LazyLinear(1)]
shape = (100_000,) if sys.argv[1] == "linear" else (1, 96, 96)
module = layers[0] if sys.argv[1] == "linear" else nn.Sequential(*layers)
module(torch.zeros(1, *shape))
inputs, labels = torch.rand(300, 1, *shape), torch.ones(300, 1, 1)
draw = lambda chosen: (inputs[chosen], labels[chosen])
sgd = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
terms = StepTerms(1.0, 1.0, 10.0, int(sys.argv[2]))
steps = PatientSteps(module, binary_cross_entropy_with_logits, sgd, terms, entropy())
steps.prepare(inputs[:1], labels[:1])
steps.step([0], draw)  # code is loaded at the first step
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
steps.step(list(range(300)), draw)
print(steps.patients_at_once, (status("VmHWM") - before) / 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(("model", "threads"), [("linear", 1), ("convolutions", 2)])
def test_a_step_stays_within_its_memory(model: str, threads: int) -> None:
    """300 patients, measured in a process of its own; all at a time they would take ten times as much."""
    call = [sys.executable, "-c", _PEAK, model, "60", str(threads)]
    shown = subprocess.run(call, check=True, capture_output=True, text=True, timeout=300).stdout.split()
    at_once, peak = int(shown[0]), float(shown[1])
    assert at_once == threads if model == "convolutions" else 5 < at_once < 256
    assert peak < 60
