"""What leaves: nothing but what the order said, what the hospital declares in public, and releases with their noise."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client import errors, report
from client.cohort.dataset import Cohort
from client.ledger.audit_log import Receipt
from client.ledger.links import Head
from client.report import (
    Scored,
    SecondScores,
    Spending,
    Spent,
    counted,
    evaluate_report,
    nobody_counted,
    receipt,
    receipt_without_patients,
    refusal,
    train_report,
)
from client.site import Policy, SiteSettings, declared_size
from client.sources.settings import FolderSource
from client.training.noise import entropy
from client.training.scoring import OutlineScores
from tasks.metrics.histogram import score_histogram
from tasks.protocol import wire
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import (
    ErrorCode,
    EvaluateOrder,
    EvaluateReport,
    KeyReport,
    Refusal,
    SurveyReport,
    TrainOrder,
    TrainReport,
)

UPDATE = {"weight": np.array([[3.0, 4.0]], np.float32), "bias": np.array([12.0], np.float32)}
SPENT = Spent(3.5, 1e-5, 1.25)
LEAVING = {kind.__name__ for kind in (TrainReport, EvaluateReport, Refusal)}
CODES = {code.value for code in ErrorCode}


def _scored(labels: NDArray[np.int64], scores: NDArray[np.float64], **levels: NDArray[np.int64]) -> Scored:
    return Scored(scores, labels.astype(np.float32), levels)


LEDGER_HEAD = Head(7, "ab" * 32)


def _report(order: EvaluateOrder, scored: Scored, spent: Spent) -> EvaluateReport:
    return evaluate_report(order, counted(order, scored), spent, LEDGER_HEAD, entropy())


def _histogram(
    document: StudyDocument, scores: NDArray[np.float64], labels: NDArray[np.int64], noise: float
) -> NDArray[np.float64]:
    sent = _report(EvaluateOrder(document, 1), _scored(labels, scores), Spent(1.0, 1e-4, noise))
    assert sent.noise == noise
    histogram: NDArray[np.float64] = sent.arrays["histogram"]
    return histogram


def _site(size: int | None) -> SiteSettings:
    source = FolderSource(kind="folder", task="breast_ultrasound", issuer="A", path=Path("d"), labels=Path("l.csv"))
    rules = Policy(tasks=["breast_ultrasound"])
    return SiteSettings(name="A", simulated=size is None, public_size=size, sources=[source], policy=rules)


# --- every field --------------------------------------------------------------------------------------------------


def test_the_fields_that_leave_are_these_and_no_others() -> None:
    """Whoever adds a field must say here what it is: ``client/report.py`` lists why each may leave."""
    kinds = (TrainReport, EvaluateReport, KeyReport, SurveyReport, Refusal)
    fields = {kind: {f.name for f in dataclasses.fields(kind)} for kind in kinds}
    cost = {"epsilon", "epsilon_alone", "delta", "ledger_head"}
    assert fields == {
        TrainReport: {"study", "round", "noise_multiplier", "arrays"} | cost,
        EvaluateReport: {"study", "round", "noise", "arrays"} | cost,
        KeyReport: {"study", "round", "key", "ledger_head", "arrays"},
        SurveyReport: {"study", "round", "noise", "arrays", "epsilon", "delta", "ledger_head"},
        Refusal: {"study", "round", "code", "arrays"},
    }


def test_what_leaves_after_training(document: StudyDocument) -> None:
    sent = train_report(TrainOrder(document, 2), UPDATE, SPENT, LEDGER_HEAD)
    assert (sent.study, sent.round) == (document.name, 2), "repeats the order"
    assert sent.ledger_head == LEDGER_HEAD.hash, "opaque, and no number of rows"
    assert (sent.epsilon, sent.delta, sent.noise_multiplier) == (3.5, 1e-5, 1.25)
    assert sent.arrays.keys() == UPDATE.keys()
    assert all(np.array_equal(sent.arrays[name], value) for name, value in UPDATE.items())


def test_what_leaves_after_scoring(document: StudyDocument) -> None:
    labels, scores = np.array([0, 1, 1]), np.array([0.1, 0.6, 0.99])
    spent = Spent(math.inf, 1e-5, 0.0)
    sent = _report(EvaluateOrder(document, 2), _scored(labels, scores), spent)
    assert (sent.study, sent.round, sent.epsilon, sent.delta) == (document.name, 2, None, 1e-5)
    assert sent.arrays.keys() == {"histogram"}
    np.testing.assert_array_equal(sent.arrays["histogram"], score_histogram(scores, labels, 16))


def test_no_noise_is_no_epsilon(document: StudyDocument) -> None:
    assert train_report(TrainOrder(document, 1), UPDATE, Spent(math.inf, 1e-5, 0.0), LEDGER_HEAD).epsilon is None


# --- histograms ---------------------------------------------------------------------------------------------------

PATIENTS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=2, max_size=30)


def _joint(order: EvaluateOrder, patients: list[tuple[float, int]], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    scores, labels = np.array([s for s, _ in patients]), np.array([label for _, label in patients])
    scored = Scored(scores, labels.astype(np.float32), pair=SecondScores(1 - scores**2, edges))
    sent = _report(order, scored, Spent(math.inf, 1e-4, 0.0))
    assert sent.arrays.keys() == {"paired"}, "and no score of either model by itself"
    joint: NDArray[np.float64] = sent.arrays["paired"]
    return joint


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patients=PATIENTS, edges=st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted), data=st.data())
def test_one_patient_changes_one_cell_of_the_joint_histogram_too_whatever_the_edges(
    document: StudyDocument, patients: list[tuple[float, int]], edges: list[float], data: st.DataObject
) -> None:
    """The edges come over the network: they must not be able to make one patient count more."""
    order = EvaluateOrder(
        replace(document, evaluation=replace(document.evaluation, paired=4)), document.rounds, asks="paired"
    )
    gone = data.draw(st.integers(0, len(patients) - 1))
    both = np.array([edges, edges])
    difference = _joint(order, patients, both) - _joint(order, patients[:gone] + patients[gone + 1 :], both)
    assert np.linalg.norm(difference) == 1
    assert difference.sum() == 1


def test_the_joint_histogram_gets_the_noise_of_the_ledger_on_every_cell(document: StudyDocument) -> None:
    order = EvaluateOrder(
        replace(document, evaluation=replace(document.evaluation, paired=40)), document.rounds, asks="paired"
    )
    edges = np.tile(np.linspace(0, 1, 41)[1:-1], (2, 1))
    scored = Scored(np.array([0.2]), np.array([1], np.float32), pair=SecondScores(np.array([0.7]), edges))
    cells = _report(order, scored, Spent(1.0, 1e-4, 2.0)).arrays["paired"]
    assert cells.shape == (2, 40, 40)
    assert np.std(cells) == pytest.approx(2.0, rel=0.06)
    assert len(np.unique(cells)) > 0.99 * cells.size, "two may meet on the noise's grid"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # the document does not change
@given(patients=PATIENTS, data=st.data())
def test_one_patient_more_or_less_changes_one_cell_by_one(
    document: StudyDocument, patients: list[tuple[float, int]], data: st.DataObject
) -> None:
    """The L2 sensitivity of what leaves is 1; the ledger's mechanism for scores rests on it."""
    scores, labels = np.array([s for s, _ in patients]), np.array([label for _, label in patients])
    gone = data.draw(st.integers(0, len(patients) - 1))
    with_all = _histogram(document, scores, labels, 0.0)
    without = _histogram(document, np.delete(scores, gone), np.delete(labels, gone), 0.0)
    difference = with_all - without
    assert np.linalg.norm(difference) == 1
    assert difference.sum() == 1
    assert np.count_nonzero(difference) == 1


