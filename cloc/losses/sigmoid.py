"""The sigmoid form of the contrast (SigLIP, arXiv 2303.15343): every pair of the global batch is a question of its own.

A pair of row k and text g has the logit `scale * cosine + bias`; the loss is the sum over pairs of
`softplus(-logit)` where they belong together and `softplus(logit)` elsewhere, divided by the number of rows G.
The similar-text filter takes the same pairs out as in the softmax form.

Letters: K rows of this rank, G rows of all ranks, E shared embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cloc.comm import at_least_fp32, gather_rows, sum_over_ranks
from cloc.losses.chunked import Tally, compute_tile_logits, finish
from cloc.losses.contrastive import Contrast, find_similar_texts
from cloc.losses.tiles import Tiles, accumulate, make_tiles, ready


def sigmoid_contrast(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
) -> Contrast:
    """The full matrix of this rank's rows; arguments and result as in `contrast`, `bias` a scalar added to logits."""
    count = int(sum_over_ranks([len(rows)], rows.device)[0])
    if count == 0:
        return _nothing(rows, texts, scale, bias)
    all_texts, start = gather_rows(texts)
    target = torch.arange(len(rows), device=rows.device) + start
    drop = find_similar_texts(texts, all_texts, target, text_ids, threshold)
    rows, all_texts = at_least_fp32(rows), at_least_fp32(all_texts)
    logits = (scale * rows @ all_texts.T + bias).masked_fill(drop, float("-inf"))
    positives = logits.gather(1, target[:, None]).squeeze(1)
    loss = F.softplus(logits).sum() - positives.sum()  # softplus(-x) = softplus(x) - x
    right = (logits.detach().argmax(dim=1) == target).sum() if len(rows) else target.sum()
    return Contrast(loss / count, count, right / count, drop.sum() / max(count * (count - 1), 1))


def sigmoid_contrast_plain(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
) -> torch.Tensor:
    """The definition: every pair of every rank in one process, one after the other."""
    total = (rows.sum() + texts.sum()) * 0.0 + scale * 0.0 + bias * 0.0
    for k in range(len(rows)):
        for g in range(len(rows)):
            same = text_ids is not None and text_ids[g] == text_ids[k]
            close = threshold is not None and float(texts[g].detach() @ texts[k].detach()) > threshold
            if g != k and (same or close):
                continue
            logit = scale * (rows[k] @ texts[g]) + bias
            total = total - F.logsigmoid(logit if g == k else -logit)
    return total / max(len(rows), 1)


def sigmoid_contrast_chunked(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
    chunk: int | None = None,
) -> Contrast:
    """As `sigmoid_contrast`, with `chunk` rows of the matrix in memory at a time (None: by the device)."""
    count = int(sum_over_ranks([len(rows)], rows.device)[0])
    if count == 0:
        return _nothing(rows, texts, scale, bias)
    rows, texts = ready(rows, texts)
    all_texts, tiles = make_tiles(texts, text_ids, threshold, chunk)
    loss, right, dropped = _Streamed.apply(rows, all_texts, scale, bias, tiles)
    return Contrast(loss / count, count, right / count, dropped / max(count * (count - 1), 1))


def _nothing(rows: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> Contrast:
    nothing = (rows.sum() + texts.sum()) * 0.0 + scale * 0.0 + bias * 0.0
    return Contrast(nothing, 0, nothing.detach(), nothing.detach())


class _Streamed(torch.autograd.Function):
    """Rows (K, E), texts (G, E), scale and bias to this rank's share times G, and the two counts of `Tally`."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        all_texts: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        tiles: Tiles,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        by_row = torch.zeros(len(rows), dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)
        tally = Tally(tiles, by_row)
        for tile in tiles:
            logits = compute_tile_logits(tile, rows, all_texts, scale, bias)
            tally.add(tile, logits)
            by_row[tile.rows] += F.softplus(logits).sum(1)
            if tile.diagonal:
                by_row[tile.rows] -= logits.diagonal()
        ctx.save_for_backward(rows, all_texts, scale, bias)
        ctx.tiles = tiles
        right = tally.right()
        ctx.mark_non_differentiable(right, tally.dropped)
        return by_row.sum(), right, tally.dropped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, all_texts, scale, bias = ctx.saved_tensors
        grad_rows = torch.zeros_like(rows, dtype=grad.dtype)
        grad_texts = torch.zeros_like(all_texts, dtype=grad.dtype)
        grad_bias = torch.zeros_like(grad)
        for tile in ctx.tiles:
            weights = compute_tile_logits(tile, rows, all_texts, scale, bias).sigmoid_()
            if tile.diagonal:
                weights.diagonal().sub_(1.0)
            grad_bias += weights.sum()
            accumulate(grad_rows[tile.rows], weights, all_texts[tile.columns])
            accumulate(grad_texts[tile.columns], weights.T, rows[tile.rows])
        of_rows, of_texts, of_scale, nothing = finish(grad, grad_rows, grad_texts, rows, all_texts, scale)
        return of_rows, of_texts, of_scale, (grad_bias * grad).to(bias.dtype).reshape(bias.shape), nothing
