"""What a round of DenseNet121 weighs on the wire, beside stock Flower: `python -m tests.benchmarks.bench_wire`.

Real messages, serialised by Flower's own wire format: of ours an order and a report, of Flower's what its ``FedAvg``
sends and takes back for a DenseNet121 with batch normalisation (a state dict in float32 and one metric). A round trains
and evaluates: Flower's sends the model twice; ours sends its change to evaluate, and its digest to train in the next
round. Our updates are once noise throughout, as under privacy, and once real gradients of a few steps without noise.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from monai.networks.nets.densenet import DenseNet121
from rich.console import Console
from rich.table import Table

from client.cohort.dataset import Cohort
from client.ledger.accounting import Mechanism
from client.training.noise import entropy
from client.training.train import train_locally
from conf import load
from server.rounds.broadcast import Broadcast
from server.runtime.flower_private import claim_identity, deflate
from server.study.document import document_of
from tasks import task as tasks
from tasks.input_spec import InputSpec
from tasks.models import registry
from tasks.protocol import encoding, wire
from tasks.protocol.study import Encoding, StudyDocument, TrainingTerms
from tasks.protocol.wire import Arrays, EvaluateOrder, TrainOrder, TrainReport
from tests.benchmarks import machine

_MB = 1e6
_SIDE = 32


def weight(content: RecordDict) -> int:
    """Bytes of a message as Flower serialises it, all its objects together."""
    _, objects = deflate(Message(content, 1, "train"))
    return sum(len(part) for part in objects.values())


def stock() -> dict[str, int]:
    """Bytes of a round of stock Flower, down and up: train and evaluate."""
    model = DenseNet121(spatial_dims=2, in_channels=1, out_channels=1)
    arrays, metric = ArrayRecord(model.state_dict()), MetricRecord({"num-examples": 40, "loss": 0.5})
    order = weight(RecordDict({"arrays": arrays}))
    return {"down": 2 * order, "up": weight(RecordDict({"arrays": arrays, "metrics": metric})), "order": order}


def real_update(weights: Arrays) -> Arrays:
    """What a few steps on random images without noise change."""
    network = registry.build({"name": "densenet121", "groups": 8}, InputSpec((1, _SIDE, _SIDE)), 1)
    inputs, labels = torch.randn(8, 1, _SIDE, _SIDE), torch.tensor([[0.0], [1.0]] * 4)
    cohort = Cohort(inputs, labels, list(torch.arange(8).view(-1, 1)))
    terms = TrainingTerms(3, 0.05, 0.0, 0.0, 1.0, 1)
    task = tasks.get("pneumonia_xray")
    return train_locally(
        network.trainable,
        task,
        cohort,
        terms,
        mechanism=Mechanism(0.0, 1.0, 3),
        clip_norm=1.0,
        public_size=8,
        generator=entropy(),
    )


def noise(weights: Arrays) -> Arrays:
    """An update under privacy is this nearly throughout."""
    rng = np.random.default_rng(1)
    return {name: rng.normal(scale=1e-3, size=value.shape).astype(np.float32) for name, value in weights.items()}


def ours(document: StudyDocument, weights: Arrays, update: Arrays, form: Encoding) -> dict[str, float]:
    """Bytes of a later round, down and up, and the seconds of making and restoring each form once."""
    broadcast = Broadcast(form)
    broadcast.confirmed("h", EvaluateOrder(document, 1, weights))
    started = time.perf_counter()
    told, _ = broadcast.rounded(weights, {name: weights[name] + update[name] for name in weights}, {})
    making = time.perf_counter() - started
    scored = weight(broadcast.contents(EvaluateOrder(document, 2, told), ["h"])["h"])
    if broadcast.sends_changes:
        broadcast.confirmed("h", EvaluateOrder(document, 2, told))
    trained = weight(broadcast.contents(TrainOrder(document, 3, told), ["h"])["h"])
    coded = encoding.shrink(update, form, encoding.stochastic(np.random.default_rng()))
    started = time.perf_counter()
    encoding.restore(coded, form, weights)
    restoring = time.perf_counter() - started
    up = weight(wire.encode(TrainReport(document.name, 2, 1.0, 1e-4, 1.5, "b" * 64, coded)))
    return {"down": scored + trained, "up": up, "making": making, "restoring": restoring}


def report(console: Console, output: Path) -> None:
    """Measure, print the table, write the numbers."""
    claim_identity()
    study = load.load(["model=densenet121"])
    document = document_of(study, "bench-1", {"h": 200})
    model = registry.build(asdict(study.model), tasks.get(study.task.name).form, 1)
    weights = registry.arrays_of(model.trainable)
    base = stock()
    rows: dict[str, dict[str, float]] = {"stock Flower, float32": {key: float(value) for key, value in base.items()}}
    updates = {"noise": noise(weights), "real gradients": real_update(weights)}
    forms: tuple[Encoding, ...] = ("float32", "float16", "int8")
    for form in forms:
        for name, update in updates.items():
            terms = replace(document, wire=replace(document.wire, up=form, down=form))
            rows[f"{form}, {name}"] = ours(terms, weights, update, form)
    table = Table(
        title=f"DenseNet121, {sum(v.size for v in weights.values()):,} values: a round that trains and evaluates"
    )
    for heading in ("", "MB down", "of stock", "of one model", "MB up", "of stock", "s to round", "s to restore"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, row in rows.items():
        ratios = (f"{row['down'] / base['down']:.3f}", f"{row['down'] / base['order']:.3f}")
        times = (f"{row['making']:.2f}", f"{row['restoring']:.2f}") if "making" in row else ("", "")
        up = (f"{row['up'] / _MB:.2f}", f"{row['up'] / base['up']:.3f}")
        table.add_row(name, f"{row['down'] / _MB:.2f}", *ratios, *up, *times)
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    console.print(f"numbers: {output}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/wire.json"))
    report(Console(width=120), parser.parse_args().output)


if __name__ == "__main__":
    main()
