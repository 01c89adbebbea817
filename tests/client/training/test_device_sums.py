"""Private steps by way of a second device: the same step, moved in the open, and no step is lost when it fails."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from client.privacy import PatientSteps, StepTerms
from client.training.noise import entropy
from tasks.answers import Binary
from tasks.input_spec import InputSpec
from tasks.losses import loss_of
from tasks.machine.device import Placement, telling
from tests import second_device
from tests.second_device import DEVICE, State
from tests.tasks.test_losses import GRADE, LESION, SIZE

ALMOST_NONE = 1e-9
PATIENTS, IMAGES = 7, 2
SGD = partial(torch.optim.SGD, lr=1.0)
THERE = Placement(DEVICE)
WEIGHTS = (0.2, 0.5, 1.0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Processor and second device then round alike."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """Raises on images whose first value is negative, as a network that looks at values may."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        if float(images.flatten(1)[:, 0].min()) < 0:
            raise RuntimeError("PATIENT-4711 cannot be computed")
        made: Tensor = self.body(images)
        return made


def images_of() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    inputs = torch.rand(PATIENTS, IMAGES, 1, 8, 8, generator=draw) * torch.arange(1, PATIENTS + 1).view(-1, 1, 1, 1, 1)
    return inputs, torch.randint(0, 2, (PATIENTS, IMAGES, 1), generator=draw).float()


def move(
    on: Placement | None,
    noise: float = ALMOST_NONE,
    clip: float = 0.5,
    inputs: Tensor | None = None,
    patients: int = PATIENTS,
    steps: int = 1,
    memory_mb: int = 64,
) -> Tensor:
    """How far so many steps move the network's parameters, shape (parameters,)."""
    module = Net()
    every, labels = images_of()
    every = every if inputs is None else inputs
    terms = StepTerms(noise, clip, 4.0, memory_mb) if on is None else StepTerms(noise, clip, 4.0, memory_mb, on)
    private = PatientSteps(module, binary_cross_entropy_with_logits, SGD, terms, torch.Generator().manual_seed(3))
    before = torch.cat([p.detach().flatten() for p in module.parameters()])
    private.prepare(torch.zeros(1, IMAGES, 1, 8, 8), torch.zeros(1, IMAGES, 1))
    for _ in range(steps):
        private.step(list(range(patients)), lambda chosen: (every[chosen], labels[chosen]))
    assert all(p.device.type == "cpu" for p in module.parameters()), "the network itself never goes anywhere"
    return torch.cat([p.detach().flatten() for p in module.parameters()]) - before


def test_a_step_is_the_same_step_wherever_it_is_computed() -> None:
    """Seeded noise as well: the random bits are the processor's."""
    for noise in (ALMOST_NONE, 1.5, 0.0):
        with second_device.used() as state:
            there = move(THERE, noise, steps=2)
            assert state.operations["convolution"] == (2 * PATIENTS + 1), "each patient for itself, and one to try"
        torch.testing.assert_close(there, move(None, noise, steps=2), rtol=1e-5, atol=1e-7)
    with second_device.used():
        torch.testing.assert_close(move(THERE, 1.5, patients=0), move(None, 1.5, patients=0), rtol=1e-6, atol=0)


def test_what_crosses_is_parameters_and_images_in_and_one_sum_out() -> None:
    """No patient's gradient comes to the processor, where it would cost as much as computing it."""
    size = sum(p.numel() for p in Net().parameters())

    def crossed(steps: int) -> State:
        with second_device.used() as state:
            move(THERE, 1.0, steps=steps)
            return State(crossed=state.crossed.copy(), operations=state.operations.copy())

    one, two = crossed(1).crossed, crossed(2).crossed
    step = {way: two[way] - one[way] for way in two}
    words, images, labels = 2 * math.ceil(size / 2), PATIENTS * IMAGES * 64, PATIENTS * IMAGES
    assert step["in"] == size + images + labels + words, "the random bits of the noise come in too"
    assert step["out"] == size + PATIENTS, "one sum, and the norms"


def test_a_patient_moves_the_sum_by_the_clip_at_most_on_the_device() -> None:
    with second_device.used():
        everybody, one_less = move(THERE, clip=0.01), move(THERE, clip=0.01, patients=PATIENTS - 1)
    assert 0.0099 < 4 * float((everybody - one_less).norm()) <= 0.01 * (1 + 1e-6)


