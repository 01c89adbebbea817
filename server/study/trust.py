"""What shared noise rests on, in words: for the report and the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.rounds.state import RoundRecord
from tasks.protocol.study import SecureSumTerms


def notes_on_sums(terms: SecureSumTerms | None, rounds: Sequence[RoundRecord]) -> list[str]:
    """Sentences that stand beside every result; none where each hospital added the whole noise.

    Args:
        rounds: with what each hospital has told of its spending.
    """
    if terms is None:
        return []
    hospitals, colluding = len(terms.peers), terms.colluding
    what = " and ".join(name for name, is_sum in {"steps": terms.steps, "figures": terms.figures}.items() if is_sum)
    void = [reason for record in rounds for reason in record.void]
    lines = [
        f"The hospitals share the noise of {what}: only sums of all are ever seen. Each epsilon holds against the "
        f"coordinator and up to {colluding} hospital(s) acting together, if the other {hospitals - colluding} of "
        f"{hospitals} add the noise that they promised.{_alone(rounds)}",
        "Nobody can check what a hospital adds to a sum: one that lies can spoil the model within the length that "
        "honest sums have, and cannot be named.",
    ]
    if void:
        lines.append(f"{len(void)} attempt(s) at a sum failed and were made again; each stays charged.")
    return lines


def _alone(rounds: Sequence[RoundRecord]) -> str:
    told: dict[str, Mapping[str, float]] = {}
    for record in rounds:
        for name, figures in record.hospitals.items():
            pairs = {"training": figures.epsilon_alone, "validation": figures.evaluation_epsilon_alone}
            known = {part: epsilon for part, epsilon in pairs.items() if epsilon is not None}
            told[name] = {**told.get(name, {}), **known}
    sentences = [
        f"{max(of[part] for of in told.values() if part in of):.1f} for a {part} patient"
        for part in ("training", "validation")
        if any(part in of for of in told.values())
    ]
    return f" If all others lied, epsilon would still be at most {' and '.join(sentences)}." if sentences else ""