def test_counts_of_another_form_than_the_order_asks_for_never_leave(document: StudyDocument) -> None:
    """Not even with noise: names and shapes must follow from the order alone."""
    order = EvaluateOrder(document, 1)
    for counts in ({}, {"histogram": np.zeros((2, 15))}, {**nobody_counted(order), "more": np.zeros(2)}):
        with pytest.raises(ValueError, match="the order expects"):
            evaluate_report(order, counts, Spent(1.0, 1e-4, 2.0), LEDGER_HEAD, entropy())


def test_nobody_is_counted_in_the_form_in_which_anybody_is(document: StudyDocument) -> None:
    terms = replace(document.evaluation, paired=4, findings=["effusion"], structures=["lesion"], subgroups=["sex"])
    study = replace(document, evaluation=terms)
    for order in (EvaluateOrder(study, 1), EvaluateOrder(study, 2), EvaluateOrder(study, 2, asks="paired")):
        counts = nobody_counted(order)
        assert {name: cells.shape for name, cells in counts.items()} == wire.due(order)
        assert all((cells == 0).all() for cells in counts.values())
        sent = evaluate_report(order, counts, Spent(1.0, 1e-4, 2.0), LEDGER_HEAD, entropy()).arrays
        assert all(np.std(cells) > 0.5 for cells in sent.values()), "noise alone"


