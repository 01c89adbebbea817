"""Nobody learns from the kind of an answer whether a patient is there: the attacks that once did, and their kin.

A coordinator who has a patient's image computes its features, and chooses weights that overflow on it alone. Beyond a
magnitude such weights are refused before anybody is scored; within it, and behind the check if it had a hole, the
answer is a report with its noise, charged, in both worlds. The other world is the same archive with the patient
withdrawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from numpy.typing import NDArray

import client.app
from client.cohort.dataset import open_cohort
from tasks import task as tasks
from tasks.models import registry
from tasks.protocol.study import StudyDocument
from tasks.protocol.wire import EDGES, OTHER, ErrorCode, EvaluateOrder, EvaluateReport, Refusal, TrainReport, due
from tests.client.hospital import PATIENTS, TASK, Archive, Hospital, draw_archive, train

TOP = float(np.finfo(np.float32).max)
_RANGE = 1e30
"""Where numbers end on a machine that this file invents: below float32's end, so that its weights can be written."""


@dataclass(frozen=True)
class Worlds:
    """The hospital with a validation patient, and the one from which that patient has withdrawn."""

    there: Hospital
    gone: Hospital
    features: NDArray[np.float64]
    others: NDArray[np.float64]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, Archive]:
    """Two alike: a withdrawal changes a catalog."""
    one, other = (draw_archive(tmp_path_factory.mktemp("archive")) for _ in range(2))
    return one, other


@pytest.fixture
def worlds(tmp_path: Path, archives: tuple[Archive, Archive], document: StudyDocument) -> Worlds:
    """Of the first of the archive's patients on the validation side."""
    asked = replace(document.evaluation, epsilon=1.0, paired=4, matrix=2, releases=2)
    study = replace(document, evaluation=asked)
    there = Hospital.provision(tmp_path / "there", archives[0])
    network = registry.build(study.model, tasks.get(TASK).form)
    cohort = open_cohort(there.settings, tasks.get(TASK), "validation", study.model, network)
    patient, row = cohort.patients[0], cohort.rows[0][0]
    name = _patient_of(there, archives[0], patient)
    withdrawals = tmp_path / "withdrawn.txt"
    withdrawals.write_text(f"{name}\n", "utf-8")
    gone = Hospital.provision(tmp_path / "gone", archives[1], withdrawals=str(withdrawals))
    for hospital in (there, gone):
        hospital.approve(study)
    features = cohort.inputs.double().numpy()
    others = np.delete(features, cohort.rows[0].numpy(), axis=0)
    return Worlds(there, gone, features[int(row)], others)


def _patient_of(hospital: Hospital, archive: Archive, pseudonym: str) -> str:
    """The PatientID behind a pseudonym, which only who has the key finds."""
    from client.cohort.intake import keyed
    from client.site import secret

    names = {str(pydicom.dcmread(file, stop_before_pixels=True).PatientID) for file in archive.folder.rglob("*.dcm")}
    assert len(names) == PATIENTS
    key = secret(hospital.settings)
    return next(name for name in names if keyed(key, "patient", "st-anne", name) == pseudonym)


def _overflowing(features: NDArray[np.float64], top: float) -> NDArray[np.float32]:
    """Weights whose partial sums pass ``top`` on these features alone, upwards on half of them, downwards on half."""
    even = np.arange(len(features)) % 2 == 0
    weight = np.zeros(len(features))
    for half, sign in ((even, 1.0), (~even, -1.0)):
        weight[half] = sign * features[half] * 1.03 * top / (features[half] ** 2).sum()
    return np.clip(weight, -TOP, TOP).astype(np.float32)


def _overflowing_alone(worlds: Worlds, top: float) -> NDArray[np.float32]:
    """The same for a coordinator who knows the other images as well, and lets nobody else come near."""
    images = np.vstack([worlds.features, worlds.others])
    weight = np.zeros(len(worlds.features))
    for start, sign in ((0, 1.0), (1, -1.0)):
        weight[start::2] = sign * np.linalg.pinv(images[:, start::2])[:, 0]
    lanes = np.array([np.abs(images[:, start::2] @ weight[start::2]) for start in (0, 1)]).min(axis=0)
    assert lanes[0] > 1.001 * lanes[1:].max(), "the attack of this test needs an image unlike the others"
    return (1.0005 * top / lanes[0] * weight).astype(np.float32)


def _orders(document: StudyDocument, weight: NDArray[np.float32]) -> list[EvaluateOrder]:
    terms = replace(document.evaluation, epsilon=1.0, paired=4, matrix=2, releases=2)
    study = replace(document, evaluation=terms)
    model: dict[str, Any] = {"weight": weight[None], "bias": np.zeros(1, np.float32)}
    other = {OTHER + name: value for name, value in model.items()}
    edges = {EDGES: np.tile(np.linspace(0.25, 0.75, 3), (2, 1))}
    return [
        EvaluateOrder(study, 1, model),
        EvaluateOrder(study, 2, model),
        EvaluateOrder(study, 2, model, asks="matrix"),
        EvaluateOrder(study, 2, {**model, **other, **edges}, asks="paired"),
    ]


def test_weights_that_overflow_on_one_image_are_refused_before_anybody_is_scored(
    worlds: Worlds, document: StudyDocument
) -> None:
    for order in _orders(document, _overflowing(worlds.features, TOP)):
        for hospital in (worlds.there, worlds.gone):
            reply = hospital.ask(order)
            assert isinstance(reply, Refusal)
            assert reply.code == ErrorCode.BAD_ORDER
            assert hospital.entries() == []


