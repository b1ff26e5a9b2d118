"""Staying near a teacher: cosine distance of image embeddings. Not in the paper; for continuing from old weights."""

from __future__ import annotations

import torch

from cloc.comm import at_least_fp32, sum_over_ranks


def distillation(embeds: torch.Tensor, teacher_embeds: torch.Tensor) -> tuple[torch.Tensor, float]:
    """One minus the cosine, averaged over the images of all ranks.

    Args:
        embeds: (B, E) unit norm; B may be 0 and may differ between ranks.
        teacher_embeds: (B, E) unit norm, without gradient.

    Returns:
        This rank's share of the term in [0, 2], and the global number of images.
    """
    (count,) = sum_over_ranks([len(embeds)], embeds.device)
    distances = 1 - (at_least_fp32(embeds) * at_least_fp32(teacher_embeds).detach()).sum(dim=1)
    return distances.sum() / max(count, 1), count
