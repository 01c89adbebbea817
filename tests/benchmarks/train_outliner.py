"""Train the outliner of breast lesions on phantoms: `python -m tests.benchmarks.train_outliner breast.safetensors`

Phantoms of forty scanners and settings, a quarter of them without a lesion; random size, place, contrast, shadows, blur
and noise make them unlike each other, so that what is learned is what a lesion is and not what a phantom is. Nothing of
a patient is looked at. On one core it takes a quarter of an hour.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    binary_cross_entropy_with_logits,
    grid_sample,
    interpolate,
    pad,
)

from tasks import task as tasks
from tasks.models.outliner import Outliner
from tasks.phantoms.breast_ultrasound.lesion import lesion_of, seen_again
from tasks.phantoms.breast_ultrasound.phantom import image_of
from tasks.phantoms.breast_ultrasound.scanner import scanner_of
from tasks.task import PhantomHospital, Picture

PHANTOMS, SCANNERS, WITHOUT, BATCH, SEED = 1800, 40, 4, 16, 5150
_RATE, _WARM_UP, _LEAST_RATE = 2e-3, 100, 0.01
Images = NDArray[np.float32]
Masks = NDArray[np.bool_]


def drawn(number: int) -> tuple[Images, Masks]:
    """Phantoms as hospitals would prepare them, and their lesions: (number, rows, columns)."""
    task, rng = tasks.get("breast_ultrasound"), np.random.default_rng(SEED)
    assert task.read_masks is not None
    images, masks = [], []
    for n in range(number):
        gain, frequency = float(rng.uniform(0.6, 1.5)), float(rng.uniform(7, 14))
        scanner = scanner_of(PhantomHospital(f"h{n % SCANNERS}", 1, 0.5, gain=gain, frequency_mhz=frequency))
        lesion = seen_again(lesion_of(rng, bool(rng.random() < 0.5)), rng)
        layers = float(rng.uniform(0.12, 0.3)), float(rng.uniform(0.6, 0.8))
        grey, outline = image_of(scanner, lesion, layers, rng, shown=n % WITHOUT > 0)
        picture = Picture(grey.astype(np.float32) / np.float32(255), masks=outline[None])
        images.append(task.read_example(picture)[0])
        masks.append(task.read_masks(picture)[0])
    return np.stack(images).astype(np.float32), np.stack(masks)


def changed(images: Tensor, masks: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random views of phantoms (images, 1, rows, columns) and of their lesions."""
    number = len(images)
    wide = torch.exp(_between(number, math.log(0.45), math.log(1.4), draw))
    high, turned = wide * torch.exp(_between(number, -0.3, 0.3, draw)), _between(number, -0.2, 0.2, draw)
    mirrored = torch.where(_between(number, 0, 1, draw) < 0.5, -1.0, 1.0)
    rows = [turned.cos() / wide * mirrored, -turned.sin() / wide, _between(number, -0.5, 0.5, draw)]
    columns = [turned.sin() / high * mirrored, turned.cos() / high, _between(number, -0.4, 0.4, draw)]
    way = torch.stack([torch.cat(each, dim=1).reshape(number, 3) for each in (rows, columns)], dim=1)
    grid = affine_grid(way, list(images.shape), align_corners=False)
    both = grid_sample(torch.cat([images, masks], dim=1), grid, padding_mode="reflection", align_corners=False)
    seen, frame = _look(both[:, :1], draw)
    return seen, (both[:, 1:] * frame > 0.5).float()


def _look(images: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Other contrast, brightness that wanders, speckle, blur, a shadow from below, black above and below."""
    number, size = len(images), (images.shape[-2], images.shape[-1])
    seen = images.clamp(0, 1) ** torch.exp(_between(number, -0.7, 0.9, draw))
    seen = seen * torch.exp(_between(number, 0.06, 0.3, draw) * _smooth(number, size, 4, draw))
    seen = seen * torch.exp(_between(number, 0, 0.35, draw) * _smooth(number, size, 12, draw))
    seen = seen + _between(number, 0, 0.12, draw) * _smooth(number, size, 32, draw)
    seen = seen + _between(number, 0, 0.06, draw) * torch.randn(images.shape, generator=draw)
    blur = int(torch.randint(0, 3, (1,), generator=draw))
    if blur:
        seen = avg_pool2d(pad(seen, (blur,) * 4, mode="reflect"), 2 * blur + 1, 1)
    depth = torch.linspace(0, 1, size[0]).view(1, 1, -1, 1)
    shadowed = (_between(number, 0, 1, draw) < 0.4).float() * _between(number, 0, 0.9, draw)
    seen = seen * (
        1 - shadowed * torch.sigmoid((depth - _between(number, 0.4, 0.95, draw)) * _between(number, 5, 30, draw))
    )
    seen = (seen * _between(number, 0.6, 1.4, draw) + _between(number, -0.1, 0.1, draw)).clamp(0, 1)
    inside = (depth >= _between(number, 0, 0.15, draw)) & (depth <= 1 - _between(number, 0, 0.15, draw))
    frame = torch.where(_between(number, 0, 1, draw) < 0.7, inside.float(), torch.ones_like(depth))
    return seen * frame, frame


def _between(number: int, low: float, high: float, draw: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(number, 1, 1, 1, generator=draw)


def _smooth(number: int, size: tuple[int, int], cells: int, draw: torch.Generator) -> Tensor:
    coarse = torch.randn(number, 1, cells, cells, generator=draw)
    return interpolate(coarse, size=size, mode="bicubic", align_corners=False)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of every place, and soft Dice."""
    truth = avg_pool2d(masks, masks.shape[-1] // logits.shape[-1])
    said = logits.sigmoid()
    dice = (2 * (said * truth).sum((1, 2, 3)) + 1) / ((said + truth).sum((1, 2, 3)) + 1)
    return binary_cross_entropy_with_logits(logits, truth) + (1 - dice).mean()


def train(images: Images, masks: Masks, steps: int) -> Outliner:
    """A new outliner; AdamW with a cosine schedule."""
    torch.manual_seed(SEED)
    network, draw, rng = Outliner(), torch.Generator().manual_seed(SEED), np.random.default_rng(SEED)
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=1e-3)
    begun, losses = time.process_time(), []
    for step in range(steps):
        rate = _RATE * min(1.0, (step + 1) / _WARM_UP)
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps)) + _LEAST_RATE
        for group in optimizer.param_groups:
            group["lr"] = rate
        chosen = rng.integers(0, len(images), BATCH)
        shown = [torch.from_numpy(part[chosen].astype(np.float32))[:, None] for part in (images, masks)]
        seen, truth = changed(shown[0], shown[1], draw)
        loss = loss_of(network(seen), truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0:
            print(
                f"{step + 1} steps, {time.process_time() - begun:.0f} s, loss {np.mean(losses[-50:]):.3f}", flush=True
            )
    return network


def main() -> None:
    """Draw, train, write the file in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--phantoms", type=int, default=PHANTOMS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    network = train(*drawn(asked.phantoms), asked.steps)
    told = {"made by": f"tests/benchmarks/train_outliner.py, {asked.steps} steps on {asked.phantoms} breast phantoms"}
    halves = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    asked.file.write_bytes(save(halves, told))


if __name__ == "__main__":
    main()