def test_a_patient_with_many_images_counts_once(document: StudyDocument) -> None:
    cohort = Cohort(torch.zeros(5, 1), torch.tensor([[0.0], [1], [0], [0], [0]]), [torch.arange(4), torch.tensor([4])])
    scored = Scored(np.array([0.2, 0.7]), cohort.patient_labels().numpy())
    sent = _report(EvaluateOrder(document, 1), scored, Spent(math.inf, 1e-4, 0.0))
    assert sent.arrays["histogram"].sum(axis=1).tolist() == [1, 1]


def test_findings_and_outlines_leave_once_and_nobody_stands_for_the_unknown(document: StudyDocument) -> None:
    nan = math.nan
    terms = replace(document.evaluation, findings=["effusion"], structures=["lesion"])
    document = replace(document, evaluation=terms)
    scored = replace(
        _scored(np.array([0, 1, 1]), np.array([0.2, 0.6, 0.9])),
        findings={"effusion": np.array([[0.1, 0.5, 0.8], [0.0, nan, 1.0]])},
        outlines={
            "lesion": OutlineScores(np.array([nan, 0.5, 0.9]), np.array([nan, 0.1, 0.0]), np.array([0.0, nan, nan]))
        },
    )
    sent = _report(EvaluateOrder(document, 2), scored, Spent(math.inf, 1e-4, 0.0))
    assert {name: counts.shape for name, counts in sent.arrays.items()} == {
        "histogram": (2, 16), "finding-effusion": (2, 16), "dice-lesion": (2, 16), "hd95-lesion": (16,)
    }  # fmt: skip
    assert sent.arrays["finding-effusion"].sum(axis=1).tolist() == [1, 1]
    assert sent.arrays["dice-lesion"].sum(axis=1).tolist() == [1, 2]
    assert sent.arrays["hd95-lesion"].sum() == 2
    noised = _report(EvaluateOrder(document, 2), scored, Spent(1.0, 1e-4, 4.0)).arrays
    assert all(np.std(cells - sent.arrays[name]) > 1 for name, cells in noised.items()), "each has its noise"


def test_subgroups_leave_once_with_each_patient_in_one_level(document: StudyDocument) -> None:
    """Thirty women with both classes and two men: the two are left out of an exact release."""
    labels, scores = np.arange(32) % 2, np.linspace(0, 1, 32)
    sex = np.r_[np.zeros(30, np.int64), np.ones(2, np.int64)]
    order = EvaluateOrder(replace(document, evaluation=replace(document.evaluation, subgroups=["sex"])), 2)
    sent = _report(order, _scored(labels, scores, sex=sex), Spent(math.inf, 1e-4, 0.0))
    assert sent.arrays["sex"].shape == (3, 2, 16)
    assert sent.arrays["sex"].sum(axis=(1, 2)).tolist() == [30, 0, 0]
    np.testing.assert_array_equal(sent.arrays["sex"][0], score_histogram(scores[:30], labels[:30], 16))
    noisy = _report(order, _scored(labels, scores, sex=sex), Spent(1.0, 1e-4, 1.5))
    assert (noisy.arrays["sex"] != np.round(noisy.arrays["sex"])).all(), "a level of nobody has its noise as well"


@pytest.mark.parametrize("noise", [0.7, 5.0, 40.0])
def test_every_cell_gets_noise_of_the_planned_deviation(document: StudyDocument, noise: float) -> None:
    """32,000 cells, full and empty ones: the deviation is within 2 % (5 standard errors), the mean within 5 of its."""
    fine = replace(document, evaluation=replace(document.evaluation, bins=16_000))
    labels, scores = np.arange(3000) % 2, np.linspace(0, 1, 3000)
    exact = _histogram(fine, scores, labels, 0.0)
    noised = _histogram(fine, scores, labels, noise)
    assert noised.dtype == np.float64
    added = (noised - exact).ravel()
    assert added.std() == pytest.approx(noise, rel=0.02)
    assert abs(added.mean()) < 5 * noise / math.sqrt(added.size)
    assert np.abs(added).max() > 3 * noise, "a Gaussian has tails"
    assert abs(np.corrcoef(added[:-1], added[1:])[0, 1]) < 5 / math.sqrt(added.size), "cells are independent"
    occupied = exact.ravel() > 0
    assert added[occupied].std() == pytest.approx(noise, rel=0.1)
    assert added[~occupied].std() == pytest.approx(noise, rel=0.02)


