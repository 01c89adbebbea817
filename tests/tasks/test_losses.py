"""The loss against single images done by hand, and what is not known, which must teach nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, huber_loss

from tasks.answers import Answer, Binary, Classes, Grade, Measure
from tasks.codes import Code
from tasks.input_spec import InputSpec
from tasks.losses import loss_of

FORM = InputSpec((1, 4, 5), (Binary(),) * 3, structures=2)
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


CODES = tuple(Code("99CONSILIUM", f"G{n}", f"grade {n}") for n in range(4))
LESION = Classes(("normal", "benign", "malignant"), ("malignant",), CODES[:3])
GRADE = Grade(("none", "doubtful", "mild", "severe"), "mild", CODES)
SIZE = Measure(CODES[0], Code("UCUM", "mm", "millimeter"), 0.0, 50.0, event_above=20.0)
EVERY = InputSpec((1, 4, 5), (LESION, GRADE, Binary(), SIZE))
TRUTHS = torch.tensor([[2.0, 1.0, 1.0, 35.0], [0.0, 3.0, math.nan, 0.0], [math.nan, 0.0, 0.0, math.nan]])


def of_every(images: int = 3) -> Tensor:
    return torch.randn(images, EVERY.outputs, generator=torch.Generator().manual_seed(3))


def test_each_kind_has_its_textbook_loss() -> None:
    z = of_every()
    classes = cross_entropy(z[:2, :3], torch.tensor([2, 0])) / math.sqrt(2)
    above = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    grades = binary_cross_entropy_with_logits(z[:, 3:6], above, reduction="none").sum(dim=1) / math.sqrt(3)
    yes = binary_cross_entropy_with_logits(z[:, 6], torch.tensor([1.0, 0.0, 0.0]), reduction="none")[[0, 2]]
    size = 16 * huber_loss(z[:2, 7] / 16, torch.tensor([0.4, -1.0]), reduction="none", delta=1.0)
    others = torch.cat([grades, yes, size]).mean()
    assert torch.allclose(loss_of(EVERY, z, TRUTHS), classes + others)
    for answer, columns in zip(EVERY.answers, (slice(0, 3), slice(3, 6), slice(6, 7), slice(7, 8)), strict=True):
        alone = InputSpec((1, 4, 5), (answer,))
        assert loss_of(alone, z[:, columns], torch.full((3, 1), math.nan)) == 0


@pytest.mark.parametrize("answer", [Binary(), LESION, GRADE, SIZE])
def test_no_image_moves_the_outputs_by_more_than_one(answer: Answer) -> None:
    """A linear model's gradient is then bounded by the norm of its features, which is 1."""
    form = InputSpec((1, 4, 5), (answer,))
    truths = torch.tensor({"binary": [0.0, 1], "classes": [0.0, 1, 2], "grade": [0.0, 1, 2, 3]}.get(answer.kind, [0.0]))
    for truth in [*truths, torch.tensor(50.0)] if answer is SIZE else truths:
        for scale in (0.0, 1.0, 50.0):
            for seed in range(20):
                z = scale * torch.randn(1, answer.outputs, generator=torch.Generator().manual_seed(seed))
                slope = grad(lambda out, t=truth: loss_of(form, out, t.reshape(1, 1)))(z)
                assert slope.norm() <= 1 + 1e-6


@pytest.mark.parametrize("answer", [Binary(), LESION, GRADE, SIZE])
def test_no_loss_curves_much_more_than_that_of_a_yes_or_no_question(answer: Answer) -> None:
    """The default learning rate was found for one; with features of norm 1 the curvature bounds what it may be."""
    form = InputSpec((1, 4, 5), (answer,))
    for seed in range(30):
        z = torch.randn(answer.outputs, generator=torch.Generator().manual_seed(seed))
        curved = torch.func.hessian(lambda out: loss_of(form, out[None], torch.ones(1, 1)))(z)
        assert torch.linalg.eigvalsh(curved).max() <= 0.36


