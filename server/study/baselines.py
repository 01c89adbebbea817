"""What the federated model is compared with: each hospital alone, all patients pooled, and permuted labels.

The arms play the same rounds as the federated study, with one hospital on the roster, and without noise: a hospital
that trains for itself releases nothing, and pooling the patients is what federation avoids. So the federated model pays
for privacy and they do not; the table says so. They exist in simulation only. The arm with permuted labels should find
nothing: if it does, the same patients are on both sides of the split, or it is chance. Labels are permuted several
times, since a single such model can be far from 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from conf.schema.evaluation import EXACT_BINS
from conf.schema.strategy import FedAvg
from conf.schema.study import Study
from conf.schema.wire import Wire
from server.rounds.checkpoint import read_state, write_state
from server.rounds.evaluation import Evaluated, evaluate
from server.rounds.exchange import Channel
from server.rounds.round import run_rounds
from server.rounds.state import Roster, StudyState
from server.runtime.local_grid import LocalGrid
from server.study.document import document_of
from tasks.protocol.wire import Arrays

_NEXT_SEED = 1_000_003  # far from the seeds that people choose for studies of the same kind
Advance = Callable[[str, int, int], None]
"""Called with what is being trained, its rounds so far, and how many it will have."""


@dataclass(frozen=True)
class Arms:
    """The other arms: each arm's model, evaluated on each hospital's own validation patients.

    Attributes:
        shuffled: once for each permutation of the labels.
        own: the weights of each hospital's own model.
        federated_again, local_again: of each repetition of the study's training, and of the arm ``local``.
    """

    local: dict[str, Evaluated] = field(default_factory=dict)
    pooled: dict[str, Evaluated] = field(default_factory=dict)
    shuffled: list[dict[str, Evaluated]] = field(default_factory=list)
    own: dict[str, Arrays] = field(default_factory=dict)
    federated_again: list[dict[str, Evaluated]] = field(default_factory=list)
    local_again: list[dict[str, Evaluated]] = field(default_factory=list)


def compare(
    study: Study,
    name: str,
    sizes: Mapping[str, int],
    folder: Path,
    grid: LocalGrid,
    imaginary: Mapping[str, Sequence[str]],
    initial: Arrays,
    advance: Advance,
) -> Arms:
    """Train the arms that the study requests, from the same initial weights, and evaluate them at every hospital.

    Args:
        name: the federated study's id; the arms' ids start with it.
        sizes: of its document.
        folder: where the arms' checkpoints go; what is there is not trained again.
        grid: plays the hospitals, and the imaginary ones.
        imaginary: for the arms ``pooled`` and ``shuffled``, the names of hospitals that have all patients; the latter
            has one for each permutation of the labels.
    """
    hospitals = {h: node for h, node in grid.nodes.items() if not any(h in each for each in imaginary.values())}
    settings, arms = _without_noise(study), Arms()
    known_sizes = {who: max(1, sizes.get(who, sum(sizes.values()))) for who in grid.nodes}

    def alone(who: str, label: str, judges: Mapping[str, int] | None = None) -> tuple[Arrays, dict[str, Evaluated]]:
        """Train at one hospital and evaluate there, or at the judges."""
        roster = Roster(document_of(settings, f"{name}.{label}", known_sizes), {who: grid.nodes[who]})
        checkpoints = folder / label.replace("local.", "local-")
        weights = _trained(settings, roster, grid, checkpoints=checkpoints, initial=initial, advance=advance)
        channel = Channel(grid, settings.federation.deadline_s)
        judging = replace(roster, nodes=dict(judges or roster.nodes))
        return weights, evaluate(channel, judging, weights, settings.federation.rounds)

    for arm in study.evaluation.arms:
        if arm == "local":
            for hospital in hospitals:
                arms.own[hospital], evaluated = alone(hospital, f"local.{hospital}")
                arms.local.update(evaluated)
        elif arm == "pooled":
            arms.pooled.update(alone(imaginary[arm][0], arm, hospitals)[1])
        else:
            arms.shuffled.extend(alone(who, who, hospitals)[1] for who in imaginary[arm])
    return arms


def again(
    study: Study,
    name: str,
    number: int,
    sizes: Mapping[str, int],
    folder: Path,
    grid: LocalGrid,
    initial: Arrays,
    shared: Arrays,
    advance: Advance,
) -> tuple[dict[str, Evaluated], dict[str, Evaluated]]:
    """Train the study once more, and the arm ``local`` if it has one, from the same initial weights; what differs is
    what training leaves to chance. Every model is evaluated without noise: only its own scatter is wanted.

    Args:
        name: of this repetition.
        number: of this repetition; where draws begin with a seed, it is another one.
        grid: plays the hospitals of this repetition, whose ledgers know no other.
        shared: those of the initial weights that are sent.

    Returns:
        The federated model and each hospital's own, at every hospital.
    """
    settings = _without_noise(study)
    noised = replace(study, evaluation=settings.evaluation)
    seed = (study.seed + number * _NEXT_SEED) % 2**32
    roster = Roster(document_of(replace(noised, seed=seed), name, sizes), dict(grid.nodes))
    weights = _trained(noised, roster, grid, checkpoints=folder / "federated", initial=shared, advance=advance)
    channel = Channel(grid, study.federation.deadline_s)
    federated = evaluate(channel, roster, weights, study.federation.rounds)
    local: dict[str, Evaluated] = {}
    for hospital in grid.nodes if "local" in study.evaluation.arms else ():
        document = document_of(replace(settings, seed=seed), f"{name}.local.{hospital}", sizes)
        one = Roster(document, {hospital: grid.nodes[hospital]})
        checkpoints = folder / f"local-{hospital}"
        weights = _trained(settings, one, grid, checkpoints=checkpoints, initial=initial, advance=advance)
        local |= evaluate(channel, one, weights, settings.federation.rounds)
    return federated, local


def _without_noise(study: Study) -> Study:
    rate = study.evaluation.arm_learning_rate or study.training.learning_rate
    final = study.evaluation.arm_final_rate or study.training.final_rate
    return replace(
        study,
        privacy=replace(study.privacy, epsilon=None, noise="own"),
        training=replace(study.training, learning_rate=rate, final_rate=final),
        evaluation=replace(
            study.evaluation,
            epsilon=None,
            bins=EXACT_BINS,
            edges="equal",
            every=study.federation.rounds,
            patience=0,
            deliver="last",
            subgroups=[],
            paired=False,
            matrix=0,
            pooled_only=False,
        ),
        federation=replace(study.federation, quorum=1.0, participation=1.0, over_selection=0.0),
        wire=Wire(),
        strategy=FedAvg(),  # a hospital alone has nothing to combine
    )


def _trained(
    study: Study, roster: Roster, grid: LocalGrid, *, checkpoints: Path, initial: Arrays, advance: Advance
) -> Arrays:
    label = roster.document.name.split(".", 1)[1]

    def publish(state: StudyState) -> None:
        write_state(checkpoints, state)
        advance(label, len(state.rounds), study.federation.rounds)

    state = read_state(checkpoints) or StudyState(initial)
    return run_rounds(study, roster, grid, state, publish).weights
