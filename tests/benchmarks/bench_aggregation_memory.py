"""Peak memory of combining a round, by strategy and number of hospitals.

`python -m tests.benchmarks.bench_aggregation_memory`. Arrays of the shapes of DenseNet121; each measurement is a
process of its own (Linux). What is counted are the arrays of a round from the old model to the new one, as tracemalloc
sees them: the model, the strategy's memory, each reply while it is folded in, and whatever the strategy allocates; and
beside it the growth of the process's resident memory. The wire's copies are not in it.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from rich.console import Console
from rich.table import Table

from conf.schema.strategy import FedAdam, FedAvg, FedAvgM, GeometricMedian, Median, NormBounding, StrategySettings
from server.strategy import scaffold
from server.strategy.fedavg import mean_combiner
from server.strategy.registry import build
from server.strategy.strategy import Strategy
from server.strategy.weighting import uniform
from tasks.input_spec import InputSpec
from tasks.protocol.wire import Arrays

STOCK = "Flower's mean"
STREAMING = ("fedavg", "fedavgm", "fedadam", "scaffold", "norm_bounding")
HOSPITALS = (4, 16, 64, 256)
HOLDING = {"median": (4, 16, 64), "geometric_median": (4, 16), STOCK: (4, 16, 64)}

Shapes = dict[str, list[int]]


def strategy_of(name: str) -> Strategy:
    """The strategy by name; SCAFFOLD's hospitals' half is not needed to combine."""
    if name == "scaffold":
        step = lambda w, m, u, s: scaffold.scaffold_step(w, m, u, s, server_learning_rate=1.0, local_move=0.5)  # noqa: E731
        return Strategy(mean_combiner, step, uniform, scaffold.scaffold_start)
    settings: dict[str, StrategySettings] = {
        "fedavg": FedAvg(),
        "fedavgm": FedAvgM(),
        "fedadam": FedAdam(),
        "norm_bounding": NormBounding(),
        "median": Median(memory_limit_gb=64),
        "geometric_median": GeometricMedian(memory_limit_gb=64),
    }
    return build(settings[name])


def measure(name: str, hospitals: int, shapes: Shapes) -> dict[str, float]:
    """Play one round in this process.

    Returns:
        Bytes at the peak while replies come in, and over the whole round; seconds; growth of the process in bytes.
    """
    rng = np.random.default_rng(1)
    sent = {key: rng.normal(size=shape).astype(np.float32) * 1e-3 for key, shape in shapes.items()}
    gc.collect()
    resident = forget_peak()
    tracemalloc.start()
    started = time.perf_counter()
    folding = stock_round(sent, hospitals) if name == STOCK else round_of(strategy_of(name), sent, hospitals)
    seconds = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    grown = memory_of_process("VmHWM") - resident
    return {"folding": max(folding, 0), "peak": peak, "seconds": seconds, "grown": grown}


def forget_peak() -> int:
    """Make what is resident now the process's peak; gives it in bytes."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5)
    return memory_of_process("VmHWM")


def memory_of_process(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def round_of(strategy: Strategy, sent: Arrays, hospitals: int) -> int:
    """A round as ``server/rounds/round.py`` plays it; gives the peak before the replies are combined."""
    weights = {key: np.zeros_like(value) for key, value in sent.items()}
    memory = strategy.start(weights)
    combiner = strategy.combiner(weights, hospitals)
    for hospital in range(hospitals):
        reply = {key: value.copy() for key, value in sent.items()}
        combiner.add(str(hospital), reply, strategy.weight(100, None))
        del reply
    folding = tracemalloc.get_traced_memory()[1]
    strategy.step(weights, memory, combiner.combined(), 1.0)
    return folding


def stock_round(sent: Arrays, hospitals: int) -> int:
    """What flwr.serverapp.strategy.FedAvg does with the same replies: all are in memory, then they are averaged."""
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord({key: Array(value) for key, value in sent.items()}),
                "metrics": MetricRecord({"num-examples": 100}),
            }
        )
        for _ in range(hospitals)
    ]
    folding = tracemalloc.get_traced_memory()[1]
    aggregate_arrayrecords(records, "num-examples")
    return folding


def densenet_shapes() -> Shapes:
    """Names and shapes of the trainable tensors of DenseNet121 for the smallest task image."""
    from tasks.models import registry

    network = registry.build({"name": "densenet121", "groups": 8}, InputSpec((1, 64, 64)), 1)
    return {key: list(value.shape) for key, value in registry.arrays_of(network.trainable).items()}


def in_a_process_of_its_own(name: str, hospitals: int, shapes: Shapes) -> dict[str, float]:
    """``measure`` in a child."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_aggregation_memory", "--measure", name, str(hospitals)]
    done = subprocess.run(command, input=json.dumps(shapes), capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def report(console: Console, output: Path) -> None:
    """Measure everything, print the table, write the numbers."""
    shapes = densenet_shapes()
    model = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    table = Table(title=f"Peak memory of a round in models of {model / 1e6:.1f} MB ({len(shapes)} tensors, float32)")
    for heading in ("strategy", "hospitals", "while replies come", "whole round", "process grew by", "seconds"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right")
    found: list[dict[str, float | str]] = []
    for name, counts in {**dict.fromkeys(STREAMING, HOSPITALS), **HOLDING}.items():
        for hospitals in counts:
            row = in_a_process_of_its_own(name, hospitals, shapes)
            found.append({"strategy": name, "hospitals": hospitals, **row})
            in_models = (f"{row[key] / model:.2f}" for key in ("folding", "peak", "grown"))
            table.add_row(name, str(hospitals), *in_models, f"{row['seconds']:.1f}")
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    machine = {"platform": platform.platform(), "python": platform.python_version(), "numpy": np.__version__}
    output.write_text(json.dumps({"machine": machine, "model_bytes": model, "rows": found}, indent=1))
    console.print(f"numbers: {output}")


def main() -> None:
    """Measure one combination, or all of them in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/aggregation_memory.json"))
    parser.add_argument(
        "--measure", nargs=2, metavar=("STRATEGY", "HOSPITALS"), help="shapes as JSON on standard input"
    )
    arguments = parser.parse_args()
    if arguments.measure:
        name, hospitals = arguments.measure
        print(json.dumps(measure(name, int(hospitals), json.load(sys.stdin))))
    else:
        report(Console(width=120), arguments.output)


if __name__ == "__main__":
    main()
