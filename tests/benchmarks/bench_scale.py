"""Many hospitals on one machine: seconds and memory of a round against their number, beside Flower's simulation.

`python -m tests.benchmarks.bench_scale`. As ``bench_federation``, which says what each runtime does, with 4, 16, 64 and
256 hospitals, each pair of runtime and number in a process of its own. Flower's simulation is left out where its rounds
take longer than the limit. Each figure has the machine's load beside it: where others work on the machine as well, only
what was measured one after the other compares. Draws ``benchmarks/scale.svg``; ``server/scale.svg`` is one such figure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from math import log2
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from rich.console import Console
from rich.table import Table

from tests.benchmarks import bench_federation as one
from tests.benchmarks import machine

HOSPITALS, ROUNDS = (4, 16, 64, 256), 5
OURS, FLOWER = one.RUNTIMES[0], one.RUNTIMES[2]
_COLOURS = {OURS: "#0072b2", FLOWER: "#b58900"}
Figures = dict[str, float]


def measure(runtime: str, hospitals: int) -> Figures:
    """In this process: seconds to the end of round 1, median of later rounds but the last, and memory in MB; of ours
    also the seconds of processor in a later round."""
    one.HOSPITALS, one.ROUNDS = hospitals, ROUNDS
    ends = one.consilium(0) if runtime == OURS else one.flower()
    lengths = [late - early for early, late in pairwise(ends[:-1])]
    busy = [late - early for early, late in pairwise(one.processor[:-1])]
    processor = {"processor": statistics.median(busy)} if busy else {}
    return {"first": ends[0], "later": statistics.median(lengths), "memory": one._memory} | processor


def in_a_process_of_its_own(runtime: str, hospitals: int, limit_s: float) -> Figures | None:
    """``measure`` in a child; ``None`` when it takes longer than the limit."""
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_scale", "--measure", runtime]
    started = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, "--hospitals", str(hospitals)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | quiet,
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        return None
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures | {"process": time.perf_counter() - started, "load": os.getloadavg()[0]}


def growth(by_number: dict[int, Figures]) -> float:
    """The power of the number of hospitals that a round's seconds grow with, between the smallest and the largest; 1 is
    in proportion."""
    few, many = min(by_number), max(by_number)
    return log2(by_number[many]["later"] / by_number[few]["later"]) / log2(many / few)


def draw(rows: dict[str, dict[int, Figures]], path: Path) -> None:
    """Seconds of a later round, and memory, against the number of hospitals."""
    figure, (seconds, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for runtime, by_number in rows.items():
        numbers = list(by_number)
        style = {"marker": "o", "color": _COLOURS[runtime], "label": runtime}
        seconds.plot(numbers, [by_number[n]["later"] for n in numbers], **style)
        memory.plot(numbers, [by_number[n]["memory"] for n in numbers], **style)
        if all("processor" in figures for figures in by_number.values()):
            busy = [by_number[n]["processor"] for n in numbers]
            seconds.plot(numbers, busy, color=_COLOURS[runtime], linestyle=":", label="of these, busy")
    for axes, what in ((seconds, "seconds of a later round"), (memory, "memory of all processes, MB")):
        axes.set_xscale("log", base=4)
        axes.set_xticks(HOSPITALS, [str(n) for n in HOSPITALS])
        axes.set_xlabel("hospitals")
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    seconds.set_yscale("log")
    memory.set_ylim(bottom=0)
    seconds.legend(frameon=False, loc="lower right")
    figure.suptitle(f"{machine.facts()['processor']}, {os.cpu_count()} cores", fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def report(console: Console, folder: Path, limit_s: float) -> None:
    """Measure, print the table, draw the figure, write the numbers."""
    rows: dict[str, dict[int, Figures]] = {OURS: {}, FLOWER: {}}
    table = Table(title=f"a linear model of 40 patients a hospital, {ROUNDS} rounds")
    headings = ("runtime", "hospitals", "to the end of round 1", "a later round", "a hospital in it", "memory", "load")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "runtime" else "right")
    folder.mkdir(parents=True, exist_ok=True)
    for number in HOSPITALS:
        for runtime, by_number in rows.items():
            figures = in_a_process_of_its_own(runtime, number, limit_s)
            if figures is None:
                table.add_row(runtime, str(number), f"more than {limit_s:g} s in all", "", "", "", "")
                continue
            by_number[number] = figures
            (folder / "scale.json").write_text(json.dumps({"machine": machine.facts(), "rows": rows}, indent=1))
            first, later = f"{figures['first']:.2f} s", f"{figures['later']:.3f} s"
            each = f"{1000 * figures['later'] / number:.1f} ms"
            if "processor" in figures:
                each += f", {1000 * figures['processor'] / number:.1f} busy"
            table.add_row(
                runtime, str(number), first, later, each, f"{figures['memory']:.0f} MB", f"{figures['load']:.0f}"
            )
    console.print(table)
    for runtime, by_number in rows.items():
        if len(by_number) > 1:
            console.print(
                f"{runtime}: seconds of a round grow with the number of hospitals to the {growth(by_number):.2f}"
            )
    draw(rows, folder / "scale.svg")
    console.print(f"numbers and figure: {folder}/scale.*")


def main() -> None:
    """Measure one pair of runtime and number, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks"))
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that one runtime may take in all")
    parser.add_argument("--measure", choices=(OURS, FLOWER))
    parser.add_argument("--hospitals", type=int, default=4)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.hospitals)))
    else:
        report(Console(width=110), arguments.output, arguments.limit)


if __name__ == "__main__":
    main()
