"""Who may import whom, drawn from the source itself.

    conf <- tasks <- client
    conf <- tasks <- server          server/__main__.py alone composes client and server

Inside a package rooms see what ``ROOMS`` says, which knows no ring. Every name is imported from the module that defines
it, and no two classes share one. Each third-party library with a seam is
imported in the files of its seam only. Every rule is shown a violation, so a rule that sees nothing cannot pass.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("conf", "tasks", "client", "server")
MAY_SEE = {
    "conf": {"conf"},
    "tasks": {"conf", "tasks"},
    "client": {"conf", "tasks", "client"},
    "server": {"conf", "tasks", "server"},
}
CLIENT_ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "pixels": set(),
    "reading": {"pixels"},
    "sources": {"errors", "pixels", "reading"},
    "sources.labels": {"errors", "pixels", "reading", "sources"},
    "sources.files": {"errors", "pixels", "reading", "sources", "sources.labels"},
    "sources.pacs": {"errors", "pixels", "sources", "sources.labels", "sources.files"},
    "sources.listing": {"sources", "sources.files", "sources.pacs"},
    "site": {"errors", "sources"},
    "ledger": {"errors"},
    "secure_sum": {"errors", "site", "ledger"},
    "policy": {"errors", "site", "secure_sum"},
    "cohort": {"errors", "pixels", "reading", "sources", "sources.labels", "sources.listing", "site", "ledger"},
    "training": {"errors", "site", "policy", "ledger", "cohort"},
    "report": {"errors", "ledger", "secure_sum", "cohort", "training"},
    "oversight": {"errors", "site", "policy", "ledger", "cohort"},
    "app": {"errors", "site", "policy", "ledger", "secure_sum", "cohort", "training", "report", "oversight"},
    "setup": {
        "errors",
        "pixels",
        "reading",
        "sources",
        "sources.labels",
        "sources.files",
        "site",
        "policy",
        "ledger",
        "secure_sum",
        "cohort",
        "training",
        "oversight",
    },
    "link": {"errors", "sources", "site", "ledger", "secure_sum", "oversight", "app"},
    "evidence": {"sources", "site", "ledger", "oversight"},
    "dashboard": {"errors", "site", "ledger", "oversight", "link"},
    "prediction": {
        *("errors", "pixels", "reading", "sources", "sources.labels", "sources.files", "sources.pacs"),
        *("site", "cohort", "oversight"),
    },
    "cli": {
        *("errors", "site", "policy", "ledger", "cohort", "training", "oversight", "setup", "link", "evidence"),
        *("dashboard", "prediction"),
    },
}
SERVER_ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "runtime": set(),
    "strategy": {"errors"},
    "rounds": {"errors", "strategy"},
    "study": {"errors", "runtime", "strategy", "rounds"},
    "tracking": {"errors", "rounds", "study"},
    "deployment": {"errors", "runtime", "rounds", "study"},
    "results": {"errors", "rounds", "study", "tracking"},
    "pages": {"errors", "rounds", "study", "results"},
    "run_study": {"strategy", "rounds", "study", "tracking", "results", "pages"},
    "run_survey": {"errors", "rounds", "study", "tracking", "results", "pages"},
    "encoder": {"errors"},
    "refusals": set(),
    "sweep": set(),
    "commands": {"errors", "refusals", "study", "tracking", "deployment", "results", "pages", "encoder"},
    "app": {"errors", "runtime", "rounds", "study", "tracking", "deployment", "results", "run_study", "run_survey"},
    "simulation": {"errors", "runtime", "rounds", "study", "tracking", "results", "run_study"},
    "launch": {
        *("errors", "runtime", "rounds", "study", "deployment", "results", "pages"),
        *("run_study", "simulation"),
    },
    "launch_survey": {
        *("runtime", "study", "tracking", "deployment", "results"),
        *("run_survey", "simulation", "launch"),
    },
    "command_line": {
        *{"errors", "refusals", "sweep", "runtime", "study", "results", "commands", "simulation", "launch"},
        "launch_survey",
    },
    "evidence": {"errors", "study", "deployment"},
    "dashboard": {"errors", "study", "deployment"},
    "cli": {"errors", "runtime", "rounds", "study", "deployment", "evidence", "dashboard"},
    "__main__": {"errors", "study", "commands", "simulation", "command_line"},
    "api": {"errors", "study", "rounds", "results", "pages", "simulation", "launch", "__main__"},
    "entry": {"cli", "__main__"},
}
SHARED_IN_TASKS = {"imaging", "machine", "medmnist", "metrics", "models", "phantoms", "protocol", "template"}
TASKS = sorted({path.parent.name for path in (ROOT / "tasks").glob("*/__init__.py")} - SHARED_IN_TASKS)
"""The clinical tasks. A new one is not registered here: each has the same two rooms, its own and its phantoms'."""
VARIANTS = {
    "breast_ultrasound_three": "breast_ultrasound",
    "ejection_fraction": "cardiac_ultrasound",
    "hand_xray": "chest_xray",
    "heart_size": "chest_xray",
    "heart_views": "cardiac_ultrasound",
    "left_heart": "cardiac_ultrasound",
}
"""Tasks that ask otherwise about the pictures of another one, and share how these are read and drawn."""
TASK_ROOMS: dict[str, set[str]] = {
    "codes": set(),
    "answers": {"codes"},
    "exclusion": set(),
    "input_spec": {"answers", "exclusion"},
    "contract": set(),
    "metrics": set(),
    "faults": set(),
    "protocol": {"faults"},
    "losses": {"answers", "exclusion", "input_spec"},
    "machine": {"faults", "protocol"},
    "task": {"codes", "answers", "exclusion", "input_spec", "losses"},
    "tables": {"answers", "metrics", "protocol", "task"},
    "imaging": {"task"},
    "medmnist": {"codes", "answers", "task", "imaging"},
    "models": {"input_spec", "metrics", "protocol", "task"},
    "phantoms": {"answers", "codes", "task"},
    **{name: {"codes", "answers", "task", "imaging"} for name in (*TASKS, "template")},
    **{f"phantoms.{name}": {"task", "phantoms", name} for name in (*TASKS, "template")},
    **{name: {"codes", "answers", "task", of} for name, of in VARIANTS.items()},
    "ejection_fraction": {"codes", "answers", "task", "imaging", "cardiac_ultrasound"},
    **{f"phantoms.{name}": {"task", "phantoms", f"phantoms.{of}", name} for name, of in VARIANTS.items()},
    "new_task": {"answers", "template"},
}
ROOMS = {"client": CLIENT_ROOMS, "server": SERVER_ROOMS, "tasks": TASK_ROOMS}
"""What a room of a package, or a file that counts as one, may import; it names only what is named before it. A room
within a room is known by its path."""
BESIDE_ITS_ROOM = {"privacy": "training"}
"""Files that stand beside the rooms because their readers look for them there, and belong to one all the same."""
COMPOSER = "server/__main__.py"
SEAMS: dict[str, tuple[str, ...]] = {
    "opacus": ("client/privacy.py", "tasks/models/unprivate.py"),
    "onnx": ("tasks/models/encoders/graph.py",),
    "onnxruntime": ("tasks/models/encoders/graph.py",),
    "dp_accounting": ("client/ledger/accounting.py",),
    "mlflow": ("server/tracking/*.py",),
    "hydra": ("conf/load.py", "conf/overrides.py", "server/command_line.py"),
    "omegaconf": ("conf/load.py", "conf/overrides.py", "server/command_line.py"),
    "pydicom": (
        *(f"client/{room}/*.py" for room in ("pixels", "reading", "sources", "sources/*", "prediction")),
        "tasks/phantoms/*.py",
    ),
    "prometheus_client": ("tasks/machine/exposition.py",),
    "pynetdicom": (
        "client/sources/pacs/*.py",
        "client/prediction/store.py",
        "client/prediction/commitment.py",
        "client/prediction/conformance.py",
    ),
}
PUBLIC_FLOWER = {"flwr.app", "flwr.clientapp", "flwr.serverapp"}
FLOWER_SEAMS = tuple(
    f"{room}/flower_{part}.py"
    for room, parts in {"client/link": ("gateway", "trainer"), "server/runtime": ("private", "replies")}.items()
    for part in parts
)
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc"}
NEVER = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNS_TEXT = {"eval", "exec", "__import__"}
IMPORTS_BY_NAME = {"import_module", "load_module", "exec_module", "run_path", "run_module"}
MAY_IMPORT_BY_NAME = ("tasks/task.py",)
MAY_LOOK_UP_CODE = ("tasks/models/installed.py",)
MAY_READ_TENSORS = ("server/encoder.py",)
SLOW = {"mlflow", "monai", "opacus", "pandas", "sklearn"}
LONGEST_FUNCTION = 60
MOST_NAMELESS = 5


