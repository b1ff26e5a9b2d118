"""Image-text and region-text contrast over the global batch (CLOC Eq. 1 and 2), and the similar-text filter (3.4).

Each rank computes the rows of its own samples against the columns of all ranks and divides by the global count, so
the sum over ranks is the loss, and the sum of the ranks' gradients is its gradient, whatever the ranks hold.

Letters: K rows of this rank, G rows of all ranks, E shared embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cloc.comm import at_least_fp32, gather_rows, sum_over_ranks


@dataclass(frozen=True, slots=True)
class Contrast:
    """This rank's share of a symmetric contrastive loss.

    Attributes:
        loss: scalar, local sum over both directions divided by twice the global count.
        count: G.
        accuracy: this rank's share of the global share of rows whose best column is their own.
        filtered: this rank's share of the global share of negatives that were left out.
    """

    loss: torch.Tensor
    count: int
    accuracy: torch.Tensor
    filtered: torch.Tensor


def contrast(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
) -> Contrast:
    """Symmetric InfoNCE of pairs (rows[k], texts[k]) against all pairs of all ranks.

    Args:
        rows: (K, E) image or region embeddings, unit norm; K may differ between ranks and may be 0.
        texts: (K, E) the text embedding of each row, unit norm.
        scale: scalar, inverse temperature.
        text_ids: (K,) int64, equal for equal strings; where given, other pairs with the same string are no negatives.
        threshold: where given, other pairs whose texts have a cosine above it are no negatives either (CLOC: 0.9); the
            test sends no gradient into the texts.

    Returns:
        The share of this rank. With no row on any rank the loss is 0 and still part of the graph.
    """
    count = int(sum_over_ranks([len(rows)], rows.device)[0])
    if count == 0:
        nothing = (rows.sum() + texts.sum()) * 0.0 + scale * 0.0
        return Contrast(nothing, 0, nothing.detach(), nothing.detach())
    all_rows, start = gather_rows(rows)
    all_texts, _ = gather_rows(texts)
    target = torch.arange(len(rows), device=rows.device) + start
    drop = find_similar_texts(texts, all_texts, target, text_ids, threshold)
    rows, texts, all_rows, all_texts = (at_least_fp32(x) for x in (rows, texts, all_rows, all_texts))
    to_text = (scale * rows @ all_texts.T).masked_fill(drop, float("-inf"))
    to_row = (scale * texts @ all_rows.T).masked_fill(drop, float("-inf"))
    loss = F.cross_entropy(to_text, target, reduction="sum") + F.cross_entropy(to_row, target, reduction="sum")
    right = (to_text.detach().argmax(dim=1) == target).sum() if len(rows) else target.sum()
    return Contrast(loss / (2 * count), count, right / count, drop.sum() / max(count * (count - 1), 1))


@torch.no_grad()
def find_similar_texts(
    texts: torch.Tensor,
    all_texts: torch.Tensor,
    target: torch.Tensor,
    text_ids: torch.Tensor | None,
    threshold: float | None,
) -> torch.Tensor:
    """(K, G) True for the negatives to leave out; the positive always stays."""
    drop = torch.zeros(len(texts), len(all_texts), dtype=torch.bool, device=texts.device)
    if text_ids is not None:
        drop |= text_ids[:, None] == gather_rows(text_ids)[0][None, :]
    if threshold is not None:
        drop |= at_least_fp32(texts) @ at_least_fp32(all_texts).T > threshold
    drop[torch.arange(len(texts), device=texts.device), target] = False
    return drop


def contrast_plain(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
) -> torch.Tensor:
    """The definition: every pair of every rank in one process, one softmax at a time."""
    total = (rows.sum() + texts.sum()) * 0.0 + scale * 0.0
    for k in range(len(rows)):
        kept = [
            g
            for g in range(len(rows))
            if g == k
            or not (
                (text_ids is not None and text_ids[g] == text_ids[k])
                or (threshold is not None and float(texts[g].detach() @ texts[k].detach()) > threshold)
            )
        ]
        to_text = torch.stack([scale * (rows[k] @ texts[g]) for g in kept])
        to_row = torch.stack([scale * (rows[g] @ texts[k]) for g in kept])
        total = total - to_text.log_softmax(0)[kept.index(k)] - to_row.log_softmax(0)[kept.index(k)]
    return total / (2 * max(len(rows), 1))
