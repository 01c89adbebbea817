"""A study, wherever it runs: the remaining rounds, each one committed, then the results.

Tested in ``tests/server/test_play_study.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from flwr.serverapp import Grid

from conf import load as conf
from conf.groups import groups
from conf.schema.model import Deep
from conf.schema.study import Study
from server.pages import writing
from server.results import export
from server.results.results import Results
from server.rounds.checkpoint import model_file, read_state, read_trained, write_state
from server.rounds.ledger_witness import Witness
from server.rounds.round import run_rounds
from server.rounds.state import Roster, RoundRecord, StudyState
from server.strategy.client_terms import method_of
from server.study.document import document_in, model_of, weights_of
from server.study.folder import CHECKPOINTS, StudyFolder
from server.tracking.tracker import Tracker
from tasks import task as tasks
from tasks.models import registry
from tasks.models.model_file import digest
from tasks.models.parts import NothingToShare, staying
from tasks.protocol.wire import Arrays

Committed = Callable[[StudyState], None]


def initial_state(study: Study) -> StudyState:
    """The study before its first round.

    Raises:
        ConfigError: there is no such task or network, or the network has nothing to share.
    """
    try:
        task = tasks.get(study.task.name)
        network = registry.build(model_of(study), task.form, study.seed, weights_of(study))
        shared(study, {})
    except (tasks.UnknownTask, registry.UnknownModel) as error:
        raise conf.ConfigError(str(error)) from error
    except NothingToShare as error:
        raise conf.ConfigError(f"strategy={study.strategy.name}: {error}; {_with_layers(study)}") from error
    return StudyState(registry.arrays_of(network.trainable))


def _with_layers(study: Study) -> str:
    """What a strategy for deep models can be combined with."""
    if isinstance(study.model, Deep):
        return "set model.freeze=nothing"
    deep = [name for name, kind in groups()["model"].items() if issubclass(kind, Deep)]
    return f"networks of layers are {', '.join(deep)}"


def shared(study: Study, weights: Arrays) -> Arrays:
    """Those of a model's tensors that are sent under the study's strategy.

    Raises:
        NothingToShare: there are none, or none would stay at the hospital where some should.
    """
    stays = method_of(study.strategy).stays
    if stays == "nothing":
        return weights
    network = registry.build(model_of(study), tasks.get(study.task.name).form, find=weights_of(study))
    stay = staying(network.trainable, stays)
    return {name: value for name, value in weights.items() if name not in stay}


def play_rounds(
    study: Study,
    folder: StudyFolder,
    nodes: dict[str, int],
    grid: Grid,
    initial: Callable[[], StudyState],
    committed: Committed,
    witnessed: Path | None = None,
) -> StudyState:
    """Play the remaining rounds, after the last one that was committed. The study's folder has the hospitals' sizes.

    Args:
        nodes: the grid's node number of each invited hospital.
        initial: gives the study before its first round, which is asked for where nothing is committed yet. Nobody holds
            it while rounds are played: it is one model more.
        committed: called after each round, once it is on disk.
        witnessed: folder with the last ledger hash of each hospital that any study of a server has seen.

    Raises:
        StudyError: as ``server.rounds.round.run_rounds``.
    """
    checkpoints = folder.path / CHECKPOINTS

    def publish(state: StudyState) -> None:
        write_state(checkpoints, state)
        committed(state)

    states = [read_state(checkpoints) or _begun(study, initial())]
    seen = (read_trained(checkpoints, len(states[0].rounds)) or states[0]).ledger_heads
    roster = Roster(document_in(study, folder), nodes, Witness(seen, witnessed))
    return run_rounds(study, roster, grid, states.pop(), publish, checkpoints=checkpoints)


def _begun(study: Study, initial: StudyState) -> StudyState:
    return replace(initial, weights=shared(study, initial.weights))


def record(
    folder: StudyFolder,
    outcome: Results,
    state: StudyState,
    tracker: Tracker,
    conformance: Mapping[str, tuple[int, int]] | None = None,
) -> list[Path]:
    """Write the model, numbers, charts, report and model card, and pass them to the tracker. Returns the files."""
    model = export.write(folder, outcome, model_file(folder.path / CHECKPOINTS, state))
    folder.note(model_sha256=digest(model.read_bytes()))
    files = [*writing.write(folder, outcome, state.rounds, model, conformance), model]
    tracker.finish(state.rounds, outcome.metrics(), files)
    return files


def summary(last: RoundRecord) -> str:
    """A round in a few words."""
    auc, spent = last.mean_auc(), [h.epsilon for h in last.hospitals.values() if h.epsilon is not None]
    parts = [f"AUC {auc:.3f}" if auc is not None else "", f"epsilon {max(spent):.2f}" if spent else ""]
    parts.append(f"dropped: {', '.join(last.dropped)}" if last.dropped else "")
    parts.append(f"late: {', '.join(last.carried)}" if last.carried else "")
    parts.append(f"check: {', '.join(last.named)}" if last.named else "")
    parts.append(f"void: {len(last.void)}" if last.void else "")
    return "  ".join(filter(None, parts))
