"""Simulate, print the tables, and write them into ``server/STATISTICS.md``.

python -m tests.simulations --repetitions 100       some minutes
python -m tests.simulations --repetitions 2000      hours
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable
from pathlib import Path

from tests.simulations.grid import Row, coverage, kinds, outlines, words

DOCUMENT = Path(__file__).parents[2] / "server" / "STATISTICS.md"
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
_MEASURED = ["coverage", "± s.e.", "point shown", "bias of points", "width"]
TABLES = {
    "Figures": (coverage, ["figure", "patients", "prevalence", "AUC", "scores", "bins", "noise", *_MEASURED]),
    "Outlines": (outlines, ["figure", "patients", "missed", "Dice of others", "bins", "noise", *_MEASURED]),
    "Classes, grades, measurements": (kinds, ["figure", "of", "patients", "bins", "noise", *_MEASURED]),
    "Words": (words, ["said", "where", "how often", "± s.e."]),
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=100, help="of each line (default: 100)")
    parser.add_argument("--only", choices=[*TABLES], help="one table; then nothing is written")
    parser.add_argument("--dry", action="store_true", help="print only")
    asked = parser.parse_args()
    started, written = time.monotonic(), [f"{asked.repetitions} repetitions of each line."]
    for name, (rows, heads) in TABLES.items():
        if asked.only in (None, name):
            written.append(f"### {name}\n\n{_table(heads, rows(asked.repetitions))}")
    print(f"{time.monotonic() - started:.0f} s")
    if not asked.dry and asked.only is None:
        text = DOCUMENT.read_text("utf-8")
        inner = f"{BEGIN}\n" + "\n\n".join(written) + f"\n{END}"
        DOCUMENT.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: inner, text, flags=re.DOTALL), "utf-8")


def _table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    main()
