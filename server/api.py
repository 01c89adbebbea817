"""Consilium from Python: configure a study, run or resume it, read what it found, score images with its model.

    from server import api

    study = api.configure("experiment=demo", "privacy.epsilon=3")
    found = api.run(study, lambda progress: print(progress.label, progress.done, progress.total))
    found.to_frame("hospitals")          # also "rounds", "arms": pandas data frames
    model = found.model()                # or api.load_model("model.safetensors")
    model.score(np.stack([model.example(grey)]))     # one score an image; grey: float32 (rows, columns), 0 to 1

A study of real hospitals is run by a server, with the same functions. Its settings say where that is:

    study = api.configure("experiment=deployed", "runtime.address=HOST:PORT", "runtime.authority=FILE",
                          "runtime.certificate=FILE")
    found = api.run(study)               # waits until it has ended, and fetches what it found
    name = api.submit(study)             # or leaves it to the server
    found = api.fetch_result(study, name)

This is the whole surface that other programs may build on; what they import from elsewhere may change with any release.
Settings are those of the command line, and so are the results: the study's folder holds the same report.

Tested in ``tests/federation/test_api.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from conf import load as conf
from conf.load import ConfigError
from conf.schema.runtime import SuperlinkRuntime
from conf.schema.study import Study
from server import launch, simulation
from server.__main__ import client_app, provision_hospitals
from server.errors import StudyError
from server.pages import writing
from server.results import results
from server.results.results import Results
from server.rounds.checkpoint import read_state
from server.rounds.state import HospitalRound
from server.simulation import Hospitals
from server.study.folder import CHECKPOINTS, StudyFolder
from server.study.survey import refuse_survey
from tasks import faults
from tasks import task as tasks
from tasks.metrics.interval import Interval
from tasks.models import model_file, registry
from tasks.models.model_file import BadModelFile, ModelHead
from tasks.models.network import Network
from tasks.task import Picture, Scan, Task

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "ConfigError",
    "Model",
    "Progress",
    "Study",
    "StudyError",
    "StudyResult",
    "configure",
    "fetch_result",
    "load_model",
    "read_result",
    "run",
    "submit",
]

What = Literal["hospitals", "rounds", "arms"]


@dataclass(frozen=True)
class Progress:
    """How far something has come.

    Attributes:
        label: what: ``federated`` for the study's own rounds, ``ingest NAME`` for a hospital's images, or an arm.
        note: of the last round, in a few words.
    """

    label: str
    done: int
    total: int
    note: str = ""


def configure(*settings: str) -> Study:
    """A study from settings as on the command line, such as ``experiment=demo`` and ``privacy.epsilon=3``.

    >>> configure("experiment=demo", "privacy.epsilon=3").privacy.epsilon
    3.0

    Raises:
        ConfigError: listing everything that is wrong.
        StudyError: ``resume=NAME`` names no study that can go on.
    """
    return launch.named(conf.load(settings))


def run(study: Study, progress: Callable[[Progress], None] | None = None) -> StudyResult:
    """Run a study to its end, on this machine or, with ``runtime=superlink``, on a server.

    One that was interrupted goes on after its last committed round: call it again with the same settings.

    Args:
        progress: called from this thread whenever something has come further. What it raises ends the study, which can
            be resumed; on a server it only ends the waiting.

    Raises:
        ConfigError: there is no such task or network, or this is no study to run; nothing was done.
        StudyError: with what, where, why and the remedy.
    """
    _refuse_all_but_studies(study)
    listener = _Told(progress)
    if not isinstance(study.runtime, SuperlinkRuntime):
        return _result(simulation.play(study, provision_hospitals, client_app, listener).folder)
    if not study.runtime.follow:
        raise ConfigError("runtime.follow=false: run waits until a study has ended; leave it there with submit")
    return _result(launch.hand_over(study, study.runtime, listener.warn).follow(listener).folder)


def submit(study: Study) -> str:
    """Leave a study to a server, which runs it. Returns its name.

    With the same settings ``run`` waits for it, as it does with ``resume=NAME``.

    Raises:
        ConfigError: it has no server, there is no such task or network, or this is no study to run; nothing was done.
        StudyError: the server cannot be asked, or refuses it.
    """
    _refuse_all_but_studies(study)
    return launch.hand_over(study, _server(study), _Told(None).warn).name


def fetch_result(study: Study, name: str) -> StudyResult:
    """What a study has found that has ended on a server; the files come into the folder of ``study``'s results.

    Args:
        study: whose ``runtime`` says where the server is.

    Raises:
        ConfigError: it has no server.
        StudyError: there is none of that name, it has not ended, or the server cannot be asked.
    """
    return _result(launch.fetched(study, _server(study), name).folder)


def _server(study: Study) -> SuperlinkRuntime:
    if not isinstance(study.runtime, SuperlinkRuntime):
        raise ConfigError(
            "this study has no server: configure it with experiment=deployed, runtime.address=HOST:PORT, "
            "runtime.authority=FILE and runtime.certificate=FILE; on this machine it is run by run"
        )
    return study.runtime


def _refuse_all_but_studies(study: Study) -> None:
    refuse_survey(study)
    if study.propose:
        raise ConfigError(
            f"propose={study.propose} writes a document and runs nothing; leave it out here; the command does it"
        )


def read_result(folder: Path | str) -> StudyResult:
    """What a study has found that ended earlier; ``folder`` is one of ``outputs/studies``.

    Raises:
        StudyError: it holds no results of this release.
    """
    return _result(Path(folder))


def load_model(path: Path | str) -> Model:
    """A study's model from the file that the study or ``consilium export`` has written.

    Raises:
        StudyError: it is no such file, or this release computes something else with it.
    """
    path = Path(path)
    try:
        head, arrays, find = model_file.unpack(path.read_bytes())
        task = tasks.get(head.task)
        network = registry.build(head.model, task.form, find=find)
    except OSError as error:
        raise StudyError(f"cannot read {faults.of_system(error)}") from error
    except (BadModelFile, tasks.UnknownTask, registry.UnknownModel) as error:
        raise StudyError(f"{path}: {error}") from error
    if problems := registry.misfits(network.trainable, arrays):
        raise StudyError(f"{path} cannot be used outside its study: {'; '.join(problems)}")
    registry.load_arrays(network.trainable, arrays)
    network.trainable.eval()
    if not model_file.agrees(head.probe, model_file.probe(task, network)):
        raise StudyError(
            f"{path} is of release {head.release} and gives other results here: install that release, with the "
            "versions in its constraints.txt"
        )
    return Model(head, task, network)


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        folder: with report, model, charts and numbers.
        results: all figures, as the report has them.
    """

    folder: Path
    results: Results

    @property
    def name(self) -> str:
        """The study's name."""
        return self.results.study

    @property
    def report(self) -> Path:
        """The report, one page of HTML."""
        return self.folder / writing.REPORT

    def to_frame(self, of: What = "hospitals") -> DataFrame:
        """Figures as a table.

        Args:
            of: ``hospitals``: one row each, with the federated model's AUC and interval, the gain over the hospital
                alone, what was spent and sent. ``arms``: one row for each arm and hospital. ``rounds``: one row for
                each round and hospital; only of studies that ran on this machine.

        Raises:
            ValueError: there is no such table.
            StudyError: the study's rounds are not in its folder.
        """
        import pandas

        rows = {"hospitals": self._hospitals, "arms": self._arms, "rounds": self._rounds}
        if of not in rows:
            raise ValueError(f"to_frame({of!r}): choose one of {', '.join(rows)}")
        return pandas.DataFrame.from_records(rows[of]())

    def model(self) -> Model:
        """The study's model.

        Raises:
            StudyError: a part of it stays at the hospitals, or the file is missing.
        """
        return load_model(self.folder / model_file.FILE)

    def _hospitals(self) -> list[dict[str, Any]]:
        found = self.results
        return [
            {
                "hospital": hospital,
                **_auc(found.arms["federated"][hospital]),
                **_interval("gain", found.gains.get(hospital)),
                "epsilon": epsilon,
                "validation_epsilon": found.validation_epsilon.get(hospital),
                "bytes_down": found.bytes_down[hospital],
                "bytes_up": found.bytes_up[hospital],
            }
            for hospital, epsilon in found.epsilon.items()
            if hospital in found.arms.get("federated", {})
        ]

    def _arms(self) -> list[dict[str, Any]]:
        return [
            {"arm": arm, "hospital": hospital, **_auc(figures)}
            for arm, hospitals in self.results.arms.items()
            for hospital, figures in hospitals.items()
        ]

    def _rounds(self) -> list[dict[str, Any]]:
        state = read_state(self.folder / CHECKPOINTS)
        if state is None:
            raise StudyError(f"{self.folder} holds no rounds: they stay where the study ran")
        return [
            {"round": record.number, "seconds": record.seconds, "hospital": hospital, **asdict(figures)}
            for record in state.rounds
            for hospital, figures in record.hospitals.items()
        ]


