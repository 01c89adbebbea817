"""Train an encoder of our own, without any patient: `python -m tests.benchmarks.train_encoder own.safetensors`

A small ResNet (0.3 million values, 128 features of 96 x 96 pixels) learns on phantoms of five tasks and on pictures of
random processes (dead leaves and coloured noise; M. Baradad et al., NeurIPS 2021, X. Tang et al., Differentially
private image classification by learning priors from random processes, NeurIPS 2023): two views of one picture are to
have like features, views of others unlike ones (T. Chen et al., A simple framework for contrastive learning, ICML
2020), and a phantom's features are to tell what its label says. On one core it takes half an hour.
`python -m tests.benchmarks.search_heads experiment=busi data_root=FOLDER model=encoder model.weights=own.safetensors`
says what it is worth on real images; ``conf/experiment/README.md`` has the figures.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate, normalize

from conf import load
from tasks.models.encoders import random_images
from tests.benchmarks import linear_rounds
from tests.benchmarks.train_outliner import changed

PHANTOMS = ("demo", "lung_phantoms", "chest_phantoms", "pneumonia_phantoms", "heart_phantoms")
SIDE, WIDTHS, BATCH, SEED, RANDOM = 96, (16, 32, 64, 128), 48, 5150, 3000
_RATE, _WARM_UP, _TEMPERATURE, _WIDE = 2e-3, 100, 0.2, 64


class Block(nn.Module):
    """K. He et al., CVPR 2016, with the names of torchvision."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample = nn.Sequential()
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, maps: Tensor) -> Tensor:
        """Shape (images, after, rows / stride, columns / stride)."""
        inner = torch.relu(self.bn1(self.conv1(maps)))
        return torch.relu(self.bn2(self.conv2(inner)) + self.downsample(maps))


class Encoder(nn.Module):
    """Features of grey images, shape (images, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, WIDTHS[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.pool = nn.MaxPool2d(3, 2, 1)
        before = WIDTHS[0]
        for number, width in enumerate(WIDTHS, start=1):
            self.add_module(f"layer{number}", nn.Sequential(Block(before, width, 1 if number == 1 else 2)))
            before = width

    def forward(self, images: Tensor) -> Tensor:
        """Of images in [0, 1], shape (images, 1, rows, columns)."""
        maps = self.pool(torch.relu(self.bn1(self.conv1((images - 0.5) / 0.25))))
        for number in range(1, len(WIDTHS) + 1):
            maps = self.get_submodule(f"layer{number}")(maps)
        features: Tensor = maps.mean(dim=(2, 3))
        return features


def phantoms(folder: Path) -> tuple[Tensor, Tensor]:
    """Images of ``SIDE``, and what their tasks ask, NaN in the columns of other tasks: (images, tasks)."""
    images, labels = [], []
    for number, experiment in enumerate(PHANTOMS):
        words = [f"experiment={experiment}", "model=resnet18", "tracking=none", "evaluation.arms=[]", f"seed={SEED}"]
        study = load.load([*words, f"output_dir={folder}"])
        for hospital in linear_rounds.hospitals(study, folder / experiment):
            for cohort in (hospital.train, hospital.validation):
                images.append(_sized(cohort.inputs[:, :1]))
                asked = torch.full((len(cohort.inputs), len(PHANTOMS)), math.nan)
                asked[:, number] = cohort.targets[:, 0]
                labels.append(asked)
    return torch.cat(images), torch.cat(labels)


def _sized(images: Tensor) -> Tensor:
    sized = interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)
    low, high = sized.amin(dim=(1, 2, 3), keepdim=True), sized.amax(dim=(1, 2, 3), keepdim=True)
    return (sized - low) / (high - low).clamp(min=1e-6)


def loss_of(first: Tensor, second: Tensor) -> Tensor:
    """NT-Xent: of two views' features, shape (pictures, values), each is to find the other one."""
    both = normalize(torch.cat([first, second]), dim=1)
    likeness = both @ both.T / _TEMPERATURE
    likeness.fill_diagonal_(-math.inf)
    number = len(first)
    return cross_entropy(likeness, (torch.arange(2 * number) + number) % (2 * number))


def told(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the labels that are known."""
    known = ~torch.isnan(labels)
    each = binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (each * known).sum() / known.sum().clamp(min=1)


def train(images: Tensor, labels: Tensor, seconds: float) -> Encoder:
    """A new encoder, after so many seconds of processor; AdamW with a cosine schedule of what time is left."""
    torch.manual_seed(SEED)
    encoder, draw = Encoder(), torch.Generator().manual_seed(SEED)
    projection = nn.Sequential(nn.Linear(WIDTHS[-1], WIDTHS[-1]), nn.ReLU(), nn.Linear(WIDTHS[-1], _WIDE))
    asked = nn.Linear(WIDTHS[-1], len(PHANTOMS))
    trained = [*encoder.parameters(), *projection.parameters(), *asked.parameters()]
    optimizer = torch.optim.AdamW(trained, _RATE, weight_decay=1e-3)
    begun, losses, step = time.process_time(), [], 0
    while (share := (time.process_time() - begun) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        chosen = torch.randint(0, len(images), (BATCH,), generator=draw)
        views = torch.cat([_seen(images[chosen], draw), _seen(images[chosen], draw)])
        features = encoder(views)
        projected = projection(features)
        loss = loss_of(projected[:BATCH], projected[BATCH:]) + told(asked(features), labels[chosen].repeat(2, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        step += 1
        if step % 100 == 0:
            print(f"{step} steps, {share:.0%} of the time, loss {np.mean(losses[-100:]):.3f}", flush=True)
    return encoder.eval()


def _seen(images: Tensor, draw: torch.Generator) -> Tensor:
    return changed(images, torch.zeros_like(images), draw)[0]


def content_of(encoder: Encoder) -> bytes:
    """A safetensors file in torchvision's layout."""
    kept: Iterable[tuple[str, Tensor]] = encoder.state_dict().items()
    return save({name: value.contiguous() for name, value in kept if not name.endswith("num_batches_tracked")})


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of processor")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = phantoms(Path(folder))
    nothing = _sized(random_images.drawn(RANDOM, (SIDE, SIDE), seed=SEED))
    print(f"{len(images)} images of phantoms, {len(nothing)} of random processes", flush=True)
    labels = torch.cat([labels, torch.full((len(nothing), len(PHANTOMS)), math.nan)])
    encoder = train(torch.cat([images, nothing]), labels, asked.seconds)
    asked.file.write_bytes(content_of(encoder))
    print(f"wrote {asked.file}: consilium encoder {asked.file} --side {SIDE} --mean 0.5 --std 0.25")


if __name__ == "__main__":
    main()
