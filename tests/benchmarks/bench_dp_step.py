"""What patient-level privacy costs a training step, in time and memory, beside Opacus' two ways.

    python -m tests.benchmarks.bench_dp_step [--threads 1] [--patients 8] [--repeats 5] [--out FILE.json]

Every mode takes the same step: the given number of patients with four images each (or one), one update of all weights.
Opacus' unit is the image, so its modes get the same number of images, each clipped for itself; ours clips once a
patient. With one image each the units are the same. *plain* is one forward and backward pass over all images and SGD.
Noise is drawn in every private mode. Opacus' modes get the model with in-place activations switched off, because its
hooks fail on them; where they still fail the table says how.

Times are medians of runs in turn, each mode once a round, in one process; CPU time beside wall time, because on a
machine that others use the former moves less. Memory is measured in a process for each mode: the high-water mark of
resident memory (VmHWM in /proc, reset after model and images exist) minus what was resident at the reset.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from client.privacy import PatientSteps, StepTerms
from client.training.noise import entropy

Step = Callable[[], object]
_SGD = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
_MEGABYTE = 2**20


@dataclass(frozen=True)
class Measured:
    """One row of the table; ``failure`` instead of figures where a mode cannot run the model."""

    model: str
    mode: str
    images: int
    wall_ms: float | None = None
    wall_ratio: float | None = None
    cpu_ratio: float | None = None
    peak_mb: float | None = None
    failure: str = ""


def model_of(name: str) -> tuple[nn.Module, tuple[int, ...], tuple[int, ...]]:
    """A MONAI network, the shape of an image and the shape of its label."""
    from monai.networks.nets.densenet import DenseNet121
    from monai.networks.nets.segresnet import SegResNet
    from monai.networks.nets.unet import UNet

    torch.manual_seed(0)
    if name == "densenet121":
        norm = ("group", {"num_groups": 8})
        return DenseNet121(spatial_dims=2, in_channels=1, out_channels=1, norm=norm), (1, 96, 96), (1,)
    if name == "segresnet":
        return SegResNet(spatial_dims=2, in_channels=1, out_channels=1), (1, 96, 96), (1, 96, 96)
    channels, norm = (16, 32, 64, 128), ("instance", {"affine": True})
    unet = UNet(3, 1, 1, channels=channels, strides=(2, 2, 2), num_res_units=2, norm=norm)
    return unet, (1, 32, 32, 32), (1, 32, 32, 32)


MODELS = ("densenet121", "segresnet", "unet3d")


class _PerImageLoss:
    """Mean cross-entropy of each image, in the form that Opacus' ghost clipping asks for."""

    reduction = "mean"

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        each = binary_cross_entropy_with_logits(outputs, labels, reduction="none").flatten(start_dim=1).mean(dim=1)
        return each if self.reduction == "none" else each.mean()


