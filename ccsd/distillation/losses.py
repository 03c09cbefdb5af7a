"""Losses on logits, one value per sample, computed in float32.

Shapes: logits z and targets are ... x R x D x H x W with any leading axes (on GPUs at most two); the result keeps them.
"""

from functools import reduce
from operator import or_

import torch
from torch import Tensor
from torch.nn import functional

from ccsd.triton import by_triton
from preprocess.task import Task

VOLUME = (-3, -2, -1)
REGIONS_AND_VOLUME = (-4, -3, -2, -1)


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """L_seg: soft Dice, mean over the regions, plus binary cross-entropy, mean over regions and voxels.

    The Dice term has its 1 only in the denominator, so predictions in an empty region increase the loss.
    """
    predicted, overlap, cross_entropy = _overlap(logits, target.float())
    dice = 1 - 2 * overlap / (predicted + target.sum(VOLUME) + 1)
    return dice.mean(-1) + (cross_entropy / logits.shape[-3:].numel()).mean(-1)


def _overlap(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """Return the sums over the voxels of the probabilities, of these within the target, and of the cross-entropy."""
    if by_triton(logits):
        from ccsd.distillation import loss_kernels

        sums: Tensor = loss_kernels.Overlap.apply(logits, target)  # type: ignore[no-untyped-call]
        return sums.unbind(-1)
    logits = logits.float()
    probability = logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return probability.sum(VOLUME), (probability * target).sum(VOLUME), entropy.sum(VOLUME)


def distillation_loss(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """KL_T(t || s): T^2 times the Bernoulli divergence of softened predictions, mean over regions and voxels.

    Computed from logits with logsigmoid, so it is finite for any finite logits. The teacher gets no gradient.
    """
    if by_triton(student):
        from ccsd.distillation import loss_kernels

        sums: Tensor = loss_kernels.Divergence.apply(teacher, student, temperature)  # type: ignore[no-untyped-call]
        return temperature**2 * (sums / student.shape[-3:].numel()).mean(-1)
    t = teacher.detach().float() / temperature
    s = student.float() / temperature
    p = t.sigmoid()
    inside = p * (functional.logsigmoid(t) - functional.logsigmoid(s))
    outside = (1 - p) * (functional.logsigmoid(-t) - functional.logsigmoid(-s))
    return temperature**2 * (inside + outside).mean(REGIONS_AND_VOLUME)


def alignment_loss(shared: Tensor, available: Tensor) -> Tensor:
    """L_sh: mean L1 distance between the shared features of cyclic neighbours that are both available.

    `shared` is B x M x C x d x h x w, `available` B x M; a sample with no such pair contributes 0.
    """
    distance = (shared - shared.roll(-1, dims=1)).float().abs().flatten(2).mean(-1)
    return _mean_where(distance, available & available.roll(-1, dims=1))


def modality_loss(logits: Tensor, available: Tensor) -> Tensor:
    """L_sp: cross-entropy of classifying the modality by its specific features, mean over the available ones.

    `logits` is B x M x M: for each modality's pooled features, one score per modality.
    """
    # Modality m is the m-th class. torch's own cross-entropy of such a shape is not deterministic on GPUs.
    losses = -logits.float().transpose(1, 2).log_softmax(1).diagonal(dim1=1, dim2=2)
    return _mean_where(losses, available)


def region_targets(label: Tensor, task: Task) -> Tensor:
    """Turn B x D x H x W classes into B x R x D x H x W membership of the regions, in the order of the task."""
    where = {name: label == number for name, number in task.classes.items()}
    members = [reduce(or_, (where[name] for name in classes)) for classes in task.regions.values()]
    return torch.stack(members, dim=1).float()


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean over the last axis of the selected values, 0 if there are none."""
    return (values * where).sum(-1) / where.sum(-1).clamp(min=1)
