"""Once a cohort is open, no value of an image, label or weight decides whether a reply leaves, which kind, or its form.

Whatever finite or infinite numbers a network holds, and whoever of the patients is there, scoring and training give
arrays of the same names, types, shapes and bytes. Orders with such weights are refused before any patient is touched;
here the weights are put in behind that check, as if it had a hole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from client import report
from client.app import _ReservedSteps
from client.cohort.dataset import UNKNOWN, Cohort
from client.ledger.accounting import Mechanism
from client.ledger.links import Head
from client.training import methods
from client.training.compare import SecondModel
from client.training.noise import entropy
from client.training.scoring import score_outlines, score_patients, scores_of, tell_patients
from tasks.input_spec import InputSpec
from tasks.losses import loss_of
from tasks.machine.device import PROCESSOR
from tasks.models import registry
from tasks.models.network import Network
from tasks.models.weights import digest_of, in_folder
from tasks.protocol.study import EvaluationTerms, MethodTerms, StudyDocument, TrainingTerms
from tasks.protocol.wire import Arrays, EvaluateOrder, TrainOrder, due
from tests.client.networks import CASES, IMAGE

TOP = float(np.finfo(np.float32).max)
PATIENTS = 4
HEAD = Head(0, "0" * 64)


@dataclass(frozen=True)
class Question:
    """What of a task this file needs."""

    form: InputSpec

    def loss(self, outputs: Tensor, targets: Tensor, class_weights: tuple[float, ...] = ()) -> Tensor:
        return loss_of(self.form, outputs, targets, class_weights)


def network_of(spec: dict[str, Any], form: InputSpec, folder: Path) -> Network:
    return registry.build(spec, form, seed=3, find=in_folder(folder))


def cohort_of(network: Network, form: InputSpec) -> Cohort:
    """Patients with one or two images, of whom not everything is known."""
    draw = torch.Generator().manual_seed(5)
    rows = [torch.arange(0, 2), torch.arange(2, 3), torch.arange(3, 5), torch.arange(5, 6)]
    images = torch.rand(6, *form.shape, generator=draw)
    with torch.no_grad():
        inputs = images if network.features is None else network.features(images)
    targets = (torch.rand(6, form.outputs, generator=draw) < 0.5).float()
    targets[0, 1] = math.nan
    masks = None
    if network.outlines:
        masks = (torch.rand(6, form.structures, *form.shape[1:], generator=draw) < 0.2).to(torch.uint8)
        masks[1], masks[2] = UNKNOWN, 0
    return Cohort(inputs, targets, rows, tuple("abcd"), masks)


def without(cohort: Cohort, patient: int) -> Cohort:
    """The neighbour: everything of one patient is gone."""
    gone = set(cohort.rows[patient].tolist())
    keep = torch.tensor([row for row in range(len(cohort.inputs)) if row not in gone])
    place = {int(old): new for new, old in enumerate(keep)}
    return replace(
        cohort,
        inputs=cohort.inputs[keep],
        targets=cohort.targets[keep],
        masks=None if cohort.masks is None else cohort.masks[keep],
        rows=[torch.tensor([place[int(r)] for r in rows]) for p, rows in enumerate(cohort.rows) if p != patient],
        patients=tuple(name for p, name in enumerate(cohort.patients) if p != patient),
    )


def study_of(document: StudyDocument, form: InputSpec, outlines: bool, **changes: Any) -> StudyDocument:
    """One that asks for all that can be asked, of two steps."""
    findings = [f"f{n}" for n in range(1, form.outputs)]
    structures = [f"s{n}" for n in range(form.structures)] if outlines else []
    evaluation = EvaluationTerms(2, 16, 4.0, paired=4, matrix=2, findings=findings, structures=structures)
    training = TrainingTerms(2, 1.0, 0.5, 0.0, 1.0, 2)
    return replace(document, rounds=2, asked=2, evaluation=evaluation, training=training, **changes)


@torch.no_grad()
def fill(module: nn.Module, size: float, pattern: str, seed: int) -> Arrays:
    """Weights that add up to nothing good: of one size, of mixed signs, or with numbers that are none."""
    draw = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        signs = torch.where(torch.rand(p.shape, generator=draw) < 0.5, -1.0, 1.0)
        values = {
            "alternating": signs * size,
            "one sign": torch.full(p.shape, size),
            "random": torch.randn(p.shape, generator=draw).clamp(-1, 1) * size,
            "not finite": torch.where(torch.rand(p.shape, generator=draw) < 0.1, math.nan, signs * size),
        }[pattern]
        p.copy_(values)
    return registry.arrays_of(module)


def scored(
    order: EvaluateOrder, module: nn.Module, cohort: Cohort, form: InputSpec, second: SecondModel | None
) -> Arrays:
    """As ``client.app`` scores, without what needs a catalog."""
    scores = scores_of(cohort, tell_patients(module, cohort))
    told = report.Scored(scores[0], cohort.patient_labels().numpy())
    if second is not None:
        told = replace(told, pair=report.SecondScores(second.scores(module, cohort), second.edges))
    elif order.asks == "scores" and order.round == order.study.rounds:
        findings = {
            name: np.stack([scores[n], cohort.patient_labels(n).numpy()])
            for n, name in enumerate(order.study.evaluation.findings, start=1)
        }
        outlines = score_outlines(module, cohort, form) if order.study.evaluation.structures else []
        told = replace(
            told, findings=findings, outlines=dict(zip(order.study.evaluation.structures, outlines, strict=True))
        )
    counts = report.counted(order, told)
    spent = report.Spent(1.0, 1e-4, 2.0)
    return report.evaluate_report(order, counts, spent, HEAD, entropy()).arrays


def form_of(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...], int]]:
    return {name: (value.dtype.str, value.shape, value.nbytes) for name, value in arrays.items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    plain = registry.build({"name": "densenet121"}, IMAGE).trainable
    save_file({name: tensor.contiguous() for name, tensor in plain.state_dict().items()}, folder / "w.safetensors")
    return folder


def frozen(folder: Path) -> dict[str, Any]:
    return {"name": "densenet121", "weights": digest_of(folder / "w.safetensors"), "freeze": "encoder"}


ALL = [*CASES, pytest.param({"name": "frozen"}, IMAGE, id="frozen encoder")]
SIZES = st.floats(-44, math.log10(TOP)).map(lambda exponent: min(10.0**exponent, TOP))
PATTERNS = st.sampled_from(["alternating", "one sign", "random", "not finite"])


def examples(spec: dict[str, Any]) -> settings:
    """Deep networks take a second an example here."""
    most = 8 if spec["name"] in ("scatter_linear", "frozen") else 1
    return settings(max_examples=most, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])


def orders(study: StudyDocument) -> Iterator[EvaluateOrder]:
    yield EvaluateOrder(study, 1)
    yield EvaluateOrder(study, 2)
    yield EvaluateOrder(study, 2, asks="matrix")
    yield EvaluateOrder(study, 2, asks="paired")


@pytest.mark.parametrize(("spec", "form"), ALL)
def test_scores_leave_in_the_same_form_whoever_is_there(
    spec: dict[str, Any], form: InputSpec, document: StudyDocument, weights: Path
) -> None:
    network = network_of(frozen(weights) if spec["name"] == "frozen" else spec, form, weights)
    module, everybody = network.trainable, cohort_of(network, form)
    study = study_of(document, form, network.outlines)
    neighbours = [everybody, *(without(everybody, p) for p in range(PATIENTS))]
    few = neighbours if "scatter_linear" in spec["name"] else neighbours[:2]

    @examples(spec)
    @given(size=SIZES, pattern=PATTERNS, seed=st.integers(0, 9))
    def check(size: float, pattern: str, seed: int) -> None:
        weights_of_order = fill(module, size, pattern, seed)
        edges = np.tile(np.linspace(0.25, 0.75, 3), (2, 1))
        for order in orders(study) if "scatter" in spec["name"] else [EvaluateOrder(study, 2)]:
            for cohort in few:
                second = None
                if order.asks == "paired":
                    if registry.misfits(module, weights_of_order):
                        continue  # refused before anybody is scored
                    second = SecondModel(weights_of_order, edges)
                found = scored(order, module, cohort, form, second)
                assert form_of(found) == {n: ("<f8", s, 8 * math.prod(s)) for n, s in due(order).items()}
                assert all(np.isfinite(value).all() for value in found.values())

    check()


@pytest.mark.parametrize(("spec", "form"), ALL)
def test_updates_leave_in_the_same_form_whoever_is_there(
    spec: dict[str, Any], form: InputSpec, document: StudyDocument, weights: Path
) -> None:
    network = network_of(frozen(weights) if spec["name"] == "frozen" else spec, form, weights)
    module, everybody = network.trainable, cohort_of(network, form)
    task: Any = Question(form)
    kinds = [MethodTerms(), MethodTerms(proximal=0.5), MethodTerms(towards_mean=0.5)]
    if "scatter" not in spec["name"] and spec["name"] != "frozen":
        kinds = [MethodTerms(personal=0.5), MethodTerms(stays="head", head_steps=1)]

    @examples(spec)
    @given(size=SIZES, pattern=PATTERNS, seed=st.integers(0, 9), kind=st.sampled_from(kinds))
    def check(size: float, pattern: str, seed: int, kind: MethodTerms) -> None:
        study = study_of(document, form, network.outlines, method=kind)
        found = []
        for cohort in (everybody, without(everybody, seed % PATIENTS)):
            order = TrainOrder(study, 1, fill(module, size, pattern, seed))
            mechanism = Mechanism(1.0, 1.0, study.steps_a_round())
            steps = _ReservedSteps(module, task, cohort, mechanism, 1.0, PATIENTS, 4096, PROCESSOR, lambda _: entropy())
            update = methods.train_round(module, order, {}, steps).update
            assert all(np.isfinite(value).all() for value in update.values())
            found.append(form_of(update))
        assert found[0] == found[1]

    check()


def test_the_wrong_version_lets_a_score_that_is_no_number_through(document: StudyDocument) -> None:
    """What this file would not see if it looked at nothing: a histogram refuses such a score, and so did the reply."""
    order = EvaluateOrder(document, 1)
    lost = report.Scored(np.array([0.2, math.nan]), np.array([0, 1], np.float32))
    with pytest.raises(ValueError, match="must be numbers"):
        report.counted(order, lost)


def test_a_score_is_half_where_the_logit_is_no_number() -> None:
    module = nn.Linear(2, 1, bias=False)
    cohort = Cohort(torch.tensor([[1.0, -1.0], [1.0, 0.0]]), torch.zeros(2, 1), [torch.arange(2)])
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[math.inf, math.inf]]))
    assert score_patients(module, cohort)[0] == 0.5  # inf - inf, and inf * 0
    assert score_patients(module, cohort).dtype == np.float64