def plain(module: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    sgd = _SGD(list(module.parameters()))
    images, targets = inputs.flatten(0, 1), labels.flatten(0, 1)

    def step() -> None:
        sgd.zero_grad()
        binary_cross_entropy_with_logits(module(images), targets).backward()
        sgd.step()

    return step


def ours(module: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    """The hospital's own engine."""
    terms = StepTerms(1.0, 1.0, len(inputs), max_memory_mb=4096)
    steps = PatientSteps(module, binary_cross_entropy_with_logits, _SGD, terms, entropy())
    steps.prepare(torch.zeros_like(inputs[:1]), torch.zeros_like(labels[:1]))
    return lambda: steps.step(list(range(len(inputs))), lambda chosen: (inputs[chosen], labels[chosen]))


def _without_inplace(module: nn.Module) -> nn.Module:
    for layer in module.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]
    return module


def hooks(module: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    images, targets = inputs.flatten(0, 1), labels.flatten(0, 1)
    wrapped = GradSampleModule(_without_inplace(module))
    sgd = _SGD(list(wrapped.parameters()))
    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(images))

    def step() -> None:
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(wrapped(images), targets).backward()
        optimizer.step()

    return step


def ghost(module: nn.Module, inputs: Tensor, labels: Tensor) -> Step:
    images, targets = inputs.flatten(0, 1), labels.flatten(0, 1)
    wrapped = GradSampleModuleFastGradientClipping(_without_inplace(module), max_grad_norm=1.0, use_ghost_clipping=True)
    optimizer = DPOptimizerFastGradientClipping(
        _SGD(list(wrapped.parameters())), noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=len(images)
    )
    criterion = DPLossFastGradientClipping(wrapped, optimizer, _PerImageLoss())

    def step() -> None:
        optimizer.zero_grad()
        criterion(wrapped(images), targets).backward()
        optimizer.step()

    return step


MODES: dict[str, tuple[Callable[[nn.Module, Tensor, Tensor], Step], int]] = {
    "plain": (plain, 4),
    "ours": (ours, 4),
    "Opacus hooks": (hooks, 4),
    "Opacus ghost": (ghost, 4),
    "plain, one image each": (plain, 1),
    "ours, one image each": (ours, 1),
    "Opacus hooks, one image each": (hooks, 1),
    "Opacus ghost, one image each": (ghost, 1),
}
_BASE = {4: "plain", 1: "plain, one image each"}


def step_of(model: str, mode: str, patients: int) -> Step:
    make, images = MODES[mode]
    module, image, label = model_of(model)
    inputs = torch.rand(patients, images, *image)
    labels = torch.randint(0, 2, (patients, images, *label)).float()
    return make(module.train(), inputs, labels)


def peak_mb(model: str, mode: str, patients: int) -> float:
    """How far two steps raise this process's resident memory, in MiB. Linux only."""
    step = step_of(model, mode, patients)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    step()
    step()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak_in_child(model: str, mode: str, args: argparse.Namespace) -> float:
    call = [sys.executable, "-m", "tests.benchmarks.bench_dp_step", "--threads", str(args.threads)]
    call += ["--patients", str(args.patients), "--peak", model, mode]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(model: str, args: argparse.Namespace) -> list[Measured]:
    steps: dict[str, Step] = {}
    failures: dict[str, str] = {}
    for mode in MODES:
        try:
            steps[mode] = step_of(model, mode, args.patients)
            steps[mode]()
        except Exception as error:  # a mode that cannot run the model is a result
            steps.pop(mode, None)
            failures[mode] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    wall: dict[str, list[float]] = {mode: [] for mode in steps}
    cpu: dict[str, list[float]] = {mode: [] for mode in steps}
    for _ in range(args.repeats):
        for mode, step in steps.items():
            started, used = time.perf_counter(), time.process_time()
            step()
            wall[mode].append(time.perf_counter() - started)
            cpu[mode].append(time.process_time() - used)
    return [_row(model, mode, wall, cpu, failures, args) for mode in MODES]


def _row(
    model: str,
    mode: str,
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    failures: dict[str, str],
    args: argparse.Namespace,
) -> Measured:
    images = MODES[mode][1]
    if mode in failures:
        return Measured(model, mode, images * args.patients, failure=failures[mode])
    base = _BASE[images]
    wall_ratio, cpu_ratio = (statistics.median(t[mode]) / statistics.median(t[base]) for t in (wall, cpu))
    peak = peak_in_child(model, mode, args)
    milliseconds = statistics.median(wall[mode]) * 1e3
    return Measured(model, mode, images * args.patients, milliseconds, wall_ratio, cpu_ratio, peak)


def show(rows: list[Measured], console: Console) -> None:
    table = Table(title="A private step against a plain one")
    for name in ("model", "mode", "images", "ms", "x plain, wall", "x plain, CPU", "peak MiB"):
        table.add_column(name, justify="left" if name in ("model", "mode") else "right")
    for row in rows:
        figures = (row.wall_ms, row.wall_ratio, row.cpu_ratio, row.peak_mb)
        shown = [
            "-" if f is None else f"{f:.0f}" if f is figures[0] or f is figures[3] else f"{f:.2f}" for f in figures
        ]
        table.add_row(row.model, row.mode, str(row.images), *shown)
        if row.failure:
            table.add_row("", f"[red]{row.failure[:90]}[/red]")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench_dp_step.json"))
    parser.add_argument("--peak", nargs=2, metavar=("MODEL", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        model, mode = args.peak
        print(peak_mb(model, mode, args.patients))
        return
    rows = [row for model in args.models for row in measure(model, args)]
    show(rows, Console(width=120))
    conditions = {
        "threads": args.threads,
        "patients": args.patients,
        "repeats": args.repeats,
        "torch": torch.__version__,
    }
    args.out.write_text(json.dumps({"conditions": conditions, "rows": [asdict(r) for r in rows]}))


if __name__ == "__main__":
    main()
