"""What fails on one patient is that patient's alone: nobody else's scores, gradients or rows are lost or made again."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from client.cohort import inputs
from client.cohort.alone import outputs_of
from client.cohort.dataset import Cohort
from client.privacy import PatientSteps, StepTerms
from client.training.noise import entropy
from client.training.scoring import score_patients


class Failing(nn.Module):
    """Raises on images of which the first value is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        if bool((x.flatten(1)[:, 0] < 0).any()):
            raise RuntimeError("PATIENT-4711 cannot be computed")
        out: Tensor = self.head(x)
        return out


def cohort_of(patients: int, victim: int | None) -> Cohort:
    torch.manual_seed(3)
    images = torch.rand(patients, 3)
    if victim is not None:
        images[victim, 0] = -1
    return Cohort(images, torch.ones(patients, 1), [torch.tensor([n]) for n in range(patients)])


def test_one_patient_on_whom_scoring_fails_changes_that_score_alone(caplog: pytest.LogCaptureFixture) -> None:
    module = Failing()
    with caplog.at_level(logging.ERROR, "client.cohort.alone"):
        failing, sound = (score_patients(module, cohort_of(9, victim)) for victim in (4, None))
    assert failing[4] == 0.5
    assert [n for n in range(9) if failing[n] != sound[n]] == [4]
    assert "cannot be scored" in caplog.text


def test_one_patient_on_whom_training_fails_moves_the_sum_by_one_clip_at_most() -> None:
    sums = []
    for victim in (4, None):
        module = Failing()
        torch.manual_seed(0)
        with torch.no_grad():
            for p in module.parameters():
                p.copy_(torch.randn(p.shape))
        before = torch.cat([p.detach().flatten() for p in module.parameters()]).clone()
        cohort = cohort_of(9, victim)
        steps = PatientSteps(
            module,
            nn.functional.binary_cross_entropy_with_logits,
            lambda p: torch.optim.SGD(p, lr=1.0),
            StepTerms(1e-9, 0.01, 1.0, 64),
            entropy(),
        )
        steps.step(list(range(9)), lambda chosen, cohort=cohort: cohort.draw(chosen, 1, torch.Generator()))
        sums.append(torch.cat([p.detach().flatten() for p in module.parameters()]) - before)
    assert 0 < float((sums[0] - sums[1]).norm()) <= 0.01 * 1.001
    assert float(sums[0].norm()) > 0.03, "the others are there"


def test_a_model_that_cannot_run_at_all_says_so() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        outputs_of(nn.Sequential(nn.Linear(4, 1)), torch.rand(2, 3), [torch.arange(2)])


def test_who_is_forgotten_leaves_the_file_and_no_other_row_is_touched(tmp_path: Path) -> None:
    path, rows = tmp_path / "inputs" / "x.safetensors", torch.rand(4, 5)
    inputs.write(path, list("abcd"), rows)
    inputs.forget(path, {"b", "z"})
    names, left = inputs.read(path)
    assert names == ["a", "c", "d"]
    assert left is not None
    assert torch.equal(left, rows[[0, 2, 3]])
    path.write_bytes(b"no such thing")
    assert inputs.read(path) == ([], None)
    inputs.forget(path, {"a"})
    assert not path.exists(), "what cannot be read cannot keep whom it should forget"


def test_no_number_is_no_number() -> None:
    assert math.isnan(float(outputs_of(Failing(), torch.full((1, 3), -1.0), [torch.tensor([0])])[0, 0]))
