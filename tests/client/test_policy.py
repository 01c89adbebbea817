"""What the hospital permits: privacy only gets stricter, and every reason for a refusal is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.errors import NotPermitted, OtherRelease
from client.policy import permit
from client.site import Policy, SiteSettings
from client.sources.settings import FolderSource
from tasks import task as tasks
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
from tasks.protocol.wire import EvaluateOrder, TrainOrder

TASK = "breast_ultrasound"
WEIGHTS = {"weight": np.zeros((1, 10), np.float32), "bias": np.zeros(1, np.float32)}


def _study(**changes: Any) -> StudyDocument:
    study = StudyDocument(
        name="first-study",
        release=release(),
        task=TASK,
        task_version=tasks.get(TASK).example_version,
        contract=digest_of_task(TASK),
        model={"name": "scatter_linear"},
        rounds=10,
        asked=10,
        training=TrainingTerms(3, 1.0, 0.0, 0.0, 0.5, 4),
        privacy=PrivacyTerms(4.0, 1e-5, 0.5),
        evaluation=EvaluationTerms(10, 16, 2.0),
        method=MethodTerms(),
        wire=WireTerms(),
        sizes={},
    )
    return replace(study, **changes)


def _site(simulated: bool = False, public_size: int | None = 200, **policy: Any) -> SiteSettings:
    source = FolderSource(kind="folder", task=TASK, issuer="A", path=Path("dicom"), labels=Path("labels.csv"))
    rules = Policy(**({"tasks": [TASK]} | policy))
    return SiteSettings(name="A", simulated=simulated, public_size=public_size, sources=[source], policy=rules)


EPSILON = st.floats(0.01, 100)
DELTA = st.floats(1e-12, 0.5)


@settings(deadline=None)
@given(
    training=st.none() | EPSILON,
    scoring=st.none() | EPSILON,
    delta=DELTA,
    cap=EPSILON,
    max_delta=DELTA,
    size=st.none() | st.integers(1, 10**6),
    lax=st.booleans(),
    simulated=st.booleans(),
    evaluates=st.booleans(),
)
def test_privacy_only_gets_stricter(
    training: float | None,
    scoring: float | None,
    delta: float,
    cap: float,
    max_delta: float,
    size: int | None,
    lax: bool,
    simulated: bool,
    evaluates: bool,
) -> None:
    """For any request and any policy: at most what is asked, at most the caps, and noise unless a simulated site's
    policy lets it go."""
    lax, size = lax and simulated, size if simulated else size or 200
    site = _site(
        simulated,
        size,
        max_epsilon_study=cap,
        max_epsilon_life=cap,
        max_delta=max_delta,
        without_privacy=lax,
        scores="exact" if lax else "noised",
    )
    study = _study(privacy=PrivacyTerms(training, delta, 0.5), evaluation=EvaluationTerms(10, 16, scoring))
    asked = scoring if evaluates else training
    order = EvaluateOrder(study, 1, WEIGHTS) if evaluates else TrainOrder(study, 1, WEIGHTS)
    if asked is None and not lax:
        with pytest.raises(NotPermitted):
            permit(order, site)
        return
    terms = permit(order, site)
    assert (terms.epsilon is None) == (asked is None)
    if asked is not None and terms.epsilon is not None:
        assert terms.epsilon <= min(asked, cap)
    assert terms.delta <= min(delta, max_delta)
    assert size is None or terms.delta * size <= 0.1 + 1e-9
    assert terms.clip_norm == study.privacy.clip_norm


def test_what_is_within_the_caps_is_granted_as_asked() -> None:
    assert permit(TrainOrder(_study(), 10, WEIGHTS), _site()) == PrivacyTerms(4.0, 1e-5, 0.5)
    assert permit(EvaluateOrder(_study(), 0, WEIGHTS), _site()) == PrivacyTerms(2.0, 1e-5, 0.5)


def test_every_reason_is_told() -> None:
    site = _site(models=["densenet121"], max_rounds=9, max_steps=2, max_upload_bytes=43, tasks=["pneumonia_xray"])
    study = _study(privacy=PrivacyTerms(None, 1e-5, 0.5))
    with pytest.raises(NotPermitted) as caught:
        permit(TrainOrder(study, 11, WEIGHTS), site)
    for part in (
        "first-study, round 11",
        "policy.tasks",
        "policy.models",
        "10 rounds, policy.max_rounds is 9",
        "3 steps per round, policy.max_steps is 2",
        "without noise",
        "round 11 of 10",
        "44 bytes of tensors, policy.max_upload_bytes is 43",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("policy", "terms", "says"),
    [
        ({"scores": "none"}, EvaluationTerms(1, 16, 1.0), "policy.scores is none"),
        ({"scores": "noised"}, EvaluationTerms(1, 16, None), "exact scores"),
        ({"max_bins": 15}, EvaluationTerms(1, 16, 1.0), "policy.max_bins is 15"),
        ({"max_upload_bytes": 255}, EvaluationTerms(1, 16, 1.0), "256 bytes"),
        ({"max_bins": 24}, EvaluationTerms(1, 16, 1.0, paired=5), "25 cells per histogram"),
    ],
)
def test_scores_leave_as_the_policy_says(policy: dict[str, Any], terms: EvaluationTerms, says: str) -> None:
    study = _study(evaluation=terms)
    with pytest.raises(NotPermitted, match=says):
        permit(EvaluateOrder(study, 1, WEIGHTS), _site(**policy))
    assert permit(TrainOrder(study, 1, WEIGHTS), _site(**policy)).epsilon == 4.0, "training is judged by itself"


def test_the_answer_of_each_kind_of_order_is_measured_beforehand() -> None:
    study = _study(evaluation=EvaluationTerms(1, 16, 1.0, ["sex"], paired=5, matrix=2))
    for asks, size in (("scores", 4 * 256), ("paired", 2 * 25 * 8), ("matrix", 256)):
        order = EvaluateOrder(study, 10, WEIGHTS, asks=asks)
        rules = {"subgroups": ["sex"], "max_bins": 25}
        assert permit(order, _site(max_upload_bytes=size, **rules)).epsilon == 1.0
        with pytest.raises(NotPermitted, match=f"{size} bytes"):
            permit(order, _site(max_upload_bytes=size - 1, **rules))


@pytest.mark.parametrize("change", [{"release": "0.0.0"}, {"task_version": 99}, {"contract": "0" * 64}])
def test_a_study_of_another_release_is_refused_by_that_name(change: dict[str, Any]) -> None:
    """Even when the policy refuses it too: the release is to be mended first, and the text tells both."""
    with pytest.raises(OtherRelease, match=r"policy\.max_rounds is 9"):
        permit(TrainOrder(_study(**change), 1, WEIGHTS), _site(max_rounds=9))


def test_a_task_that_this_release_does_not_have_is_not_permitted() -> None:
    with pytest.raises(NotPermitted, match=r"task 'astrology' is not in policy\.tasks"):
        permit(TrainOrder(_study(task="astrology"), 1, WEIGHTS), _site())


def test_a_hospital_counts_by_the_size_that_it_declares_and_by_no_other() -> None:
    other = _study(sizes={"A": 10_000, "B": 1})
    for order in (TrainOrder(other, 1, WEIGHTS), EvaluateOrder(other, 1, WEIGHTS)):
        with pytest.raises(NotPermitted, match="counts this hospital with size 10000, public_size is 200"):
            permit(order, _site())
    assert permit(TrainOrder(_study(sizes={"A": 200, "B": 1}), 1, WEIGHTS), _site())
    assert permit(TrainOrder(other, 1, WEIGHTS), _site(simulated=True, public_size=None))
