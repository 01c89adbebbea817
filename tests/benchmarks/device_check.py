"""What only a real GPU shows: are its steps the processor's steps, how fast are they, and how much memory do they take?

    python -m tests.benchmarks.device_check [--device cuda:0] [--out FILE.json]      8 minutes at most
    python -m tests.benchmarks.device_check --device cpu --small                     tiny sizes, without a GPU

Three networks, each in float32 and bfloat16: DenseNet121 at 224 x 224, a 3D U-Net at 96^3, and the features of a ViT-B
at 224 x 224. Every mode takes the same step on the same patients: a plain one (forward, backward, SGD), the hospital's
private one, and Opacus' two ways, whose unit is the image. Besides, patients' gradients by ``torch.func.vmap``, which
the hospital does not use: what it computes of one patient depends on the others (``client/cohort/alone.py``), and the
column *others* says by how much. That number decides which way is sound on this device, and the others which is fast.

Times are medians of steps in turn, each mode once a round, the device waited for. Memory is the device's high-water
mark in a step beyond what lay there before. *apart* is the largest difference to the processor's clipped sum, as a
fraction of its largest value; above ``CLOSE`` the check fails. Ends with 0, with 1 if a step is wrong, with 2 without
the device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from client.cohort.on_device import OnDevice
from client.privacy import PatientSteps, StepTerms
from client.training.noise import entropy
from tasks.machine.device import (
    PRECISIONS,
    PROCESSOR,
    NoSuchDevice,
    Placement,
    find,
    finished,
    forget_peak,
    name_of,
    peak_bytes,
    telling,
)
from tests.benchmarks import machine
from tests.benchmarks.bench_dp_step import ghost, hooks

LIMIT_S = 8 * 60
CLOSE = {"float32": 1e-3, "bfloat16": 0.2}
"""How far a sum may be from the processor's in float32, as a fraction of its largest value."""
SMALL_ENOUGH = 1e-9
_SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
_MEGABYTE = 2**20
_ROUNDS = 5

Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A network and its patients.

    Attributes:
        patients, images: how many patients take part in a step, and how many images each brings.
        shape: of an image.
        wide: whether there is a label for each pixel.
    """

    name: str
    make: Callable[[], nn.Module]
    patients: int
    images: int
    shape: tuple[int, ...]
    wide: bool = False

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Invented images and labels, shapes (patients, images, ...)."""
        draw = torch.Generator().manual_seed(0)
        inputs = torch.rand(self.patients, self.images, *self.shape, generator=draw)
        size = (self.patients, self.images, *((1, *self.shape[1:]) if self.wide else (1,)))
        return inputs, torch.randint(0, 2, size, generator=draw).float()


@dataclass(frozen=True)
class Measured:
    """One row of the table; ``failure`` instead of figures where a mode cannot run the network here."""

    network: str
    precision: str
    mode: str
    images_a_second: float | None = None
    against_plain: float | None = None
    peak_mb: float | None = None
    apart: float | None = None
    others: float | None = None
    failure: str = ""


def densenet121() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet121

    torch.manual_seed(0)
    return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1, norm=("group", {"num_groups": 8}))


def tiny_densenet() -> nn.Module:
    from monai.networks.nets.densenet import DenseNet

    torch.manual_seed(0)
    norm = ("group", {"num_groups": 4})
    return DenseNet(2, 1, 1, init_features=8, growth_rate=4, block_config=(2, 2), bn_size=2, norm=norm)


def unet(channels: tuple[int, ...]) -> nn.Module:
    from monai.networks.nets.unet import UNet

    torch.manual_seed(0)
    strides, norm = [2] * (len(channels) - 1), ("instance", {"affine": True})
    return UNet(3, 1, 1, channels=channels, strides=strides, num_res_units=2, norm=norm)


def vit(width: int, layers: int, heads: int, side: int) -> nn.Module:
    """A ViT's class token, of random weights: how fast it is does not depend on them."""
    from monai.networks.nets.vit import ViT

    class Token(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = ViT(
                in_channels=1,
                img_size=side,
                patch_size=16,
                hidden_size=width,
                mlp_dim=4 * width,
                num_layers=layers,
                num_heads=heads,
                classification=True,
                num_classes=1,
                spatial_dims=2,
            )

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.network(images)[0]
            return made

    torch.manual_seed(0)
    return Token().eval().requires_grad_(False)


def cases(small: bool) -> list[Case]:
    """The networks that are trained."""
    if small:
        return [
            Case("DenseNet, tiny, 32 px", tiny_densenet, 2, 2, (1, 32, 32)),
            Case("UNet 3D, 16^3", partial(unet, (4, 8)), 2, 1, (1, 16, 16, 16), wide=True),
        ]
    return [
        Case("DenseNet121, 224 px", densenet121, 16, 4, (1, 224, 224)),
        Case("UNet 3D, 96^3", partial(unet, (16, 32, 64, 128, 256)), 4, 2, (1, 96, 96, 96), wide=True),
    ]


def in_precision(module: nn.Module, on: Placement) -> nn.Module:
    """The module, whose products are of that precision and whose outputs are float32."""

    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, images: Tensor) -> Tensor:
            with on.reduced():
                made: Tensor = self.inner(images)
            return made.float()

    return module if on.precision == torch.float32 else Cast()


