"""The loss against single images done by hand, and what is not known, which must teach nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from tasks.input_spec import InputSpec
from tasks.losses import loss_of

FORM = InputSpec((1, 4, 5), findings=3, structures=2)
PIXELS = 20


def outputs(images: int = 4) -> Tensor:
    return torch.randn(images, 3 + 2 * PIXELS, generator=torch.Generator().manual_seed(1))


def targets(images: int = 4) -> Tensor:
    drawn = torch.rand(images, 3 + 2 * PIXELS, generator=torch.Generator().manual_seed(2))
    return (drawn > 0.6).float()


def test_one_finding_is_plain_cross_entropy() -> None:
    logits, labels = outputs()[:, :1], targets()[:, :1]
    expected = binary_cross_entropy_with_logits(logits, labels)
    assert torch.allclose(loss_of(InputSpec((1, 4, 5)), logits, labels), expected)


def test_findings_and_outlines_are_what_the_formulas_say() -> None:
    logits, truth = outputs(), targets()
    expected = binary_cross_entropy_with_logits(logits[:, :1], truth[:, :1])
    expected += binary_cross_entropy_with_logits(logits[:, 1:3], truth[:, 1:3])
    parts = []
    for image in range(4):
        for structure in range(2):
            pixels = slice(3 + structure * PIXELS, 3 + (structure + 1) * PIXELS)
            z, t = logits[image, pixels], truth[image, pixels]
            p = torch.sigmoid(z)
            dice = 1 - (2 * (p * t).sum() + 1e-5) / (p.sum() + t.sum() + 1e-5)
            parts.append((dice + binary_cross_entropy_with_logits(z, t)) / 2)
    assert torch.allclose(loss_of(FORM, logits, truth), expected + torch.stack(parts).mean())


def test_what_nobody_knows_does_not_count() -> None:
    logits, truth = outputs(), targets()
    truth[0] = math.nan
    truth[1, 1] = math.nan
    truth[2, 3 : 3 + PIXELS] = math.nan
    without = loss_of(FORM, logits, truth)
    logits[0], logits[1, 1], logits[2, 3 : 3 + PIXELS] = 50.0, -50.0, 50.0
    assert torch.equal(without, loss_of(FORM, logits, truth))
    assert loss_of(FORM, logits, torch.full_like(truth, math.nan)) == 0


def test_a_network_that_does_not_outline_is_judged_by_its_findings() -> None:
    logits, truth = outputs()[:, :3], targets()[:, :3]
    expected = binary_cross_entropy_with_logits(logits[:, :1], truth[:, :1])
    expected += binary_cross_entropy_with_logits(logits[:, 1:], truth[:, 1:])
    assert torch.allclose(loss_of(FORM, logits, truth), expected)


@pytest.mark.parametrize("known", [0.0, math.nan])
def test_each_patients_gradient_is_finite_and_its_own(known: float) -> None:
    logits, truth = outputs(), targets().expand(3, -1, -1).clone()
    truth[1, 0, :] = known

    def of(scale: Tensor, told: Tensor) -> Tensor:
        return loss_of(FORM, scale * logits, told)

    together = vmap(grad(of))(torch.ones(3), truth)
    alone = torch.stack([grad(of)(torch.tensor(1.0), told) for told in truth])
    assert torch.isfinite(together).all()
    assert torch.allclose(together, alone, atol=1e-6)
    assert together[0] == together[2] != together[1]
