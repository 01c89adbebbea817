"""Everything that is measured, one after the other; each prints a table and writes ``benchmarks/NAME.json``. Searches
(``search_*.py``) are no part of it: each is started by itself, for one experiment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Run every benchmark of this folder in a process of its own."""
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{path.stem}"], check=True)


if __name__ == "__main__":
    main()
