"""What every test may use."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # also in processes that tests start

import hypothesis
import pytest
import torch

from client.cohort import index
from client.ledger import records
from tasks.contract import digest_of_task
from tasks.protocol.study import (
    EvaluationTerms,
    MethodTerms,
    PrivacyTerms,
    StudyDocument,
    TrainingTerms,
    WireTerms,
    release,
)
from tests.drawn import SHARED

# `make test` must give the same answer twice, also on a busy machine. To look for new cases: make explore.
too_slow = hypothesis.HealthCheck.too_slow
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[too_slow])
hypothesis.settings.register_profile(
    "explore", derandomize=False, print_blob=True, deadline=None, suppress_health_check=[too_slow]
)
hypothesis.settings.load_profile("steady")


SLOWEST = (
    *("federation/test_canary", "federation/test_interruption", "federation/test_whole_study", "tasks/test_every_task"),
    *("client/test_totality", "client/prediction/test_segmentation", "federation/test_bad_input"),
    *("client/sources/files/test_scans", "federation/test_privacy", "federation/test_honest_updates"),
    *("client/ledger/test_ledger_crash", "client/prediction/test_scan_list", "client/training/test_gradients"),
    *("server/runtime/test_local_grid", "client/prediction/test_predict", "tasks/models/test_registry"),
)
"""Modules that take long, in the order in which ``make test`` begins them: one that began last would be waited for."""
_TURNS = {f"tests/{name}.py": turn for turn, name in enumerate(SLOWEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest modules first, and leave all others in their order."""
    items.sort(key=lambda item: _TURNS.get(item.nodeid.split("::")[0], len(_TURNS)))


def pytest_collection_finish() -> None:
    """What every test module has imported stays: the garbage collector need not look at a million objects again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small tensors on a shared machine are quicker without torch's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def shared_phantoms(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where ``tests/drawn.py`` keeps phantoms, for all processes of this run."""
    own = tmp_path_factory.getbasetemp()
    os.environ[SHARED] = str((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "phantoms")


@pytest.fixture(scope="module", autouse=True)
def few_open_files() -> Iterator[None]:
    """Hospitals of one module are of no use to the next; ``select`` (pynetdicom) takes no descriptor above 1023."""
    yield
    records._OPEN_HANDLES.close()
    index._OPEN_HANDLES.close()


@pytest.fixture
def document() -> StudyDocument:
    """A study as a hospital sees it."""
    return StudyDocument(
        name="demo-1",
        release=release(),
        task="breast_ultrasound",
        task_version=1,
        contract=digest_of_task("breast_ultrasound"),
        model={"name": "scatter_linear", "resolution": 16, "J": 2, "L": 2, "pool": 2},
        rounds=2,
        asked=2,
        training=TrainingTerms(3, 8.0, 0.0, 0.0, 0.8, 2),
        privacy=PrivacyTerms(8.0, 1e-4, 0.5),
        evaluation=EvaluationTerms(2, 16, 4.0),
        method=MethodTerms(),
        wire=WireTerms(),
        sizes={},
    )