@pytest.mark.parametrize("size", [registry.LARGEST, 1.0])
def test_the_largest_weights_that_pass_are_answered_with_a_report_in_both_worlds(
    worlds: Worlds, document: StudyDocument, size: float
) -> None:
    """Also at a scale at which the sums of one image cancel but for their rounding."""
    weight = _overflowing(worlds.features, 1e30)
    weight *= size / np.abs(weight).max()
    for order in _orders(document, weight):
        there, gone = worlds.there.ask(order), worlds.gone.ask(order)
        for reply in (there, gone):
            assert isinstance(reply, EvaluateReport)
            assert {name: value.shape for name, value in reply.arrays.items()} == due(order)
        assert isinstance(there, EvaluateReport)
        assert isinstance(gone, EvaluateReport)
        assert (there.epsilon, there.noise) == (gone.epsilon, gone.noise)


def test_the_audit_counts_refusals_as_answers(
    worlds: Worlds, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bound taken away, as if it had a hole, twenty questions still tell nothing: all answers are reports."""
    monkeypatch.setattr(registry, "LARGEST", TOP)
    terms = replace(document.evaluation, epsilon=1.0, paired=4, matrix=2, releases=2)
    study = replace(document, evaluation=terms)
    weight = _overflowing(worlds.features, TOP)
    bias = np.zeros(1, np.float32)
    orders = [EvaluateOrder(study, 1, {"weight": weight[None] * 2.0**-n, "bias": bias}) for n in range(4)]
    there, gone = ([type(hospital.ask(order)) for order in orders] for hospital in (worlds.there, worlds.gone))
    assert there == gone == [EvaluateReport] * 4


def _raise(*given: Any, **named: Any) -> Any:
    raise RuntimeError("PATIENT-4711 cannot be computed")


@pytest.mark.parametrize("place", ["tell_patients", "report.counted"])
def test_whatever_goes_wrong_while_scoring_is_a_report_of_noise_alone(
    worlds: Worlds, document: StudyDocument, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    order = _orders(document, np.zeros(len(worlds.features), np.float32))[1]
    monkeypatch.setattr(f"client.app.{place}", _raise)
    reply = worlds.there.ask(order)
    assert isinstance(reply, EvaluateReport)
    assert {name: value.shape for name, value in reply.arrays.items()} == due(order)
    assert reply.epsilon is not None
    assert 0 < reply.epsilon <= 1
    (entry,) = worlds.there.entries()
    assert entry.committed, "charged like any other"
    assert "PATIENT-4711 cannot be computed" in worlds.there.log(), "told to the hospital's own people"
    spread = float(np.std(np.concatenate([value.ravel() for value in reply.arrays.values()])))
    assert spread == pytest.approx(reply.noise, rel=0.5)


def test_whatever_goes_wrong_while_training_is_an_update_of_noise_alone(
    worlds: Worlds, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = replace(_orders(document, np.zeros(len(worlds.features), np.float32))[0].study)
    honest = client.app.train_locally

    def fails_on_patients(module: Any, task: Any, cohort: Any, *others: Any, **named: Any) -> Any:
        return _raise() if cohort.rows else honest(module, task, cohort, *others, **named)

    monkeypatch.setattr(client.app, "train_locally", fails_on_patients)
    order = train(study)
    reply = worlds.there.ask(order)
    assert isinstance(reply, TrainReport)
    assert reply.arrays.keys() == order.arrays.keys()
    assert np.std(reply.arrays["weight"]) > 0
    assert "PATIENT-4711" in worlds.there.log()
    assert worlds.there.entries()[0].committed


def test_the_update_of_noise_alone_starts_from_the_order_s_model(
    worlds: Worlds, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not from one that patients have moved before it went wrong: weight decay would send that without noise."""
    study = replace(_orders(document, np.zeros(len(worlds.features), np.float32))[0].study)
    honest, begun_with = client.app.train_locally, []

    def fails_halfway(module: torch.nn.Module, task: Any, cohort: Any, *others: Any, **named: Any) -> Any:
        begun_with.append(registry.arrays_of(module))
        if not cohort.rows:
            return honest(module, task, cohort, *others, **named)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1.0)
        raise RuntimeError("PATIENT-4711 cannot be computed")

    monkeypatch.setattr(client.app, "train_locally", fails_halfway)
    order = train(study)
    assert isinstance(worlds.there.ask(order), TrainReport)
    assert len(begun_with) == 2
    for arrays in begun_with:
        for name, value in order.arrays.items():
            np.testing.assert_array_equal(arrays[name], value)


def test_the_old_way_told_the_worlds_apart(
    worlds: Worlds, document: StudyDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong version: a matrix product as scores, a code when one is no number. It tells the two worlds apart."""
    order = _orders(document, _overflowing_alone(worlds, _RANGE))[0]
    monkeypatch.setattr(registry, "LARGEST", TOP)

    def one_product(module: torch.nn.Linear, cohort: Any, *_on: Any) -> list[NDArray[np.float64]]:
        products = cohort.inputs.double() * module.weight.detach().double()
        lanes = torch.stack([products[:, start::2].sum(dim=1) for start in (0, 1)])
        logits = torch.where(lanes.abs() > _RANGE, lanes.sign() * torch.inf, lanes).sum(dim=0)
        return [torch.sigmoid(torch.stack([logits[rows].mean() for rows in cohort.rows]))[:, None].double().numpy()]

    def tells(error: BaseException, *others: Any) -> None:
        raise error

    monkeypatch.setattr(client.app, "tell_patients", one_product)
    monkeypatch.setattr(client.app, "_log_or_raise", tells)
    assert isinstance(worlds.there.ask(order), Refusal)
    assert isinstance(worlds.gone.ask(order), EvaluateReport)
