"""Eight hospitals on one machine: time to the end of the first round and of a later one, beside Flower's simulation.

`python -m tests.benchmarks.bench_federation`. Every runtime is a process of its own and trains a linear model of 20
features for some rounds. Ours goes the whole way of a real study: site.yaml, policy, approval, ledger, audit log,
patient-level privacy at epsilon 8, checkpoint. Flower's (``run_simulation`` on Ray, without privacy or books) only
trains. Nothing is evaluated before the last round. What is left of a later round when the training itself is taken away
is the runtime's overhead; it is measured where hospitals are played in this process. Memory is the resident memory of
all processes of the runtime, pages that they share counted in each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from tests.benchmarks import machine

HOSPITALS, ROUNDS = 8, 8
RUNTIMES = ("consilium, one process", "consilium, two workers", "flower on ray")
_FEATURES = 20
P = ParamSpec("P")
T = TypeVar("T")


def consilium(workers: int) -> list[float]:
    """Play a study with real hospitals; when each round had ended, in seconds from the start of the runtime."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import client.app
    from client.training.train import train_locally
    from conf.load import load
    from server.__main__ import client_app, provision_hospitals
    from server.rounds.checkpoint import write_state
    from server.rounds.round import run_rounds
    from server.rounds.state import Roster, StudyState
    from server.runtime.local_grid import LocalGrid
    from server.study.document import document_of, open_study
    from tasks import task as tasks
    from tasks.models import registry

    with tempfile.TemporaryDirectory() as home:
        hospitals = ",".join(f"h{n}:{{patients:40,images_per_patient:[1,1]}}" for n in range(HOSPITALS))
        study = load(
            [
                "experiment=demo",
                "task=pneumonia_xray",
                f"+federation.hospitals={{{hospitals}}}",
                "~federation.hospitals.alder",
                "~federation.hospitals.birch",
                "~federation.hospitals.cedar",
                f"federation.rounds={ROUNDS}",
                f"evaluation.every={ROUNDS}",
                "training.steps=1",
                "model={name:scatter_linear,resolution:0,J:2,L:2,pool:1}",
                "tracking=none",
                f"output_dir={home}",
            ]
        )
        folder = open_study(study)
        simulated = provision_hospitals(study, folder.path, lambda label, done, total: None)
        sites, sizes = simulated.federated, simulated.public_sizes
        model = registry.build(dict(vars(study.model)), tasks.get(study.task.name).form, 1)
        os.sync()  # what the phantoms have written is no part of a round, but every commit of a ledger waits for it
        ends: list[float] = []
        started = time.perf_counter()

        def publish(state: StudyState) -> None:
            write_state(folder.path / "federated", state)
            ends.append(time.perf_counter() - started)
            _trained.append(0.0)
            processor.append(time.process_time())

        watched = patch.object(client.app, "train_locally", timed(train_locally))
        with watched, LocalGrid(sites, client_app, workers) as grid:
            roster = Roster(document_of(study, folder.name, sizes), grid.nodes)
            run_rounds(study, roster, grid, StudyState(registry.arrays_of(model.trainable)), publish)
            note_memory()
        return ends


processor: list[float] = []
"""Seconds of processor that this process had taken when each round of ours had ended: without waiting for the disk."""

_trained = [0.0]
"""Seconds that hospitals in this process have spent on training, by round."""


def timed(train: Callable[P, T]) -> Callable[P, T]:
    """The same, and its seconds are counted."""

    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        started = time.perf_counter()
        try:
            return train(*args, **kwargs)
        finally:
            _trained[-1] += time.perf_counter() - started

    return watched


def flower() -> list[float]:
    """The same number of hospitals, features and rounds in Flower's simulation, with one Ray actor a core."""
    import torch
    from flwr.app import ArrayRecord, ConfigRecordValues, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()
    ends: list[float] = []
    started = time.perf_counter()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        model = torch.nn.Linear(_FEATURES, 1)
        model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
        inputs, labels = torch.randn(40, _FEATURES), torch.randint(0, 2, (40, 1)).float()
        torch.nn.functional.binary_cross_entropy_with_logits(model(inputs), labels).backward()
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        metrics = MetricRecord({"num-examples": 40})
        content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
        return Message(content, reply_to=message)

    def ended(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        if server_round:
            ends.append(time.perf_counter() - started)
            note_memory()
        return MetricRecord({})

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        initial = ArrayRecord(torch.nn.Linear(_FEATURES, 1).state_dict())
        strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=HOSPITALS)
        strategy.start(grid, initial, num_rounds=ROUNDS, evaluate_fn=ended)

    resources: dict[str, dict[str, ConfigRecordValues]] = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, client, num_supernodes=HOSPITALS, backend_config=resources)
    return ends


_memory = 0.0


def note_memory() -> None:
    """Keep the largest resident memory of this process and its descendants so far, in MB (Linux)."""
    global _memory
    own = _tree(os.getpid())
    pages = sum(_resident_pages(pid) for pid in own)
    _memory = max(_memory, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _tree(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0


def in_a_process_of_its_own(runtime: str) -> dict[str, float]:
    """``--measure`` in a child: seconds to the end of round 1, median of later rounds, memory in MB, whole process."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_federation", "--measure", runtime]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | quiet)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures | {"process": time.perf_counter() - started}


def report(console: Console, output: Path) -> None:
    """Measure every runtime, print the table, write the numbers."""
    table = Table(title=f"{HOSPITALS} hospitals, a linear model, {ROUNDS} rounds")
    for heading in (
        "runtime",
        "start to end of round 1",
        "a later round",
        "without training",
        "memory",
        "whole process",
    ):
        table.add_column(heading, justify="left" if heading == "runtime" else "right")
    rows = {runtime: in_a_process_of_its_own(runtime) for runtime in RUNTIMES}
    for runtime, row in rows.items():
        figures = (
            f"{row['first']:.2f} s",
            f"{row['later']:.3f} s",
            f"{row['later'] - row['trained']:.3f} s" if row["trained"] else "",
            f"{row['memory']:.0f} MB",
            f"{row['process']:.1f} s",
        )
        table.add_row(runtime, *figures)
    console.print(table)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    console.print(f"numbers: {output}")


def main() -> None:
    """Measure one runtime, or all of them in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/federation.json"))
    parser.add_argument("--measure", choices=RUNTIMES)
    arguments = parser.parse_args()
    if not arguments.measure:
        report(Console(width=110), arguments.output)
        return
    plays: dict[str, Callable[[], list[float]]] = {
        RUNTIMES[0]: lambda: consilium(0),
        RUNTIMES[1]: lambda: consilium(2),
        RUNTIMES[2]: flower,
    }
    ends = plays[arguments.measure]()
    lengths = [late - early for early, late in pairwise(ends[:-1])]  # the last one also evaluates
    trained = statistics.median(_trained[1:-2]) if any(_trained) else 0.0
    figures = {"first": ends[0], "later": statistics.median(lengths), "trained": trained, "memory": _memory}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
