"""Whether a schedule of noise helps: `python -m tests.benchmarks.bench_schedule`.

The same studies with noise that falls to a third over the rounds, stays, and rises threefold, all within one epsilon;
alone, and with a learning rate that falls to a tenth. Five seeds, which draw phantoms, splits and initial weights.
Needs the real images in the folder that ``CONSILIUM_DATA`` names for all but the phantoms. Every study that has ended
is written down at once, and the next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import machine
from tests.benchmarks.studies import SEEDS, Figures, data_root, difference, level, measure

FACTORS, RATES = ("0.33", "1", "3"), ("1", "0.1")
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "phantoms, epsilon 3": ("", ("experiment=demo", "privacy.epsilon=3")),
    "pneumoniamnist, epsilon 1": ("pneumoniamnist", ("experiment=pneumoniamnist", "privacy.epsilon=1")),
}
Rows = dict[str, Figures]
"""By factor, rate and seed."""


def report(console: Console, data: Path | None, output: Path, names: list[str]) -> None:
    """Measure what is not yet written down; print the table."""
    output.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(output.read_text()) if output.exists() else {"rows": {}}
    table = Table(
        title="mean AUC over hospitals: mean and deviation over five seeds; difference by seed to the first row"
    )
    for heading in ("study", "final_noise", "final_rate", "AUC", "difference, with 95 % interval"):
        table.add_column(heading)
    for name in names:
        folder, overrides = CASES[name]
        if folder and data is None:
            console.print(f"{name}: not measured, CONSILIUM_DATA names no folder with {folder}/")
            continue
        rows: Rows = kept["rows"].setdefault(name, {})
        base: list[float] = []
        for factor, rate in [(factor, rate) for rate in RATES for factor in sorted(FACTORS, key=lambda f: f != "1")]:
            for seed in SEEDS:
                key = f"{factor} {rate} {seed}"
                if key not in rows:
                    own = [f"training.final_noise={factor}", f"training.final_rate={rate}", f"seed={seed}"]
                    rows[key] = measure([*overrides, *own, *([f"data_root={data}/{folder}"] if folder else [])])
                    output.write_text(json.dumps({"machine": machine.facts(), "rows": kept["rows"]}, indent=1))
            aucs = [rows[f"{factor} {rate} {seed}"]["auc"] for seed in SEEDS]
            base = base or aucs
            told = "" if aucs is base else difference([a - b for a, b in zip(aucs, base, strict=True)])
            table.add_row(name, factor, rate, level(aucs), told)
    console.print(table)
    console.print(f"numbers: {output}")


def main() -> None:
    """Measure all studies, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/schedule.json"))
    parser.add_argument("--case", choices=CASES, action="append", help="instead of all")
    arguments = parser.parse_args()
    report(Console(width=130), data_root(), arguments.output, arguments.case or list(CASES))


if __name__ == "__main__":
    main()
