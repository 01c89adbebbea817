"""What a secure sum costs a round: `python -m tests.benchmarks.bench_secure_round [--hospitals 4 16 100]`.

The same study twice, phantoms of 14 patients at each hospital, one step a round, nothing evaluated before the end: with
each hospital's own noise, and with noise that all share. Seconds are a round's from its order to its commit, medians
over rounds but the first; the ratio is of the two, measured one after the other. Each pair of hospitals has a pad of
its own, so that a round's work grows with the square of their number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import machine
from tests.federation.embedded import TINY, play

NUMBERS, ROUNDS = (4, 16, 100), 12
_STEP = ("training.steps=1", "training.sample_rate=1.0", f"federation.rounds={ROUNDS}", "evaluation.every=1000")
_QUIET = ("evaluation.arms=[]", "evaluation.paired=false", "resume=never")
FORMS = {"own noise": (), "shared noise": ("privacy=shared_noise",)}


def hospitals(number: int) -> list[str]:
    """Overrides that give so many phantom hospitals instead of those of ``TINY``."""
    known = {word.split("=", 1)[0] for word in TINY if word.startswith("federation.hospitals.")}
    one = "{patients: 14, prevalence: 0.5, images_per_patient: [1, 1]}"
    return [*(f"~{name}" for name in sorted(known)), *(f"+federation.hospitals.h{n:03}={one}" for n in range(number))]


def seconds(output: Path, name: str, words: list[str]) -> float:
    """Median seconds of a round."""
    ended = play(output, name, *words)
    rounds = ended.state().rounds
    if len(rounds) != ROUNDS or any(record.void for record in rounds):
        raise RuntimeError(f"{name} was not played as asked: {rounds}")
    return statistics.median(record.seconds for record in rounds[1:])


def main() -> None:
    """Measure, print, write ``benchmarks/secure_round.json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hospitals", type=int, nargs="+", default=NUMBERS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/secure_round.json"))
    asked, console = parser.parse_args(), Console()
    table = Table(title=f"seconds of a round, median of {ROUNDS - 1}, in one process")
    for heading in ("hospitals", *FORMS, "ratio"):
        table.add_column(heading, justify="right")
    found: dict[int, dict[str, float]] = {}
    for number in asked.hospitals:
        with tempfile.TemporaryDirectory() as home:
            words = [*hospitals(number), *_STEP, *_QUIET]
            told = {f: seconds(Path(home), f"round-{n}", [*words, *more]) for n, (f, more) in enumerate(FORMS.items())}
        own, shared = told["own noise"], told["shared noise"]
        found[number] = {**told, "ratio": shared / own}
        table.add_row(str(number), f"{own:.3f}", f"{shared:.3f}", f"{shared / own:.2f}")
        asked.output.parent.mkdir(parents=True, exist_ok=True)
        asked.output.write_text(json.dumps({"machine": machine.facts(), "rows": found}, indent=1))
    console.print(table)


if __name__ == "__main__":
    main()
