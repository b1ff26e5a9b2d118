"""Focal alignment of class features with the concepts of the global batch (DetCLIPv2 2.3, L_align).

Letters: K anchors of this rank's images in all, U concepts of this rank, G different concepts of all ranks, E
embedding, L positive (anchor, concept) pairs of this rank.
"""

from __future__ import annotations

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cloc.comm import at_least_fp32, gather_rows

MAX_ENTRIES = 2**22
"""Similarities that are held at once: 16 MB in float32."""


def gather_concepts(embeds: torch.Tensor, text_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The different concepts of all ranks.

    Args:
        embeds: (U, E) of this rank; U may differ between ranks and may be 0.
        text_ids: (U,) int64, equal for equal strings on every rank.

    Returns:
        (G, E), differentiable, in the order of their ids, and (U,) the row of each own concept in it.
    """
    everyone, start = gather_rows(embeds)
    ids, _ = gather_rows(text_ids)
    if len(ids) == 0:
        return everyone, ids
    different, row = ids.unique(return_inverse=True)
    first = torch.full_like(different, len(ids)).scatter_reduce(
        0, row, torch.arange(len(ids), device=ids.device), "amin"
    )
    return everyone[first], row[start : start + len(text_ids)]


class _Negatives(torch.autograd.Function):
    """Sum over all (anchor, concept) pairs of the focal loss of a negative, in chunks of anchors.

    The gradients are made beside the loss, so that memory is that of the inputs and one chunk; nothing of K times G
    entries ever exists.
    """

    @staticmethod
    def forward(ctx, features, texts, scale, bias, gamma: float, chunk: int, unknown, group) -> torch.Tensor:
        total = features.new_zeros((), dtype=torch.float64)
        to_features, to_texts = torch.empty_like(features), torch.zeros_like(texts)
        to_scale, to_bias = torch.zeros_like(scale, dtype=torch.float64), torch.zeros_like(bias, dtype=torch.float64)
        with torch.autocast(features.device.type, enabled=False):
            for start in range(0, len(features), chunk):
                rows = features[start : start + chunk]
                similarity = rows @ texts.T
                spare = similarity.mul(scale).add_(bias)
                probability, cost = spare.sigmoid(), F.softplus(spare)
                focus = probability.pow(gamma)
                if unknown is not None:
                    focus.masked_fill_(unknown[group[start : start + chunk]], 0.0)
                total += _summed(torch.mul(focus, cost, out=spare))
                # The slope of focus * cost: focus * (gamma * (1 - probability) * cost + probability).
                slope = torch.neg(probability, out=spare).add_(1).mul_(cost).mul_(gamma).add_(probability).mul_(focus)
                to_scale += _summed(similarity.mul_(slope))
                to_bias += _summed(slope)
                slope.mul_(scale)
                to_features[start : start + chunk] = slope @ texts
                to_texts += slope.T @ rows
        ctx.save_for_backward(to_features, to_texts, to_scale.to(scale.dtype), to_bias.to(bias.dtype))
        return total.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        return *(grad * saved for saved in ctx.saved_tensors), None, None, None, None


def _summed(matrix: torch.Tensor) -> torch.Tensor:
    """Scalar in float64, by rows first: summed in float64 at once, a CPU would copy the matrix into it."""
    return matrix.sum(dim=1).sum(dtype=torch.float64)


def focal_alignment(
    features: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    positive_anchor: torch.Tensor,
    positive_concept: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    max_entries: int = MAX_ENTRIES,
    unknown: torch.Tensor | None = None,
    group: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum of the sigmoid focal loss over all anchors and concepts; not yet divided by anything.

    The papers count every pair that is not positive as a negative. Where nobody looked whether a concept is in an image
    (LVIS, crowds, what a caption names in other words) its entries take no part, the positive ones excepted.

    Args:
        features: (K, E) class features.
        texts: (G, E) concepts; K and G may be 0.
        scale: scalar; the logit is scale * feature . text + bias.
        bias: scalar.
        positive_anchor: (L,) rows of the anchors of the pairs whose target is one; all other targets are zero.
        positive_concept: (L,) rows of their concepts; no pair comes twice.
        alpha: weight of positives, 1 - alpha that of negatives.
        gamma: focus on what is wrong.
        max_entries: similarities that are held at once.
        unknown: (Q, G) bool, concepts that are neither there nor absent for a group of anchors; None: there is none.
        group: (K,) row of `unknown` of each anchor; goes with it.
    """
    features, texts, scale, bias = (at_least_fp32(value) for value in (features, texts, scale, bias))
    chunk = max(1, max_entries // max(len(texts), 1))
    negatives = _Negatives.apply(features, texts, scale, bias, gamma, chunk, unknown, group)
    with torch.autocast(features.device.type, enabled=False):
        logits = (features[positive_anchor] * texts[positive_concept]).sum(dim=1) * scale + bias
        probability = logits.sigmoid()
        as_positive = (1 - probability).pow(gamma) * F.softplus(-logits)
        as_negative = probability.pow(gamma) * F.softplus(logits)
        if unknown is not None:  # those were no negatives
            assert group is not None
            as_negative = as_negative.masked_fill(unknown[group[positive_anchor], positive_concept], 0.0)
        return (1 - alpha) * (negatives - as_negative.sum()) + alpha * as_positive.sum()


def focal_alignment_plain(
    features: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    positive_anchor: torch.Tensor,
    positive_concept: torch.Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    unknown: torch.Tensor | None = None,
    group: torch.Tensor | None = None,
) -> torch.Tensor:
    """The definition: every pair's binary cross entropy, weighted, in one matrix."""
    logits = scale * features @ texts.T + bias
    target = torch.zeros_like(logits)
    target[positive_anchor, positive_concept] = 1.0
    probability = logits.sigmoid()
    truth = probability * target + (1 - probability) * (1 - target)
    weight = (alpha * target + (1 - alpha) * (1 - target)) * (1 - truth).pow(gamma)
    if unknown is not None:
        weight = weight * (target.bool() | ~unknown[group])
    return (weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum()
