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

REPRESENTED: dict[str, dict[str, tuple[str, ...]]] = {
    "tasks/test_every_task": {
        "test_there_is_something_to_learn_but_not_everything": ("breast_ultrasound", "left_heart"),
        "test_scans_have_something_to_learn_but_not_everything": ("lung_ct",),
    },
    "client/test_totality": {
        "test_updates_leave_in_the_same_form_whoever_is_there": (
            *("scatter_linear-2d", "scatter_linear-3d", "scatter_outline-2d", "vit-2d", "unet-2d", "dynunet-3d"),
            "frozen encoder",
        ),
    },
    "client/reading/test_contract": {
        "test_phantoms_conform_and_headers_are_quick": (
            *("breast_ultrasound", "cardiac_ultrasound", "ejection_fraction", "hand_xray", "left_heart"),
            "pneumonia_xray",
        ),
    },
    "client/prediction/test_segmentation": {
        "test_others_find_on_each_image_what_the_model_marks": ("lung_ct",),
        "test_they_say_whose_and_what_they_are": ("breast_ultrasound", "lung_ct"),
    },
    "client/prediction/test_references": {
        "test_reports_keep_the_rules_of_viewers_and_of_ai_results": ("breast_ultrasound",),
    },
    "client/prediction/test_scan_list": {
        "test_catalog_and_files_give_the_probabilities_of_what_an_ingest_reads": ("lung_ct",),
    },
    "client/cohort/test_people": {
        "test_labels_by_patient_and_sides_follow_new_numbers": (
            *("breast_ultrasound-folder", "breast_ultrasound-dicomweb", "lung_ct-folder"),
        ),
    },
    "client/training/test_gradients": {"test_a_step_stays_within_its_memory": ("convolutions-2",)},
    "conf/test_every_pair": {
        "test_every_experiment_composes_with_every_network_and_every_strategy": (
            *("busi", "busi_shared", "cxr_sites", "demo", "deployed", "hand_phantoms", "heart_outlined", "medmnist"),
        ),
    },
    "federation/test_honest_updates": {
        "test_honest_updates_are_neither_dropped_nor_named": (
            *("training.final_rate=0.1 training.final_noise=0.5", "strategy=fedrep strategy.head_steps=1"),
            "strategy=mr_mtl training.final_rate=0.5",
            *("strategy=scaffold wire.up=int8 training.final_rate=0.2", "wire=lean"),
            "training.optimizer=adam training.learning_rate=0.1 training.weight_decay=0.05 training.warm_up=1",
        ),
    },
    "federation/test_strategies": {
        "test_each_hospital_plans_its_noise_for_its_own_turns": ("ditto", "turns", "by noise"),
    },
    "federation/test_interruption": {
        "test_a_study_that_is_killed_again_and_again_ends_as_if_it_had_not_been": (),
    },
    "federation/test_shared_noise": {
        "test_killed_again_and_again_no_tag_is_used_twice_and_the_study_ends": (),
        "test_a_reply_that_cannot_be_added_costs_the_step_and_not_the_study": ("random words", "an old reply"),
    },
    "federation/test_whole_study": {"test_processes_play_the_same_study": ()},
}
"""Tests of many costly cases, and those cases that ``make test`` plays for all. The others are ``thorough``.

They hold the same rule for further tasks and networks, or more of what a cheaper test does (a kill at every line). What
is of one task alone, such as whether its phantoms can be learnt, ``make thorough`` and the suite of a new task hold.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slowest modules first and leave all others in their order; mark what is ``thorough``."""
    items.sort(key=lambda item: _TURNS.get(item.nodeid.split("::")[0], len(_TURNS)))
    for item in items:
        module, _, name = item.nodeid.removeprefix("tests/").partition(".py::")
        test, _, case = name.partition("[")
        kept = REPRESENTED.get(module, {}).get(test)
        if kept is not None and case.removesuffix("]") not in kept:
            item.add_marker(pytest.mark.thorough)


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
