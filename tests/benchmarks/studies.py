"""Whole studies by the command `consilium`, in processes and folders of their own, for benchmarks of accuracy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

SEEDS = (1, 2, 3, 4, 5)
QUIET = ("evaluation.arms=[]", "evaluation.every=100", "tracking=none")
Figures = dict[str, float]


def data_root() -> Path | None:
    """The folder of real images that ``CONSILIUM_DATA`` names; ``None`` where there is none."""
    named = os.environ.get("CONSILIUM_DATA", "")
    return Path(named) if named and Path(named, "pneumoniamnist").is_dir() else None


def results_of(words: Iterable[str], home: Path) -> dict[str, Any]:
    """Run a study as a researcher would type it. Returns its ``results.json``, the newest in the folder.

    Raises:
        SystemExit: the study failed; with what it printed.
    """
    command = [sys.executable, "-W", "ignore", "-m", "server", *words, f"output_dir={home}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    newest = max(home.glob("studies/*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, Any] = json.loads(newest.read_text())
    return found


def measure(overrides: Iterable[str]) -> Figures:
    """Mean AUC over hospitals after the last round, the study's bytes each way, and the seconds of its rounds.

    Raises:
        SystemExit: the study failed; with what it printed.
    """
    with tempfile.TemporaryDirectory() as home:
        results = results_of([*overrides, *QUIET], Path(home))
    aucs = [hospital["auc"] for hospital in results["arms"]["federated"].values()]
    down, up = (float(sum(results[way].values())) for way in ("bytes_down", "bytes_up"))
    return {"auc": float(np.mean(aucs)), "down": down, "up": up, "seconds": results["seconds"]}


def level(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""


def difference(values: list[float]) -> str:
    """Mean, standard deviation, and the 95 % interval of the mean (Student)."""
    if len(values) < 2:
        return ""
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(t.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    return f"{mean:+.4f} ± {deviation:.4f} ({mean - half:+.4f} to {mean + half:+.4f})"
