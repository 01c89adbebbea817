"""One study: all groups, and what belongs to none.

Tested in ``tests/conf/test_schema.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from conf.schema.ask import Ask
from conf.schema.constraints import MISSING, ExperimentName, Seed, SettingsGroup, matches, one_of, rule
from conf.schema.evaluation import Evaluation
from conf.schema.federation import Federation
from conf.schema.model import ModelSettings
from conf.schema.privacy import Privacy
from conf.schema.report import Report
from conf.schema.runtime import Runtime
from conf.schema.strategy import StrategySettings
from conf.schema.task import TaskSettings
from conf.schema.tracking import Tracking
from conf.schema.training import TrainingSettings
from conf.schema.wire import Wire

OBJECTIVES = ("mean_auc", "worst_auc", "pooled_auc", "mean_dice")
_RESUME = r"auto|never|[A-Za-z0-9][A-Za-z0-9_.-]{0,39}-[0-9a-f]{8}-[0-9]{1,6}"


@dataclass
class Study(SettingsGroup):
    """One study: everything that its results depend on."""

    experiment: ExperimentName = "study"
    """The experiment's name; names the study's folder."""
    task: TaskSettings = field(default_factory=lambda: TaskSettings(MISSING))
    """The clinical question."""
    model: ModelSettings = field(default_factory=ModelSettings)
    """The network."""
    strategy: StrategySettings = field(default_factory=StrategySettings)
    """How updates are combined."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    """What a hospital does within one round."""
    privacy: Privacy = field(default_factory=Privacy)
    """What patients are promised."""
    federation: Federation = field(default_factory=Federation)
    """Who takes part."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """What is measured."""
    ask: Ask = field(default_factory=Ask)
    """What is asked in place of a study, if anything."""
    wire: Wire = field(default_factory=Wire)
    """In what form tensors travel."""
    runtime: Runtime = field(default_factory=Runtime)
    """Where hospitals run."""
    tracking: Tracking = field(default_factory=Tracking)
    """Where results are recorded."""
    report: Report = field(default_factory=Report)
    """How results are reported."""
    seed: Seed = 1
    """Draws splits, phantoms and initial weights. Never the privacy noise."""
    data_root: str = ""
    """Folder of the real images for experiments that use some."""
    archive: str = ""
    """File of MedMNIST that ``experiment=medmnist`` reads, such as ``FOLDER/pathmnist.npz``; its name, the published
    one, says which task it is."""
    output_dir: Annotated[str, rule("is empty", lambda value: value.strip() != "")] = "outputs"
    """Folder of studies, phantoms, simulated hospitals and the MLflow store."""
    objective: Annotated[str, one_of(*OBJECTIVES)] = "mean_auc"
    """What a search over settings makes as large as it can, of the federated model: ``mean_auc`` over hospitals,
    ``worst_auc`` of one, ``pooled_auc`` of all patients, ``mean_dice`` over structures."""
    propose: str = ""
    """Write the document that the hospitals are asked to approve to this file, and run nothing."""
    resume: Annotated[str, matches(_RESUME, "must be one of auto, never, or the name of a study")] = "auto"
    """``auto`` continues the newest unfinished study of this very configuration; ``never`` starts a new one;
    a study's name continues or follows that study with its own configuration, of which only ``runtime``, ``tracking``,
    ``report`` and ``output_dir`` are taken from here."""
