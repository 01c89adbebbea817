"""What leaves of a first look, and of histograms whose edges an order brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.report import Scored, counted, nobody_counted
from tasks.metrics.histogram import range_edges, score_histogram
from tasks.protocol import wire
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import RANGE, RANGE_CELLS, EvaluateOrder, WireError

unit = st.floats(0, 1)


@pytest.fixture
def looking(document: StudyDocument) -> StudyDocument:
    return replace(document, evaluation=replace(document.evaluation, edges="released", bins=4))


@given(st.lists(st.tuples(unit, st.integers(0, 1)), min_size=1, max_size=30), st.lists(unit, min_size=3, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_one_patient_changes_one_cell_by_one_whatever_the_edges(
    looking: StudyDocument, patients: list[tuple[float, int]], edges: list[float]
) -> None:
    for order in (EvaluateOrder(looking, 1, asks="range"), EvaluateOrder(looking, 1, edges=sorted(edges))):
        tables = []
        for some in (patients, patients[:-1]):
            scores, labels = np.array([s for s, _ in some]), np.array([y for _, y in some], np.float32)
            tables.append(counted(order, Scored(scores, labels)))
        for name, shape in wire.due(order).items():
            apart = tables[0][name] - tables[1][name]
            assert apart.shape == shape
            assert np.abs(apart).sum() == 1
        assert {name: value.shape for name, value in nobody_counted(order).items()} == wire.due(order)


def test_a_look_does_not_tell_classes_apart(looking: StudyDocument) -> None:
    scores = np.array([0.2, 0.5, 0.9])
    tables = [
        counted(EvaluateOrder(looking, 1, asks="range"), Scored(scores, np.full(3, label, np.float32)))[RANGE]
        for label in (0, 1)
    ]
    np.testing.assert_array_equal(*tables)
    assert tables[0].shape == (RANGE_CELLS,)


def test_secondary_findings_have_public_edges(looking: StudyDocument) -> None:
    study = replace(looking, rounds=1, asked=1, evaluation=replace(looking.evaluation, findings=["effusion"]))
    scores, labels = np.array([0.4, 0.45, 0.55]), np.array([0.0, 1.0, 1.0])
    order = EvaluateOrder(study, 1, edges=[0.01, 0.02, 0.03])
    found = counted(order, Scored(scores, labels.astype(np.float32), findings={"effusion": np.stack([scores, labels])}))
    np.testing.assert_array_equal(found[f"{wire.FINDING}effusion"], score_histogram(scores, labels, 4, range_edges(4)))
    assert found["histogram"][:, -1].tolist() == [1, 2], "above all edges of the question itself"


@pytest.mark.parametrize(
    "edges",
    [
        None,
        [0.1, 0.2],
        [0.1, 0.2, 0.3, 0.4],
        [0.3, 0.2, 0.4],
        [0.1, 0.2, 1.5],
        [-0.1, 0.2, 0.3],
        [0.1, float("nan"), 1],
    ],
)
def test_an_order_brings_just_the_edges_that_the_terms_ask_for(
    looking: StudyDocument, edges: list[float] | None
) -> None:
    with pytest.raises(ValueError, match="edges"):
        EvaluateOrder(looking, 1, edges=edges)


def test_without_terms_there_are_neither_looks_nor_edges(document: StudyDocument) -> None:
    for wrong in ({"asks": "range"}, {"edges": [0.5] * (document.evaluation.bins - 1)}):
        with pytest.raises(ValueError, match=r"range|edges"):
            EvaluateOrder(document, 1, **wrong)  # type: ignore[arg-type]


def test_edges_travel_and_count_in_the_digest(looking: StudyDocument) -> None:
    order = EvaluateOrder(looking, 1, edges=[0.1, 0.2, 0.3])
    assert wire.decode(wire.encode(order), EvaluateOrder) == order
    assert wire.digest(order) != wire.digest(EvaluateOrder(looking, 1, edges=[0.1, 0.2, 0.30001]))
    forged = wire.encode(order)
    head = forged["head"]
    head["json"] = str(head["json"]).replace("[0.1,0.2,0.3]", "[0.3,0.2,0.1]")  # type: ignore[index, call-overload]
    with pytest.raises(WireError, match="edges"):
        wire.decode(forged, EvaluateOrder)