@dataclass(frozen=True, repr=False)
class Model:
    """A study's model, ready to score. Not for clinical use.

    Attributes:
        head: what it belongs to; the threshold, a score, from which its study's report calls a patient positive; and
            the calibration, by which a patient's mean score becomes a probability.
    """

    head: ModelHead
    task: Task
    network: Network

    @torch.no_grad()
    def score(self, examples: NDArray[np.float32]) -> NDArray[np.float64]:
        """Scores of the event from 0 to 1, shape (images,), for float32 examples of shape (images,
        *task.example_shape), as ``example`` makes them.

        Raises:
            ValueError: they have another shape.
        """
        wanted = self.task.example_shape
        if examples.shape[1:] != wanted:
            raise ValueError(f"examples have shape {examples.shape}, {self.task.name} needs (images, {str(wanted)[1:]}")
        inputs = torch.from_numpy(np.ascontiguousarray(examples, dtype=np.float32))
        return self.task.form.scores(self.network.outputs(inputs))

    def example(self, image: NDArray[np.float32] | Picture | Scan) -> NDArray[np.float32]:
        """An image or a scan as hospitals bring it to the model: float32 of shape ``task.example_shape``. An array is a
        picture's grey values from 0 to 1, of shape (rows, columns)."""
        return self.task.read_example(Picture(image) if isinstance(image, np.ndarray) else image)

    def __repr__(self) -> str:
        return f"Model(study={self.head.study!r}, task={self.task.name!r}, threshold={self.head.threshold})"


@dataclass(frozen=True)
class _Told:
    """A ``Listener`` that hands progress on."""

    progress: Callable[[Progress], None] | None

    def begun(self, study: Study, folder: StudyFolder, hospitals: Hospitals) -> None:
        """Nobody reads it."""

    def warn(self, text: str) -> None:
        """Show it where Python shows warnings."""
        import warnings

        warnings.warn(text, stacklevel=2)

    def advance(self, label: str, done: int, total: int, note: str = "") -> None:
        """Hand it on."""
        if self.progress is not None:
            self.progress(Progress(label, done, total, note))


def _auc(figures: HospitalRound) -> dict[str, float | None]:
    return {"auc": figures.shown_auc, "auc_low": figures.auc_low, "auc_high": figures.auc_high}


def _interval(name: str, found: Interval | None) -> dict[str, float | None]:
    point = found.value if found is not None and found.firm else None
    ends = {"low": None, "high": None} if found is None else {"low": found.low, "high": found.high}
    return {name: point} | {f"{name}_{end}": value for end, value in ends.items()}


def _result(folder: Path) -> StudyResult:
    return StudyResult(folder, results.read(folder / writing.NUMBERS))
