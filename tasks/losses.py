"""The training loss: one loss for questions and outlines, over what is known about each image.

Questions: cross-entropy of each that is known; of grades that of each threshold between two, see ``tasks/answers.py``;
of a measured value the Huber loss (P. Huber, Ann Math Stat 35:73, 1964) in half-ranges. Each is scaled so that its
gradient by one image's outputs has norm 1 or less, which bounds a linear model's by the norm of its features.
The task's own question weighs as much as all secondary findings together: with one clip per patient they would
otherwise take most of it, and models are selected by the question.

Outlines: cross-entropy of every pixel plus the soft Dice loss (Milletari et al., V-Net, 3DV 2016), which does not let a
large background drown a small structure; their mean is the better of either alone in most comparisons (Ma et al., Loss
odyssey in medical image segmentation, Med Image Anal 71, 2021). All of them together weigh as much as the question.
Those of structures that exclude each other are of a softmax over them and the background.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from tasks.answers import STEEPNESS, Answer, Binary, Classes, Grade, Measure
from tasks.exclusion import Group, shares, with_background
from tasks.input_spec import InputSpec

_HUBER = 1.0
"""Half-ranges from the truth beyond which the loss of a measured value rises no faster."""


def loss_of(form: InputSpec, outputs: Tensor, targets: Tensor, class_weights: tuple[float, ...] = ()) -> Tensor:
    """The loss of one patient's images, a scalar: the sum of the mean losses of the question, of the secondary findings
    and of the outlines, each over what is known. Runs under ``torch.func.vmap``.

    Args:
        form: of the task.
        outputs: shape (images, ``form.outputs``) or (images, ``form.outputs`` + structures * pixels).
        targets: shape (images, questions) or (images, questions + structures * pixels): truths of the questions, see
            ``tasks/answers.py``, pixels 0 or 1; NaN where nobody knows. Of a structure all pixels are known, or none.
        class_weights: of each answer to the first question, 1 at most; empty: they all count the same.

    Returns:
        0 where nothing is known.
    """
    known = ~torch.isnan(targets)
    truth = torch.where(known, targets, 0.0)
    questions = len(form.answers)
    losses = _of_questions(form, outputs, truth, class_weights) * known[:, :questions]
    total = _mean(losses[:, :1], known[:, :1])
    if questions > 1:
        total = total + _mean(losses[:, 1:], known[:, 1:questions])
    if outputs.shape[1] > form.outputs:
        pixels = outputs[:, form.outputs :]
        total = total + _outlining(form, pixels, truth[:, questions:], known[:, questions:].float())
    return total


def _of_questions(form: InputSpec, outputs: Tensor, truth: Tensor, class_weights: tuple[float, ...]) -> Tensor:
    """The loss of each question for each image, shape (images, questions)."""
    if set(form.answers) == {Binary()}:  # in one call, and not in one for each
        losses = binary_cross_entropy_with_logits(
            outputs[:, : form.outputs], truth[:, : form.outputs], reduction="none"
        )
    else:
        columns, start = [], 0
        for place, answer in enumerate(form.answers):
            columns.append(_of_answer(answer, outputs[:, start : start + answer.outputs], truth[:, place]))
            start += answer.outputs
        losses = torch.stack(columns, dim=1)
    if class_weights:
        of_class = torch.tensor(class_weights, dtype=losses.dtype).to(losses.device)
        weights = (_at(truth[:, 0], len(class_weights), losses) * of_class).sum(dim=1)
        losses = torch.cat([losses[:, :1] * weights[:, None], losses[:, 1:]], dim=1)
    return losses


def _of_answer(answer: Answer, outputs: Tensor, truth: Tensor) -> Tensor:
    """The loss of one question for each image, shape (images,)."""
    match answer:
        case Binary():
            return binary_cross_entropy_with_logits(outputs[:, 0], truth, reduction="none")
        case Classes():
            logs = torch.log_softmax(outputs, dim=1) * _at(truth, answer.outputs, outputs)
            return -logs.sum(dim=1) / math.sqrt(2)
        case Grade():
            above = (truth[:, None] > torch.arange(answer.outputs, device=truth.device)).to(outputs.dtype)
            each = binary_cross_entropy_with_logits(outputs, above, reduction="none")
            return each.sum(dim=1) / math.sqrt(answer.outputs)
        case Measure():
            told, right = outputs[:, 0] / STEEPNESS, (truth - answer.middle) / answer.half
            return STEEPNESS * huber_loss(told, right, reduction="none", delta=_HUBER)


def _at(truth: Tensor, answers: int, like: Tensor) -> Tensor:
    """1 in the place of each image's answer, shape (images, answers)."""
    return (truth[:, None] == torch.arange(answers, device=truth.device)).to(like.dtype)


def _outlining(form: InputSpec, outputs: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    from monai.losses.dice import DiceLoss  # takes a third of a second to import, and most studies outline nothing

    shape = (len(outputs), form.structures, math.prod(form.shape[1:]))
    cross_entropy = binary_cross_entropy_with_logits(outputs, truth, reduction="none") * known
    outputs, truth, known, cross_entropy = (t.reshape(shape) for t in (outputs, truth, known, cross_entropy))
    dice = DiceLoss(sigmoid=True, reduction="none")(outputs, truth).reshape(shape[:2])
    outlined = known[:, :, 0]
    losses = (dice + cross_entropy.mean(dim=2)) / 2
    for group in form.exclusive:
        losses = _exclusive(losses, outputs, shares(truth, group), group)
    return _mean(losses * outlined, outlined)


def _exclusive(losses: Tensor, outputs: Tensor, truth: Tensor, group: Group) -> Tensor:
    """The losses, shape (images, structures), with those of a group that shares a softmax.

    Its cross-entropy is one number for all of it, and counts in each of its structures; by the root of 2 less, because
    its slope in the logits has norm up to that.

    Args:
        outputs: logits, shape (images, structures, pixels).
        truth: of the group's structures, see ``shares``.
    """
    from monai.losses.dice import DiceLoss

    logs = torch.log_softmax(with_background(outputs, group), dim=1)
    right = torch.cat([1 - truth.sum(dim=1, keepdim=True), truth], dim=1)
    cross_entropy = -(right * logs).sum(dim=1).mean(dim=1, keepdim=True) / math.sqrt(2)
    dice = DiceLoss(reduction="none")(logs.exp()[:, 1:], truth).reshape(truth.shape[:2])
    columns = list(losses.unbind(dim=1))
    for place, column in zip(group, ((dice + cross_entropy) / 2).unbind(dim=1), strict=True):
        columns[place] = column
    return torch.stack(columns, dim=1)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return values.sum() / known.sum().clamp(min=1)
