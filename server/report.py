"""What a study found: results as numbers, as a table, and as figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from conf import schema
from server.comparison import Arms
from server.rounds import HospitalRound, RoundRecord, State

_COLOURS = {"local": "#b58900", "federated": "#0072b2", "pooled": "#6c757d"}  # told apart by the colour-blind, too
_MARKS = {"local": "s", "federated": "o", "pooled": "D"}


@dataclass(frozen=True)
class Results:
    """The outcome of a study.

    Attributes:
        arms: for each arm, ``federated`` among them, the figures of each hospital.
        epsilon: spent by each hospital's training patients; ``None`` without privacy.
        bytes_down, bytes_up: of all rounds, by hospital.
        seconds: of all federated rounds.
        dropped: how often each hospital was left out of a round, and why the last time.
        notes: what must be said beside the figures.
    """

    study: str
    arms: dict[str, dict[str, HospitalRound]]
    epsilon: dict[str, float | None]
    bytes_down: dict[str, int]
    bytes_up: dict[str, int]
    seconds: float
    dropped: dict[str, str]
    notes: list[str]

    def mean_auc(self, arm: str) -> float | None:
        """Unweighted mean over the hospitals that have an AUC in every arm, so that arms compare."""
        values = [self.arms[arm][h].auc for h in self.comparable()]
        return sum(v for v in values if v is not None) / len(values) if values else None

    def comparable(self) -> list[str]:
        """Hospitals that have an AUC in every arm."""
        hospitals = self.arms["federated"]
        return [h for h in hospitals if all(h in arm and arm[h].auc is not None for arm in self.arms.values())]

    def metrics(self) -> dict[str, float]:
        """The figures as MLflow metrics."""
        found: dict[str, float | None] = {f"result/{arm}_auc": self.mean_auc(arm) for arm in self.arms}
        for arm, hospitals in self.arms.items():
            found |= {f"result/{name}/{arm}_auc": figures.auc for name, figures in hospitals.items()}
        return {key: value for key, value in found.items() if value is not None}


def results(name: str, state: State, arms: Arms, notes: list[str]) -> Results:
    """Put together what the rounds and the other arms gave."""
    last = state.outcome
    by_arm = {"local": arms.local, "federated": last.hospitals, "pooled": arms.pooled}
    hospitals = sorted({hospital for record in state.rounds for hospital in record.hospitals})
    epsilon = {
        h: next((r.hospitals[h].epsilon for r in reversed(state.rounds) if _spent(r, h)), None) for h in hospitals
    }
    return Results(
        study=name,
        arms={arm: figures for arm, figures in by_arm.items() if figures},
        epsilon=epsilon,
        bytes_down=_total(state.rounds, hospitals, "bytes_down"),
        bytes_up=_total(state.rounds, hospitals, "bytes_up"),
        seconds=sum(record.seconds for record in state.rounds),
        dropped=_dropped(state.rounds),
        notes=notes,
    )


def _spent(record: RoundRecord, hospital: str) -> bool:
    return hospital in record.hospitals and record.hospitals[hospital].epsilon is not None


def _total(rounds: list[RoundRecord], hospitals: list[str], what: str) -> dict[str, int]:
    return {h: sum(getattr(r.hospitals[h], what) for r in rounds if h in r.hospitals) for h in hospitals}


def _dropped(rounds: list[RoundRecord]) -> dict[str, str]:
    reasons: dict[str, list[str]] = {}
    for record in rounds:
        for hospital, reason in record.dropped.items():
            reasons.setdefault(hospital, []).append(reason)
    return {hospital: f"{len(told)} of {len(rounds)} rounds, last: {told[-1]}" for hospital, told in reasons.items()}


def table(found: Results, study: schema.Study) -> Table:
    """The results as a table for the terminal."""
    asked = f"epsilon {study.privacy.epsilon:g}" if study.privacy.epsilon is not None else "no noise"
    drawn = Table(title=f"{found.study}: AUC on validation patients, with 95 % intervals", title_style="bold")
    drawn.add_column("hospital")
    for arm in found.arms:
        how = asked if arm == "federated" else "no noise"
        drawn.add_column(f"{arm}\n{how}", justify="right")
    for heading in ("epsilon\nspent", "kB\nin", "kB\nout"):
        drawn.add_column(heading, justify="right")
    for hospital in found.epsilon:
        spent = found.epsilon[hospital]
        drawn.add_row(
            hospital,
            *(_interval(figures.get(hospital)) for figures in found.arms.values()),
            "-" if spent is None else f"{spent:.2f}",
            f"{found.bytes_down[hospital] / 1000:,.0f}",
            f"{found.bytes_up[hospital] / 1000:,.0f}",
        )
    means = [found.mean_auc(arm) for arm in found.arms]
    drawn.add_section()
    drawn.add_row("mean", *("-" if mean is None else f"{mean:.3f}" for mean in means), style="bold")
    return drawn


def _interval(figures: HospitalRound | None) -> str:
    if figures is None:
        return "-"
    if figures.auc is None:
        return "one class"
    return f"{figures.auc:.3f}\n{figures.auc_low:.2f} to {figures.auc_high:.2f}"


def draw_figures(folder: Path, found: Results, rounds: list[RoundRecord]) -> list[Path]:
    """Draw the figures as PNG files; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    drawers = {"comparison.png": _comparison, "convergence.png": _convergence, "privacy.png": _privacy}
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, draw in drawers.items():
        figure = draw(found, rounds)
        if figure is not None:
            figure.savefig(folder / name, dpi=130, bbox_inches="tight")
            drawn.append(folder / name)
    return drawn


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _comparison(found: Results, rounds: list[RoundRecord]) -> Any:
    """Forest plot: one row a hospital, one mark an arm."""
    hospitals = list(found.epsilon)
    figure, axes = _axes(1.4 + 0.7 * len(hospitals))
    for offset, (arm, figures) in enumerate(found.arms.items()):
        rows = [(i, figures[h]) for i, h in enumerate(hospitals) if h in figures and figures[h].auc is not None]
        y = [i + 0.22 * (offset - (len(found.arms) - 1) / 2) for i, _ in rows]
        x = [f.auc for _, f in rows]
        spread = [[f.auc - f.auc_low for _, f in rows], [f.auc_high - f.auc for _, f in rows]]  # type: ignore[operator]
        axes.errorbar(x, y, xerr=spread, fmt=_MARKS[arm], color=_COLOURS[arm], label=arm, capsize=2, lw=1.2, ms=6)
    axes.axvline(0.5, color="#999999", lw=1, ls=":")
    axes.set(xlabel="AUC, 95 % interval", xlim=(None, 1.01), title="Alone, together, and all patients in one place")
    axes.set_yticks(range(len(hospitals)), hospitals)
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _convergence(found: Results, rounds: list[RoundRecord]) -> Any:
    figure, axes = _axes(4.2)
    for hospital in found.epsilon:
        points = [(r.number, r.hospitals[hospital].auc) for r in rounds if hospital in r.hospitals]
        known = [(number, auc) for number, auc in points if auc is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker=".", lw=1, alpha=0.7, label=hospital)
    means = [(r.number, r.mean_auc()) for r in rounds if r.mean_auc() is not None]
    if means:
        axes.plot(*zip(*means, strict=True), color="black", lw=2.2, label="mean")
    axes.set(xlabel="round", ylabel="AUC", title="The shared model, round by round")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _privacy(found: Results, rounds: list[RoundRecord]) -> Any:
    if all(spent is None for spent in found.epsilon.values()):
        return None
    figure, axes = _axes(3.6)
    for hospital in found.epsilon:
        points = [(r.number, r.hospitals[hospital].epsilon) for r in rounds if _spent(r, hospital)]
        axes.plot(*zip(*points, strict=True), marker=".", lw=1.2, alpha=0.8, label=hospital)
    axes.set(xlabel="round", ylabel="epsilon spent", title="Privacy loss of a training patient", ylim=(0, None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