def test_one_on_whom_the_device_fails_is_the_processors_and_the_others_stay_where_they_are() -> None:
    """The wrong version, all of them on the processor as soon as one fails, would show one patient in the rounding of
    the others' gradients."""
    inputs, _ = images_of()
    inputs[3, :, 0, 0, 0] = -1
    told: list[str] = []
    with second_device.used() as state, telling(told.append):
        failing = move(THERE, inputs=inputs)
        computed = state.operations["convolution"]
    assert computed == PATIENTS + 1 - 1
    assert len(told) == 1
    assert "a patient's gradient is the processor's" in told[0]
    torch.testing.assert_close(failing, move(None, inputs=inputs), rtol=1e-5, atol=1e-7)
    with second_device.used():
        assert 0 < 4 * float((failing - move(THERE)).norm()) <= 0.5 * (1 + 1e-6), "it adds nothing, and that is all"


@pytest.mark.parametrize("doubles", [True, False])
def test_short_of_memory_it_is_given_fewer_patients_and_makes_the_same_step(doubles: bool) -> None:
    size, told = sum(p.numel() for p in Net().parameters()), list[str]()
    with second_device.used(memory=2 * size, doubles=doubles), telling(told.append):
        short = move(THERE)
    halves = [f"device second:0 is short of memory: {n} at a time from now on" for n in (128, 64, 32, 16, 8, 4, 2)]
    assert told == halves
    torch.testing.assert_close(short, move(None), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("how", [{"memory": 10}, {"lost": True}, {"fails": frozenset({"native_group_norm"})}])
def test_a_device_that_cannot_leaves_it_all_to_the_processor_with_a_word(how: dict[str, object]) -> None:
    told: list[str] = []
    with second_device.used(**how), telling(told.append):
        moved = move(THERE, 1.0, steps=2)
    assert torch.equal(moved, move(None, 1.0, steps=2))
    assert len(told) == 1
    assert "so the processor does" in told[0]


def test_a_device_that_is_lost_between_two_steps_loses_no_step() -> None:
    module, (inputs, labels) = Net(), images_of()
    steps = PatientSteps(module, binary_cross_entropy_with_logits, SGD, StepTerms(1.0, 0.5, 4.0, 64, THERE), entropy())
    told: list[str] = []
    with second_device.used() as state, telling(told.append):
        steps.prepare(torch.zeros(1, IMAGES, 1, 8, 8), torch.zeros(1, IMAGES, 1))
        assert steps.device == DEVICE
        for lost in (False, True, True, False):
            state.lost = lost
            before = torch.cat([p.detach().flatten() for p in module.parameters()])
            steps.step(list(range(PATIENTS)), lambda chosen: (inputs[chosen], labels[chosen]))
            after = torch.cat([p.detach().flatten() for p in module.parameters()])
            assert 0 < float((after - before).norm()) < math.inf
    assert len(told) == 1, "and is told once"


def test_in_bfloat16_gradients_are_float32_and_the_clip_holds_in_float32() -> None:
    """Products are rounded to 8 bits; a gradient is not, and none is longer than the clip after whatever cast."""
    lower = Placement(DEVICE, torch.bfloat16)
    with second_device.used():
        for clip in (0.01, 0.1):
            everybody, one_less = move(lower, clip=clip), move(lower, clip=clip, patients=PATIENTS - 1)
            contribution = 4 * (everybody - one_less)
            assert 0.99 * clip < float(contribution.double().norm()) <= clip * (1 + 1e-5)
            assert not torch.equal(contribution, contribution.bfloat16().float())
        assert not torch.equal(everybody, move(THERE, clip=clip)), "it is another precision"
        torch.testing.assert_close(everybody, move(THERE, clip=clip), rtol=0, atol=0.05 * float(everybody.abs().max()))


def test_the_wrong_way_to_clip_in_bfloat16_is_longer_than_the_clip() -> None:
    """Clipped in the precision of the products and cast to float32 afterwards, as it must not be."""
    draw = torch.Generator().manual_seed(0)
    longest = 0.0
    for _ in range(20):
        gradient = torch.randn(1000, generator=draw).bfloat16()
        clipped = gradient * (0.01 / gradient.norm()).clamp(max=1)
        assert clipped.dtype == torch.bfloat16
        longest = max(longest, float(clipped.float().double().norm()))
    assert longest > 0.01 * (1 + 1e-4)


def test_every_kind_of_answer_has_its_loss_there() -> None:
    form = InputSpec((1, 4, 4), (LESION, GRADE, SIZE, Binary()))
    outputs = torch.randn(3, form.outputs, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[2.0, 1.0, 7.5, 1.0], [0.0, 2.0, 2.0, math.nan], [1.0, 0.0, math.nan, 0.0]])
    here = loss_of(form, outputs, targets, WEIGHTS)
    with second_device.used() as state:
        there = loss_of(form, outputs.to(DEVICE), targets.to(DEVICE), WEIGHTS)
        assert state.crossed["out"] == 0
        torch.testing.assert_close(there.to("cpu"), here)