def there(case: Case, on: Placement) -> tuple[nn.Module, Tensor, Tensor]:
    """The network and its patients on the device."""
    inputs, labels = case.drawn()
    module = in_precision(case.make(), on).to(on.device).train()
    return module, inputs.to(on.device), labels.to(on.device)


def plain(case: Case, on: Placement) -> Step:
    """Forward, backward, SGD, on all images at once."""
    module, inputs, labels = there(case, on)
    sgd = _SGD(list(module.parameters()))

    def step() -> None:
        sgd.zero_grad()
        binary_cross_entropy_with_logits(module(inputs.flatten(0, 1)), labels.flatten(0, 1)).backward()
        sgd.step()

    return step


def private_steps(case: Case, on: Placement, noise: float) -> PatientSteps:
    """The hospital's own engine, with the device's memory in its hands."""
    terms = StepTerms(noise, 1.0, case.patients, max_memory_mb=1 << 16, on=on)
    steps = PatientSteps(case.make().train(), binary_cross_entropy_with_logits, _SGD, terms, entropy())
    inputs, labels = case.drawn()
    steps.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(labels[:1]))
    return steps


def private(case: Case, on: Placement) -> Step:
    """A private step; images come from the processor's memory, as at a hospital."""
    steps, (inputs, labels) = private_steps(case, on, 1.0), case.drawn()
    return lambda: steps.step(list(range(case.patients)), lambda chosen: (inputs[chosen], labels[chosen]))


def opacus(wrap: Callable[[nn.Module, Tensor, Tensor], Step]) -> Callable[[Case, Placement], Step]:
    def made(case: Case, on: Placement) -> Step:
        return wrap(*there(case, on))

    return made


def by_vmap(case: Case, on: Placement) -> Step:
    """Patients' gradients at once, without clip and noise: the fastest that it could be."""
    module, inputs, labels = there(case, on)
    every = _gradients_by_vmap(module)
    return lambda: every(inputs, labels)