@dataclass(frozen=True)
class Import:
    """One imported module: ``module`` may be the object in it as well, as in ``from conf import schema``."""

    file: str
    line: int
    module: str

    @property
    def top(self) -> str:
        return self.module.split(".")[0]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def imports(file: str, source: str, *, at_import_time: bool = False) -> Iterator[Import]:
    """All imports of a source file, those inside functions as well unless ``at_import_time``."""
    tree = ast.parse(source)
    nodes = _run_at_import(tree) if at_import_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*_package(file, node.level), *filter(None, [node.module])])
            for alias in node.names:
                yield Import(file, node.lineno, f"{base}.{alias.name}")


def _run_at_import(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _run_at_import(node)


def _package(file: str, level: int) -> list[str]:
    """The package that a relative import of this level starts from."""
    if level == 0:
        return []
    folders = list(PurePosixPath(file).parent.parts)
    return folders[: len(folders) - (level - 1)]


def _within(file: str, patterns: tuple[str, ...]) -> bool:
    return any(PurePosixPath(file).match(pattern) and file.count("/") == pattern.count("/") for pattern in patterns)


# --- the rules: each gives what breaks it -----------------------------------------------------------------------------


def wrong_arrows(file: str, source: str) -> list[str]:
    """Packages see only what stands left of them."""
    if file == COMPOSER:
        return []
    allowed = MAY_SEE[file.split("/")[0]]
    return [str(i) for i in imports(file, source) if i.top in (*PACKAGES, "tests") and i.top not in allowed]


def wrong_rooms(file: str, source: str) -> list[str]:
    """Each room sees the rooms that it names, and nothing has a place outside of them."""
    package = file.split("/")[0]
    own = _room(package, PurePosixPath(file).with_suffix("").parts)
    if own is None:
        return []
    if own not in ROOMS[package]:
        return [f"{file} stands in no room"]
    seen = ((i, _room(package, tuple(i.module.split(".")))) for i in imports(file, source))
    return [str(i) for i, room in seen if room is not None and room not in {own} | ROOMS[package][own]]


def _room(package: str, parts: tuple[str, ...]) -> str | None:
    """The room of a file or module, by its path: the innermost that is known; ``None`` outside the package."""
    if package not in ROOMS or parts[0] != package or parts[1:2] in ((), ("__init__",)):
        return None
    inner = ".".join(parts[1:3])
    return inner if inner in ROOMS[package] else BESIDE_ITS_ROOM.get(parts[1], parts[1])


def second_homes(file: str, source: str) -> list[str]:
    """A name is imported from the module that defines it, not from one that imports it as well; only a seam may hand a
    library's name on, in its ``__all__``."""
    found = []
    for i in imports(file, source):
        module, _, name = i.module.rpartition(".")
        path = f"{module.replace('.', '/')}.py"
        if path in sources() and name != "*" and name not in _defined(sources()[path]):
            found.append(f"{i}, which is not defined there")
    return found


@cache
def _defined(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(source).body:
        for inner in [node, *([] if not isinstance(node, ast.If | ast.Try) else node.body)]:
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(inner.name)
            elif isinstance(inner, ast.Assign | ast.AnnAssign):
                names |= {part.id for part in ast.walk(inner) if isinstance(part, ast.Name)}
                if "__all__" in names:
                    names |= {part.value for part in ast.walk(inner) if isinstance(part, ast.Constant)}
    return names


def wrong_configuration(file: str, source: str) -> list[str]:
    """Hospitals know the configuration's schema, not its files."""
    if not file.startswith("client/"):
        return []
    return [str(i) for i in imports(file, source) if i.top == "conf" and not i.module.startswith("conf.schema")]


def wrong_neighbours(file: str, source: str) -> list[str]:
    """A task's folder and its phantoms' know the kernel and their own task; the kernel knows no task by name."""
    if not file.startswith("tasks/"):
        return []
    own = _task(tuple(file.split("/")))
    allowed = {None, own, VARIANTS.get(own or "")}
    return [str(i) for i in imports(file, source) if _task(tuple(i.module.split("."))) not in allowed]


def _task(parts: tuple[str, ...]) -> str | None:
    """The clinical task that a file or module belongs to, if it belongs to one."""
    named = [part for part in parts[1:] if part != "phantoms"][:1]
    return named[0] if parts[0] == "tasks" and named and named[0] in TASKS else None


def wrong_seams(file: str, source: str) -> list[str]:
    """One library, one seam."""
    return [str(i) for i in imports(file, source) if i.top in SEAMS and not _within(file, SEAMS[i.top])]


def private_flower(file: str, source: str) -> list[str]:
    """Flower changes what is not public; one file a side adapts."""
    if file in FLOWER_SEAMS:
        return []
    found = [i for i in imports(file, source) if i.top == "flwr"]
    return [str(i) for i in found if not any(f"{i.module}.".startswith(f"{public}.") for public in PUBLIC_FLOWER)]


def code_from_elsewhere(file: str, source: str) -> list[str]:
    """Nothing that could run what a file or the network brings."""
    looked_up = set() if file in MAY_LOOK_UP_CODE else {"importlib.metadata.entry_points"}
    found = [str(i) for i in imports(file, source) if i.top in NEVER or i.module in looked_up]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            by_name = called.split(".")[-1] in IMPORTS_BY_NAME and file not in MAY_IMPORT_BY_NAME
            if by_name or called in RUNS_TEXT or (called == "torch.load" and not _tensors_alone(file, node)):
                found.append(f"{file}:{node.lineno} calls {called}")
    return found


def _tensors_alone(file: str, call: ast.Call) -> bool:
    """Whether PyTorch's reader that runs nothing is asked, where a person converts a file by hand."""
    return file in MAY_READ_TENSORS and any(
        word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in call.keywords
    )


def drawers(file: str, source: str) -> list[str]:
    """A helper lives beside its one user or gets a noun."""
    return [f"{file} is a drawer" for part in PurePosixPath(file).with_suffix("").parts if part in DRAWERS]


def busy_packages(file: str, source: str) -> list[str]:
    """Importing a package must not import its rooms; only a task's folder defines something."""
    if not file.endswith("__init__.py") or (file.startswith("tasks/") and "TASK = " in source):
        return []
    return [str(i) for i in imports(file, source)]


def long_functions(file: str, source: str) -> list[str]:
    """What does not fit a screen is more than one thought."""
    return [
        f"{file}:{node.lineno} {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    ]


def nameless_arguments(file: str, source: str) -> list[str]:
    """Whoever reads a call with many arguments must not have to count them."""
    return [
        f"{file}:{node.lineno} {ast.unparse(node.func)} takes {len(node.args)} arguments without a name"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and len(node.args) > MOST_NAMELESS
    ]


RULES = [
    wrong_arrows,
    wrong_rooms,
    second_homes,
    wrong_configuration,
    wrong_neighbours,
    wrong_seams,
    private_flower,
    code_from_elsewhere,
    drawers,
    busy_packages,
    long_functions,
    nameless_arguments,
]


@cache
def sources() -> dict[str, str]:
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in found}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    found = [problem for file, source in sources().items() for problem in rule(file, source)]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        (wrong_arrows, "client/app.py", "from server import rounds"),
        (wrong_arrows, "client/app.py", "import server.rounds.round"),
        (wrong_arrows, "server/rounds/round.py", "def f():\n    from client.app import app"),
        (wrong_arrows, "server/app.py", "if TYPE_CHECKING:\n    from client import ledger"),
        (wrong_arrows, "tasks/protocol/wire.py", "from client.ledger.ledger import Ledger"),
        (wrong_arrows, "conf/load.py", "from tasks import task"),
        (wrong_arrows, "server/rounds/round.py", "import tests.server"),
        (wrong_rooms, "client/ledger/ledger.py", "from client.cohort.catalog import ingest"),
        (wrong_rooms, "client/ledger/ledger.py", "from client import site"),
        (wrong_rooms, "client/cohort/index.py", "def f():\n    from client.training import train"),
        (wrong_rooms, "client/cohort/index.py", "from client.privacy import PatientSteps"),
        (wrong_rooms, "client/pixels/pixel_format.py", "import client.reading.dicom"),
        (wrong_rooms, "client/sources/files/folder.py", "from ...site import load"),
        (wrong_rooms, "client/sources/labels/reports.py", "from client.sources.files import folder"),
        (wrong_rooms, "client/sources/record.py", "from client.sources.labels.table import Labels"),
        (wrong_rooms, "client/training/train.py", "from client.sources.pacs.web import get"),
        (wrong_rooms, "client/prediction/store.py", "from client.setup import page"),
        (wrong_rooms, "client/training/train.py", "from client.app import app"),
        (wrong_rooms, "client/attic.py", ""),
        (wrong_rooms, "server/strategy/fedavg.py", "from server.rounds.state import Roster"),
        (wrong_rooms, "server/rounds/round.py", "from server.runtime.local_grid import LocalGrid"),
        (wrong_rooms, "server/tracking/tracker.py", "def f():\n    from server.results import figures"),
        (wrong_rooms, "server/attic.py", ""),
        (wrong_rooms, "tasks/protocol/wire.py", "from tasks.models import registry"),
        (wrong_rooms, "tasks/metrics/paired.py", "from tasks.task import Task"),
        (second_homes, "client/app.py", "from client.cohort.catalog import load_masks"),
        (second_homes, "server/run_study.py", "from server.rounds.round import Roster"),
        (wrong_configuration, "client/site.py", "from conf import load"),
        (wrong_configuration, "client/site.py", "from conf.load import load"),
        (wrong_neighbours, "tasks/phantoms/pneumonia_xray/phantom.py", "from tasks.breast_ultrasound import scanner"),
        (wrong_neighbours, "tasks/phantoms/pneumonia_xray/phantom.py", "from tasks import breast_ultrasound"),
        (wrong_neighbours, "tasks/phantoms/pneumonia_xray/phantom.py", "from ..breast_ultrasound import scanner"),
        (wrong_neighbours, "tasks/phantoms/pneumonia_xray/phantom.py", "from tasks.phantoms.lung_ct import scanner"),
        (wrong_neighbours, "tasks/phantoms/fields.py", "from tasks.breast_ultrasound import TASK"),
        (wrong_neighbours, "tasks/task.py", "from tasks.breast_ultrasound import TASK"),
        (wrong_rooms, "tasks/brain_mr/example.py", "from tasks.phantoms.fields import Field"),
        (wrong_rooms, "tasks/task.py", "def f():\n    from tasks.phantoms.brain_mr import phantom"),
        (wrong_neighbours, "tasks/models/registry.py", "import tasks.breast_ultrasound.example"),
        (wrong_seams, "client/training/train.py", "from opacus.optimizers import DPOptimizer"),
        (wrong_seams, "client/privacy.py", "import dp_accounting as dp"),
        (wrong_seams, "server/rounds/round.py", "def f():\n    import mlflow"),
        (wrong_seams, "client/report.py", "import mlflow"),
        (wrong_seams, "server/study/document.py", "from omegaconf import OmegaConf"),
        (wrong_seams, "conf/schema/study.py", "import hydra"),
        (wrong_seams, "server/results/results.py", "import pydicom"),
        (wrong_seams, "tasks/breast_ultrasound/example.py", "from pydicom import dcmread"),
        (wrong_seams, "client/cohort/index.py", "import pydicom"),
        (wrong_seams, "client/reading/dicom.py", "import pynetdicom"),
        (private_flower, "server/rounds/round.py", "from flwr.supercore.run import Run"),
        (private_flower, "client/app.py", "import flwr.proto.message_pb2"),
        (private_flower, "tasks/protocol/wire.py", "from flwr.common import Metrics"),
        (private_flower, "tasks/protocol/wire.py", "from flwr import common"),
        (code_from_elsewhere, "client/app.py", "import pickle"),
        (code_from_elsewhere, "server/rounds/checkpoint.py", "import torch\ntorch.load('x')"),
        (code_from_elsewhere, "server/rounds/checkpoint.py", "import torch\ntorch.load('x', weights_only=True)"),
        (code_from_elsewhere, "server/encoder.py", "import torch\ntorch.load('x', weights_only=False)"),
        (code_from_elsewhere, "client/app.py", "import importlib\nimportlib.import_module(name)"),
        (code_from_elsewhere, "client/app.py", "eval(text)"),
        (code_from_elsewhere, "client/app.py", "from importlib.metadata import entry_points"),
        (drawers, "server/utils.py", ""),
        (drawers, "client/common/paths.py", ""),
        (drawers, "tasks/helpers.py", ""),
        (busy_packages, "client/__init__.py", "from client import app"),
        (busy_packages, "tasks/models/__init__.py", "import torch"),
        (long_functions, "server/rounds/round.py", "def f():\n" + "    x = 1\n" * 60),
        (nameless_arguments, "client/app.py", "train(a, b, c, d, e, f)"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_rule_would_see_a_violation(rule, file: str, source: str) -> None:  # type: ignore[no-untyped-def]
    assert rule(file, source)


@pytest.mark.parametrize(
    ("rule", "file", "source"),
    [
        (wrong_arrows, COMPOSER, "from client.setup import virtual\nfrom server import launch"),
        (wrong_arrows, "client/app.py", "from tasks import wire\nfrom conf import schema\nimport serverless"),
        (wrong_configuration, "client/setup/virtual.py", "from conf import schema\nfrom conf.schema import Study"),
        (wrong_rooms, "client/__init__.py", ""),
        (
            wrong_rooms,
            "client/app.py",
            "from client import report\nfrom client.training import noise",
        ),
        (wrong_rooms, "client/training/train.py", "from client import privacy\nfrom client.training import noise"),
        (wrong_rooms, "client/privacy.py", "from client.training.noise import noised"),
        (
            wrong_rooms,
            "server/rounds/round.py",
            "from server.rounds import state\nfrom server.errors import RoundFailed",
        ),
        (
            second_homes,
            "server/run_study.py",
            "from server.rounds.state import Roster\nfrom server.rounds import round",
        ),
        (wrong_neighbours, "tasks/phantoms/lung_ct/phantom.py", "from tasks.phantoms.lung_ct import scanner"),
        (wrong_neighbours, "tasks/phantoms/lung_ct/phantom.py", "from tasks.lung_ct import TASK"),
        (wrong_neighbours, "tasks/phantoms/lung_ct/phantom.py", "from tasks.phantoms import fields"),
        (wrong_seams, "client/privacy.py", "import opacus"),
        (wrong_seams, "server/tracking/tracker.py", "import mlflow"),
        (wrong_seams, "client/sources/pacs/dimse.py", "import pynetdicom"),
        (private_flower, "server/runtime/flower_private.py", "from flwr.supercore.run import Run"),
        (private_flower, "client/app.py", "from flwr.app import Message\nfrom flwr.clientapp import ClientApp"),
        (code_from_elsewhere, "tasks/task.py", "import_module(f'tasks.{name}')"),
        (code_from_elsewhere, "client/training/train.py", "module.eval()"),
        (long_functions, "server/rounds/round.py", "def f():\n" + "    x = 1\n" * 59),
        (nameless_arguments, "client/app.py", "train(a, b, c, d, e, memory=f)"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_rule_lets_pass_what_is_meant_to(rule, file: str, source: str) -> None:  # type: ignore[no-untyped-def]
    assert rule(file, source) == []


@pytest.mark.parametrize("package", ROOMS)
def test_the_rooms_stand_in_an_order_and_every_arrow_is_used(package: str) -> None:
    rooms, before = ROOMS[package], set[str]()
    for room, seen in rooms.items():
        assert seen <= before, f"{room} would see itself by a detour"
        before.add(room)
    drawn: dict[str, set[str]] = {room: set() for room in rooms}
    for file, source in sources().items():
        if own := _room(package, PurePosixPath(file).with_suffix("").parts):
            modules = (tuple(i.module.split(".")) for i in imports(file, source))
            drawn[own] |= {room for parts in modules if (room := _room(package, parts))} - {own}
    for room in (*TASKS, "template") if package == "tasks" else ():
        drawn[room] |= {"answers"}  # of yes-or-no questions nothing is declared
    assert drawn == rooms


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a ring, each ring once."""
    found: list[list[str]] = []
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
        elif module not in done:
            for other in sorted(graph.get(module, ())):
                walk(other, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found


def at_import(names: dict[str, str]) -> dict[str, set[str]]:
    """By module, what it imports when it is imported itself."""
    return {
        module: {
            name
            for i in imports(file, sources()[file], at_import_time=True)
            for name in (i.module, i.module.rpartition(".")[0])
            if name != module
        }
        for module, file in names.items()
    }


def modules() -> dict[str, str]:
    """Files by the name of the module."""
    return {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file for file in sources()}


def test_no_module_imports_itself_by_a_detour() -> None:
    names = modules()
    graph = {module: imported & names.keys() for module, imported in at_import(names).items()}
    assert sum(map(len, graph.values())) > len(graph)  # the graph is not empty by mistake
    assert cycles(graph) == []
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == [["a", "b", "c", "a"]]


def slow(start: str, graph: dict[str, set[str]]) -> set[str]:
    """Libraries that take seconds to import, and are when ``start`` is."""
    seen, open_ends = {start}, [start]
    while open_ends:
        new = graph.get(open_ends.pop(), set()) - seen
        seen |= new
        open_ends += new
    return {name for name in seen if name in SLOW}


@pytest.mark.parametrize("start", ["server.app", "server.entry", "client.cli.main"])
def test_what_starts_often_starts_without_slow_libraries(start: str) -> None:
    """A server has a process a study: each of these costs it seconds and some hundred megabytes."""
    names = modules()
    assert start in names
    assert slow(start, at_import(names)) == set()
    assert slow("a", {"a": {"b"}, "b": {"monai", "c"}}) == {"monai"}


def shared_names(sources: dict[str, str]) -> dict[str, list[str]]:
    """Public classes of one name, by the files that define them."""
    found: dict[str, list[str]] = {}
    for file, source in sources.items():
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(file)
    return {name: files for name, files in found.items() if len(files) > 1}


def test_no_two_public_classes_share_a_name() -> None:
    assert shared_names(sources()) == {}
    assert shared_names({"a.py": "class Form: ...", "b.py": "class Form: ..."}) == {"Form": ["a.py", "b.py"]}


def undrawn(source: str) -> set[str]:
    """Error classes of a module that the tree in its docstring leaves out."""
    tree = ast.parse(source)
    drawn = set(re.findall(r"\b[A-Z]\w+", ast.get_docstring(tree) or ""))
    return {node.name for node in tree.body if isinstance(node, ast.ClassDef)} - drawn


@pytest.mark.parametrize("file", ["client/errors.py", "server/errors.py"])
def test_the_tree_of_errors_shows_every_class(file: str) -> None:
    assert undrawn(sources()[file]) == set()
    assert undrawn('"""Base."""\nclass Base: ...\nclass Other(Base): ...') == {"Other"}
