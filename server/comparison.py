"""What the federated model is compared with: each hospital alone, and all patients in one place.

Both arms go through the same rounds as the federated study, with one hospital on the roster, and without noise: a
hospital that trains for itself releases nothing, and pooled patients are what federation does without. So the federated
model pays for privacy and they do not; the table says so. They exist in simulation only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from conf import schema
from server.checkpoint import read_state, write_state
from server.local_grid import LocalGrid
from server.rounds import HospitalRound, Roster, State, evaluate, run_rounds
from server.study import document_of
from tasks.wire import Arrays

Advance = Callable[[str, int, int], None]
"""Called with what is being trained, its rounds so far, and how many it will have."""


@dataclass(frozen=True)
class Arms:
    """Figures of the other arms: for each arm and hospital, on the hospital's own validation patients."""

    local: dict[str, HospitalRound]
    pooled: dict[str, HospitalRound]


def compare(
    study: schema.Study, name: str, folder: Path, grid: LocalGrid, pooled: str, initial: Arrays, advance: Advance
) -> Arms:
    """Train the arms that the study asks for, from the same initial weights, and evaluate them at every hospital.

    Args:
        name: the federated study's id; the arms' ids start with it.
        folder: where the arms' checkpoints go; what is there is not trained again.
        grid: plays the hospitals, and the pooled one under the name ``pooled``.
    """
    hospitals = [hospital for hospital in grid.nodes if hospital != pooled]
    settings = _without_noise(study)
    local: dict[str, HospitalRound] = {}
    together: dict[str, HospitalRound] = {}
    if "local" in study.evaluation.arms:
        for hospital in hospitals:
            roster = Roster(document_of(settings, f"{name}.local.{hospital}"), {hospital: grid.nodes[hospital]})
            weights = _trained(settings, roster, grid, folder / f"local-{hospital}", initial, advance)
            local |= _figures(settings, roster, grid, weights)
    if "pooled" in study.evaluation.arms:
        roster = Roster(document_of(settings, f"{name}.pooled"), {pooled: grid.nodes[pooled]})
        weights = _trained(settings, roster, grid, folder / "pooled", initial, advance)
        everyone = Roster(roster.document, {hospital: grid.nodes[hospital] for hospital in hospitals})
        together = _figures(settings, everyone, grid, weights)
    return Arms(local, together)


def _without_noise(study: schema.Study) -> schema.Study:
    rate = study.evaluation.arm_learning_rate or study.training.learning_rate
    return replace(
        study,
        privacy=replace(study.privacy, epsilon=None),
        training=replace(study.training, learning_rate=rate),
        evaluation=replace(
            study.evaluation,
            epsilon=None,
            bins=schema.EXACT_BINS,
            every=study.federation.rounds,
            patience=0,
            deliver="last",
        ),
        federation=replace(study.federation, quorum=1.0, participation=1.0, over_selection=0.0),
        wire=schema.Wire(),
        strategy=schema.FedAvg(),  # a hospital alone has nothing to combine
    )


def _trained(
    study: schema.Study, roster: Roster, grid: LocalGrid, folder: Path, initial: Arrays, advance: Advance
) -> Arrays:
    label = roster.document.name.split(".", 1)[1]

    def publish(state: State) -> None:
        write_state(folder, state)
        advance(label, len(state.rounds), study.federation.rounds)

    state = read_state(folder) or State(initial)
    return run_rounds(study, roster, grid, state, publish).weights


def _figures(study: schema.Study, roster: Roster, grid: LocalGrid, weights: Arrays) -> dict[str, HospitalRound]:
    results = evaluate(study, roster, grid, weights, study.federation.rounds)
    return {hospital: figures for hospital, (figures, _) in results.items()}