def _gradients_by_vmap(module: nn.Module) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(values: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(functional_call(module, values, (images,)), targets)

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda inputs, labels: each(parameters, inputs, labels)


def others(case: Case, on: Placement) -> float:
    """How far the first patient's gradient by vmap moves when the second patient's images are others, or when there is
    no second patient, as a fraction of its largest value; 0 is what a hospital needs."""
    module, inputs, labels = there(case, on)
    every, changed = _gradients_by_vmap(module), inputs.clone()
    changed[1] = 1 - changed[1]
    one, *moved = (every(given, labels[: len(given)]) for given in (inputs[:2], changed[:2], inputs[:1]))
    largest = max(float(g[0].abs().max()) for g in one.values())
    return max(float((one[name][0] - other[name][0]).abs().max()) for other in moved for name in one) / largest


def apart(case: Case, on: Placement) -> float:
    """How far the device's clipped sum is from the processor's in float32, of two patients."""
    sums, (inputs, labels) = [], case.drawn()
    for where in (on, PROCESSOR):
        steps = private_steps(case, where, SMALL_ENOUGH)
        sums.append(steps.noised_sum([0, 1], lambda chosen: (inputs[chosen], labels[chosen])))
    return float((sums[0] - sums[1]).abs().max() / sums[1].abs().max())


MODES: dict[str, Callable[[Case, Placement], Step]] = {
    "plain": plain,
    "private": private,
    "Opacus hooks": opacus(hooks),
    "Opacus ghost": opacus(ghost),
    "vmap, gradients alone": by_vmap,
}


def measured(case: Case, precision: str, device: torch.device, until: float, rounds: int = _ROUNDS) -> list[Measured]:
    """All modes of one network in one precision; as many rounds as there is time for, at least one."""
    on, steps, peaks, failures = Placement(device, PRECISIONS[precision]), {}, {}, {}
    for mode, make in MODES.items():
        try:
            steps[mode], peaks[mode] = _ready(make, case, on)
        except Exception as error:  # a mode that cannot run the network is a result
            failures[mode] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    seconds: dict[str, list[float]] = {mode: [] for mode in steps}
    for number in range(rounds):
        for mode, step in steps.items():
            if number == 0 or time.monotonic() < until:
                seconds[mode].append(_seconds(step, device))
    rows = []
    for mode in MODES:
        if mode in failures:
            rows.append(Measured(case.name, precision, mode, failure=failures[mode]))
            continue
        median = statistics.median(seconds[mode])
        base = statistics.median(seconds["plain"]) if "plain" in seconds else None
        rows.append(
            Measured(
                network=case.name,
                precision=precision,
                mode=mode,
                images_a_second=case.patients * case.images / median,
                against_plain=None if base is None else median / base,
                peak_mb=peaks[mode],
                apart=apart(case, on) if mode == "private" else None,
                others=others(case, on) if mode.startswith("vmap") else None,
            )
        )
    return rows


def _ready(make: Callable[[Case, Placement], Step], case: Case, on: Placement) -> tuple[Step, float | None]:
    """A step, taken once, and the memory that it took on the device beyond what lay there, in MiB."""
    before = _allocated(on.device)
    forget_peak(on.device)
    step = make(case, on)
    step()
    finished(on.device)
    peak = peak_bytes(on.device) if on.beside else None
    return step, None if peak is None or before is None else (peak - before) / _MEGABYTE


def _allocated(device: torch.device) -> int | None:
    told = getattr(torch.get_device_module(device), "memory_allocated", None)
    return None if told is None or device.type == "cpu" else int(told(device))


def _seconds(step: Step, device: torch.device) -> float:
    finished(device)
    started = time.perf_counter()
    step()
    finished(device)
    return time.perf_counter() - started


def encoded(device: torch.device, small: bool) -> list[Measured]:
    """Features of single images, as a cohort's are computed."""
    side, number = (32, 2) if small else (224, 64)
    size = (24, 1, 3) if small else (768, 12, 12)
    module, name = vit(*size, side), f"{'ViT, tiny' if small else 'ViT-B/16'}, {side} px, features"
    images = torch.rand(number, 1, 1, side, side, generator=torch.Generator().manual_seed(1))
    with_device = OnDevice(module, Placement(device), at_once=1)
    with_device(images[0])
    seconds = _seconds(lambda: [with_device(image) for image in images], device)
    with torch.no_grad():
        here = module(images[0])
    far = float((with_device(images[0]) - here).abs().max() / here.abs().max())
    return [Measured(name, "float32", "one at a time", number / seconds, apart=far)]


def show(rows: list[Measured], console: Console) -> None:
    """The table."""
    table = Table(title="Steps on a device")
    for column in ("network", "precision", "mode", "images/s", "x plain", "peak MiB", "apart", "others"):
        table.add_column(column, justify="left" if column in ("network", "precision", "mode") else "right")
    for row in rows:
        figures = (
            _shown(row.images_a_second, ".1f"),
            _shown(row.against_plain, ".2f"),
            _shown(row.peak_mb, ".0f"),
            _shown(row.apart, ".0e"),
            _shown(row.others, ".0e"),
        )
        table.add_row(row.network, row.precision, row.mode, *figures)
        if row.failure:
            table.add_row("", "", f"[red]{row.failure[:80]}[/red]")
    console.print(table)


def _shown(figure: float | None, form: str) -> str:
    return "-" if figure is None else format(figure, form)


def wrong(rows: list[Measured]) -> list[str]:
    """What a device must not do, a sentence each."""
    named = [f"{row.network}, {row.precision}, {row.mode}" for row in rows]
    ours = [(name, row) for name, row in zip(named, rows, strict=True) if row.mode in ("private", "one at a time")]
    far = [
        f"{name}: {row.apart:.0e} apart"
        for name, row in ours
        if row.apart is not None and not row.apart <= CLOSE[row.precision]
    ]
    return [*far, *(f"{name}: {row.failure}" for name, row in ours if row.failure)]


def main() -> int:
    """Measure, print, write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="tiny sizes")
    parser.add_argument("--out", type=Path, default=Path("device_check.json"))
    args = parser.parse_args()
    try:
        device = find(args.device)
    except NoSuchDevice as error:
        print(f"Nothing was measured: {error}.", file=sys.stderr)
        return 2
    started, rows, told = time.monotonic(), list[Measured](), list[str]()
    with telling(told.append):
        jobs = [(case, precision) for case in cases(args.small) for precision in PRECISIONS]
        for number, (case, precision) in enumerate(jobs, start=1):
            until = started + LIMIT_S * 0.8 * number / len(jobs)
            rows += measured(case, precision, device, until, rounds=1 if args.small else _ROUNDS)
        rows += encoded(device, args.small)
    show(rows, Console(width=140))
    problems = [*wrong(rows), *(f"the processor took over: {text}" for text in told)]
    facts = machine.facts() | {"device": name_of(device), "torch": torch.__version__}
    facts |= {"seconds": round(time.monotonic() - started)}
    args.out.write_text(json.dumps({"machine": facts, "rows": [asdict(row) for row in rows], "problems": problems}))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