def test_public_weights_scale_the_question_alone() -> None:
    z, weights = of_every(), (0.2, 0.5, 1.0)
    each = cross_entropy(z[:2, :3], torch.tensor([2, 0]), reduction="none") / math.sqrt(2)
    unweighted = loss_of(EVERY, z, TRUTHS)
    weighted = loss_of(EVERY, z, TRUTHS, weights)
    assert torch.allclose(unweighted - weighted, (each * torch.tensor([0.0, 0.8])).sum() / 2, atol=1e-6)
    logits, labels = outputs()[:, :1], targets()[:, :1]
    by_hand = binary_cross_entropy_with_logits(logits, labels, torch.where(labels > 0, 1.0, 0.25))
    assert torch.allclose(loss_of(InputSpec((1, 4, 5)), logits, labels, (0.25, 1.0)), by_hand)


def test_gradients_of_every_kind_together_are_each_patients_own() -> None:
    z = of_every()

    def of(scale: Tensor, told: Tensor) -> Tensor:
        return loss_of(EVERY, scale * z, told)

    truths = torch.stack([TRUTHS, TRUTHS.roll(1, 0), TRUTHS])
    together = vmap(grad(of))(torch.ones(3), truths)
    alone = torch.stack([grad(of)(torch.tensor(1.0), told) for told in truths])
    assert torch.allclose(together, alone, atol=1e-6)


APART = InputSpec((1, 4, 5), structures=3, exclusive=((0, 2),))
"""The first and the last structure exclude each other; the other one may overlap them."""


def apart(images: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(images, 1 + 3 * PIXELS, generator=draw)
    which = torch.randint(0, 3, (images, PIXELS), generator=draw)
    masks = torch.stack([which == 1, torch.rand(images, PIXELS, generator=draw) > 0.5, which == 2], dim=1).float()
    return logits, torch.cat([torch.ones(images, 1), masks.flatten(1)], dim=1)


def test_structures_that_exclude_each_other_share_a_softmax_with_the_background() -> None:
    logits, truth = apart()
    z, t = logits[:, 1:].reshape(4, 3, PIXELS), truth[:, 1:].reshape(4, 3, PIXELS)
    number = t[:, 0] + 2 * t[:, 2]
    scores = torch.stack([torch.zeros(4, PIXELS), z[:, 0], z[:, 2]], dim=1)
    shared = cross_entropy(scores, number.long(), reduction="none").mean(dim=1) / math.sqrt(2)
    p = scores.softmax(dim=1)[:, 1:]
    parts = []
    for image in range(4):
        for chance, own in ((p[image, 0], t[image, 0]), (p[image, 1], t[image, 2])):
            parts.append(
                (1 - (2 * (chance * own).sum() + 1e-5) / (chance.sum() + own.sum() + 1e-5) + shared[image]) / 2
            )
        alone = torch.sigmoid(z[image, 1])
        dice = 1 - (2 * (alone * t[image, 1]).sum() + 1e-5) / (alone.sum() + t[image, 1].sum() + 1e-5)
        parts.append((dice + binary_cross_entropy_with_logits(z[image, 1], t[image, 1])) / 2)
    question = binary_cross_entropy_with_logits(logits[:, :1], truth[:, :1])
    assert torch.allclose(loss_of(APART, logits, truth), question + torch.stack(parts).mean())
    assert not torch.allclose(
        loss_of(InputSpec((1, 4, 5), structures=3), logits, truth), question + torch.stack(parts).mean()
    )


def test_of_structures_that_exclude_each_other_nothing_known_teaches_nothing() -> None:
    logits, truth = apart()
    truth[:2, 1:] = math.nan
    slope = grad(lambda out: loss_of(APART, out, truth))(logits)
    assert not slope[:2, 1:].any()
    assert slope[2:, 1:].any(dim=1).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("filled", [0.0, 0.05, 1.0])
def test_no_image_moves_the_outlines_outputs_by_more_than_one(scale: float, filled: float) -> None:
    """As for questions; with nothing, one pixel or everything outlined, and wherever the logits are."""
    for seed in range(10):
        draw = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(1, 1 + 3 * PIXELS, generator=draw)
        first = (torch.rand(1, PIXELS, generator=draw) < filled).float()
        masks = torch.stack([first, first, 1 - first if filled == 1 else 0 * first], dim=1)
        truth = torch.cat([torch.full((1, 1), math.nan), masks.flatten(1)], dim=1)
        slope = grad(lambda out, t=truth: loss_of(APART, out, t))(logits)
        assert float(slope.norm()) <= 1
