"""The training loss: one loss for findings and outlines, over what is known about each image.

Findings: binary cross-entropy of each that is known. The task's own question weighs as much as all secondary findings
together: with one clip per patient they would otherwise take most of it, and models are selected by the question.

Outlines: cross-entropy of every pixel plus the soft Dice loss (Milletari et al., V-Net, 3DV 2016), which does not let a
large background drown a small structure; their mean is the better of either alone in most comparisons (Ma et al., Loss
odyssey in medical image segmentation, Med Image Anal 71, 2021). All of them together weigh as much as the question.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from tasks.input_spec import InputSpec


def loss_of(form: InputSpec, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss of one patient's images, a scalar: the sum of the mean losses of the question, of the secondary findings
    and of the outlines, each over what is known. Runs under ``torch.func.vmap``.

    Args:
        form: of the task.
        outputs: logits, shape (images, findings) or (images, findings + structures * pixels).
        targets: the same shape, 0 or 1, or NaN where nobody knows; of a structure all pixels are known, or none.

    Returns:
        0 where nothing is known.
    """
    known = ~torch.isnan(targets)
    truth = torch.where(known, targets, 0.0)
    cross_entropy = binary_cross_entropy_with_logits(outputs, truth, reduction="none") * known
    total = _mean(cross_entropy[:, :1], known[:, :1])
    if form.findings > 1:
        total = total + _mean(cross_entropy[:, 1 : form.findings], known[:, 1 : form.findings])
    if outputs.shape[1] > form.findings:
        total = total + _outlining(
            form, *(t[:, form.findings :] for t in (outputs, truth, known.float(), cross_entropy))
        )
    return total


def _outlining(form: InputSpec, outputs: Tensor, truth: Tensor, known: Tensor, cross_entropy: Tensor) -> Tensor:
    from monai.losses.dice import DiceLoss  # takes a third of a second to import, and most studies outline nothing

    shape = (len(outputs), form.structures, math.prod(form.shape[1:]))
    outputs, truth, known, cross_entropy = (t.reshape(shape) for t in (outputs, truth, known, cross_entropy))
    dice = DiceLoss(sigmoid=True, reduction="none")(outputs, truth).reshape(shape[:2])
    outlined = known[:, :, 0]
    return _mean((dice + cross_entropy.mean(dim=2)) / 2 * outlined, outlined)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return values.sum() / known.sum().clamp(min=1)