def test_the_noise_is_new_every_time(document: StudyDocument) -> None:
    labels, scores = np.array([0, 1]), np.array([0.2, 0.8])
    first, second = (_histogram(document, scores, labels, 1.0) for _ in range(2))
    assert not np.array_equal(first, second)


# --- public size --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patients", [1, 9, 123, 10**6])
def test_a_declared_size_is_sent_whoever_is_there(patients: int) -> None:
    assert declared_size(_site(200), patients) == 200


@pytest.mark.parametrize(
    ("patients", "sent"), [(1, 1), (7, 7), (9, 9), (10, 10), (14, 10), (16, 20), (99, 100), (149, 100), (951, 1000)]
)
def test_a_simulated_hospital_rounds_to_one_digit(patients: int, sent: int) -> None:
    assert declared_size(_site(None), patients) == sent


@given(patients=st.integers(1, 10_000_000))
def test_one_significant_digit_and_never_far_off(patients: int) -> None:
    sent = declared_size(_site(None), patients)
    assert len(str(sent).rstrip("0")) == 1
    assert abs(sent - patients) <= patients / 2
    assert isinstance(sent, int)


# --- refusals -----------------------------------------------------------------------------------------------------

OURS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SiteError)]
OTHERS = [ValueError, RuntimeError, OSError, FileNotFoundError, KeyError, MemoryError, RecursionError, BaseException]


@given(kind=st.sampled_from(OURS + OTHERS), text=st.text(min_size=1), cause=st.text())
def test_a_refusal_is_study_round_and_a_code_whatever_the_error_says(
    kind: type[BaseException], text: str, cause: str
) -> None:
    error = kind(text)
    error.__cause__ = ValueError(cause)
    error.add_note(text)
    sent = refusal("demo-1", 3, error)
    assert sent == refusal("demo-1", 3, kind("another text")), "the text makes no difference"
    assert (sent.study, sent.round, sent.arrays) == ("demo-1", 3, {})
    assert sent.code.value in CODES
    assert sent.code == (kind.code if issubclass(kind, errors.SiteError) else ErrorCode.INTERNAL)
    head = wire.encode(sent).config_records["head"]
    assert head == wire.encode(Refusal("demo-1", 3, sent.code)).config_records["head"]


def test_every_code_but_internal_has_an_error_and_every_error_a_code() -> None:
    assert {kind.code for kind in OURS} == set(ErrorCode)


# --- receipts -----------------------------------------------------------------------------------------------------


def test_a_receipt_says_what_left_and_what_it_cost(document: StudyDocument) -> None:
    reply = train_report(TrainOrder(document, 2), UPDATE, SPENT, LEDGER_HEAD)
    packed = wire.pack(reply)
    assert receipt(reply, packed, Spending("train", 1.5, 3.5, Head(7, "ab"), repeated=True)) == Receipt(
        study=document.name,
        round=2,
        message="TrainReport",
        cohort="train",
        bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        tensors={"weight": "float32 (1, 2)", "bias": "float32 (1,)"},
        update_norm=13.0,
        epsilon_before=1.5,
        epsilon_after=3.5,
        ledger=Head(7, "ab"),
        repeated=True,
    )


@pytest.mark.parametrize("code", list(ErrorCode))
def test_a_refusal_leaves_a_receipt_with_its_code(code: ErrorCode) -> None:
    reply = Refusal("demo-1", 3, code)
    noted = receipt_without_patients(reply, Head(7, "ab"))
    assert noted.message == f"Refusal {code}"
    assert noted.sha256 == hashlib.sha256(wire.pack(reply)).hexdigest()
    assert (noted.bytes, noted.tensors, noted.cohort) == (len(wire.pack(reply)), {}, None)
    assert (noted.update_norm, noted.epsilon_before, noted.epsilon_after) == (None, None, None)


def test_no_other_file_of_the_hospital_builds_what_leaves() -> None:
    """Reports and refusals are made in ``client/report.py`` alone."""
    here = Path(report.__file__)
    builders = {path.name for path in here.parent.rglob("*.py") if _builds_what_leaves(ast.parse(path.read_text()))}
    assert builders == {"report.py"}


def _builds_what_leaves(tree: ast.Module) -> bool:
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "tasks.protocol.wire"
    ]
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    of_wire = {name.asname or name.name for node in imports for name in node.names} & LEAVING
    called = {f.id for f in calls if isinstance(f, ast.Name)} & of_wire
    return bool(called | {f.attr for f in calls if isinstance(f, ast.Attribute)} & LEAVING)
