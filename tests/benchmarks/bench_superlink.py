"""What a round of many hospitals costs a deployed server: memory and seconds when all answer at once.

    python -m tests.benchmarks.bench_superlink [--hospitals 4 8 16] [--megabytes 30] [--rounds 2]

A real SuperLink over TLS, the study's own process (``play`` and ``run_rounds``, the way of ``server.app``), and as
many senders as there are hospitals, each with Flower's own connection of a SuperNode and a key of its own. The senders
share a process of threads, wait for each other, and send updates of the whole model, all at the same moment. No
hospital's code runs: the model is thirty invented tensors, and nothing is trained.

Memory is resident memory (psutil), looked at every 10 ms: of the study's process over what it had after a small study
of the same hospitals, in models of that size; of the SuperLink as it is. Seconds are of a round from its order to its
commit. Draws ``benchmarks/superlink.svg``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from server.deployment import pki
from server.deployment.server_dir import ServerDir, ServerSettings, make, read
from tests.benchmarks import machine

_MEGABYTE = 2**20
_TICK_S = 0.01
_TENSORS = 30
_CLIP, _NOISE, _EPSILON = 1e-6, 1.5, 1.0


class Watch:
    """The most resident memory that a process has had since ``begin``, in bytes."""

    def __init__(self, pid: int) -> None:
        self._process, self.most, self._stop = psutil.Process(pid), 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(_TICK_S):
            with suppress(psutil.NoSuchProcess):
                self.most = max(self.most, self._process.memory_info().rss)

    def end(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.most


# --- the study's process ----------------------------------------------------------------------------------------------


def play(home: Path, token: str, nodes: dict[str, int], megabytes: float, rounds: int) -> dict[str, Any]:
    """Play the study as ``server.app`` does, and say what it took."""
    from server.rounds.round import run_rounds
    from server.rounds.state import Roster, StudyState
    from server.runtime import flower_private
    from server.runtime.superlink_grid import SuperlinkGrid
    from server.study.document import document_of
    from tests.server import scripted

    server_dir = read(home)
    told: dict[str, Any] = {}
    settings = (f"federation.rounds={rounds}", f"evaluation.every={rounds}", "federation.deadline_s=900")
    study = scripted.study(*settings)

    def start(values: int) -> StudyState:  # nobody else holds it, as in a study
        return StudyState({f"layer{n}": np.zeros(values // _TENSORS, np.float32) for n in range(_TENSORS)})

    def played(name: str, grid: Any, values: int) -> tuple[StudyState, list[float]]:
        roster = Roster(document_of(study, name, dict.fromkeys(nodes, 100)), nodes)
        marks = [time.perf_counter()]
        patient = SuperlinkGrid(grid, 60, 900)
        ended = run_rounds(study, roster, patient, start(values), lambda state: marks.append(time.perf_counter()))
        return ended, [late - early for early, late in pairwise(marks)]

    def rounds_of(grid: Any, run: int, text: str) -> None:
        played("small-1", grid, 100 * _TENSORS)  # whatever is imported or made once is there now
        base, watch = psutil.Process().memory_info().rss, Watch(os.getpid())
        ended, seconds = played("large-1", grid, int(megabytes * _MEGABYTE) // 4)
        dropped = {name: why for one in ended.rounds for name, why in one.dropped.items()}
        told.update(base=base, most=watch.end(), seconds=seconds, dropped=dropped)

    flower_private.play(server_dir.superlink, server_dir.authority, token, rounds_of)
    return told


# --- the hospitals ----------------------------------------------------------------------------------------------------


def send(home: Path, hospitals: int) -> None:
    """Answer orders as so many hospitals, one thread each, until the process is ended."""
    together = threading.Barrier(hospitals)
    keys = [(home / f"{number}.key").read_bytes() for number in range(hospitals)]
    threads = [threading.Thread(target=_hospital, args=(read(home), key, together), daemon=True) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _hospital(server_dir: ServerDir, key: bytes, together: threading.Barrier) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from flwr.app import Message
    from flwr.supercore.inflatable.inflatable_object import get_object_tree, iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import pull_objects
    from flwr.supernode.fleet_http_connection import http_request_response

    from server.runtime.flower_private import deflate, inflate

    private: Any = load_pem_private_key(key, None)
    with http_request_response(
        server_dir.superlink, False, server_dir.authority.read_bytes(), (private, private.public_key())
    ) as (node, receive, push_head, _run, _fab, pull, push, confirm):
        while True:
            got = receive()
            if got is None:
                time.sleep(0.5)
                continue
            head, tree = got
            run, about = head.metadata.run_id, head.metadata.message_id
            parts = [part.object_id for part in iterate_object_tree(tree)]
            objects = pull_objects(parts, lambda name: pull(run, name))  # noqa: B023  # used at once
            confirm(run, about)
            order = inflate((about, objects))
            order.metadata.__dict__["_dst_node_id"] = node
            reply = Message(_report(order), reply_to=order)
            reply.metadata.__dict__["_src_node_id"] = node
            name, contents = deflate(reply)
            reply.metadata.__dict__["_message_id"] = name
            together.wait()
            missing, session = push_head(reply, get_object_tree(reply), 0.0)
            for part in missing:
                push(run, session, part, contents[part])


def _report(order: Any) -> Any:
    from tasks.protocol import wire
    from tasks.protocol.wire import EvaluateOrder, EvaluateReport, TrainOrder, TrainReport

    asked = wire.decode(order.content, TrainOrder, EvaluateOrder)
    name, number = asked.study.name, asked.round
    if isinstance(asked, TrainOrder):
        rng = np.random.default_rng(order.metadata.dst_node_id % 2**32)
        arrays = {
            key: rng.standard_normal(value.shape, np.float32) * np.float32(_CLIP) for key, value in asked.arrays.items()
        }
        return wire.encode(TrainReport(name, number, _EPSILON, 1e-4, _NOISE, "b" * 64, arrays))
    cells = np.full((2, asked.study.evaluation.bins), 5.0)
    return wire.encode(EvaluateReport(name, number, None, 1e-4, 0.0, "b" * 64, {"histogram": cells}))


# --- all of them ------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def measure(hospitals: int, megabytes: float, rounds: int) -> dict[str, Any]:
    """One study of so many hospitals."""
    with tempfile.TemporaryDirectory() as folder:
        return _measured(Path(folder) / "home", hospitals, megabytes, rounds)


def _measured(home: Path, hospitals: int, megabytes: float, rounds: int) -> dict[str, Any]:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    from server.cli.server import _answers, _programs
    from server.runtime.flower_private import Control, RunAcquirer

    server_dir = make(home, ServerSettings(host="localhost", superlink_port=free_port(), mlflow_port=free_port()))
    pki.create_authority(server_dir)
    pki.issue_server(server_dir)
    pki.issue_superlink(server_dir)
    program = next(one for one in _programs(server_dir) if one.name == "superlink")
    running: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **more: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | dict(program.environment) | {"OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, env=environment, **more))
        return running[-1]

    with (server_dir.logs / "superlink.log").open("wb") as log, (server_dir.logs / "senders.log").open("wb") as other:
        try:
            superlink = start(*program.command, stdout=log, stderr=log)
            ends = time.monotonic() + 120
            while not _answers(server_dir, f"https://{server_dir.superlink}/health"):
                assert time.monotonic() < ends, log.name
                time.sleep(0.5)
            control = Control(server_dir.superlink, server_dir.authority)
            nodes = {}
            for number in range(hospitals):
                key = ec.generate_private_key(ec.SECP384R1())
                pem = form.Encoding.PEM
                public = key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo)
                nodes[f"h{number:03}"] = control.register(public)
                secret = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
                (home / f"{number}.key").write_bytes(secret)
            here = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_superlink", "--home", str(home)]
            start(*here, "--send", str(hospitals), stdout=other, stderr=other)
            control.start("a study")
            task = None
            acquirer = RunAcquirer(server_dir.superlink, server_dir.authority, server_dir.superexec_secret.read_bytes())
            while task is None:
                task = acquirer.next()
            idle = psutil.Process(superlink.pid).memory_info().rss
            watch = Watch(superlink.pid)
            given = json.dumps({"token": task[1], "nodes": nodes})
            played = start(
                *here, "--play", given, "--megabytes", str(megabytes), "--rounds", str(rounds), stdout=subprocess.PIPE
            )
            begun = threading.Event()
            threading.Thread(target=keep, args=(acquirer, task[1], begun), daemon=True).start()
            text, _ = played.communicate(timeout=1800)
            begun.set()
            assert played.returncode == 0, (server_dir.logs / "senders.log").read_text()[-2000:]
            told: dict[str, Any] = json.loads(text.splitlines()[-1])
            return told | {"superlink": watch.end(), "superlink_idle": idle, "load": os.getloadavg()[0]}
        finally:
            for one in reversed(running):
                one.kill()
                one.wait()


def keep(acquirer: Any, token: str, begun: threading.Event) -> None:
    """Renew the claim to the run, which would end before a busy machine has imported what its process needs."""
    while not begun.wait(5):
        acquirer.keep(token)


def draw(rows: dict[int, dict[str, Any]], megabytes: float, path: Path) -> None:
    """Memory and seconds against the number of hospitals."""
    figure, (memory, seconds) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    numbers = list(rows)
    size = megabytes * _MEGABYTE
    memory.plot(numbers, [(r["most"] - r["base"]) / size for r in rows.values()], "o-", label="the study's process")
    grown = [(r["superlink"] - r["superlink_idle"]) / size for r in rows.values()]
    memory.plot(numbers, grown, "o-", color="#b58900", label="SuperLink")
    memory.axhline(5, color="0.5", linestyle=":", label="3 models and 2 replies")
    memory.set_ylabel(f"memory over the base, in models of {megabytes:g} MB")
    seconds.plot(numbers, [min(r["seconds"]) for r in rows.values()], "o-")
    seconds.set_ylabel("seconds of a round")
    for axes in (memory, seconds):
        axes.set_xlabel("hospitals that answer at once")
        axes.set_xticks(numbers)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    memory.legend(frameon=False)
    figure.suptitle(f"{machine.facts()['processor']}, {os.cpu_count()} cores", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def report(console: Console, folder: Path, numbers: list[int], megabytes: float, rounds: int) -> None:
    """Measure, print the table, draw the figure, write the numbers."""
    table = Table(title=f"a model of {megabytes:g} MB, {rounds} rounds, all hospitals answer at once")
    for heading in (
        "hospitals",
        "study: over its base",
        "in models",
        "SuperLink: most",
        "a round",
        "a hospital",
        "load",
    ):
        table.add_column(heading, justify="right")
    rows = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rows[number] = found = measure(number, megabytes, rounds)
        assert not found["dropped"], found["dropped"]
        over, quickest = (found["most"] - found["base"]) / _MEGABYTE, min(found["seconds"])
        table.add_row(
            str(number),
            f"{over:.0f} MB",
            f"{over / megabytes:.1f}",
            f"{found['superlink'] / _MEGABYTE:.0f} MB",
            f"{quickest:.1f} s",
            f"{quickest / number:.2f} s",
            f"{found['load']:.0f}",
        )
        (folder / "superlink.json").write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
    console.print(table)
    draw(rows, megabytes, folder / "superlink.svg")
    console.print(f"numbers and figure: {folder}/superlink.*")


def main() -> None:
    """Measure, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--hospitals", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--megabytes", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--send", type=int)
    parser.add_argument("--play")
    a = parser.parse_args()
    if a.send:
        send(a.home, a.send)
    elif a.play:
        given = json.loads(a.play)
        print(json.dumps(play(a.home, given["token"], given["nodes"], a.megabytes, a.rounds)))
    else:
        report(Console(width=110), a.output, a.hospitals, a.megabytes, a.rounds)


if __name__ == "__main__":
    main()
