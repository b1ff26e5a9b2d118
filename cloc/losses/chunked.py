"""The symmetric softmax contrast of `contrast`, in memory linear in the number of rows.

Each rank walks the tiles of its own rows once forward, for the log-sum-exp of every row and column, and once backward,
where a tile of logits is computed again. The sums of columns are completed over ranks, so rows need not be gathered.

Letters: K rows of this rank, G rows of all ranks, E shared embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from cloc.comm import logsumexp_over_ranks, sum_over_ranks
from cloc.losses.contrastive import Contrast
from cloc.losses.tiles import Tile, Tiles, accumulate, make_tiles, product, ready


def contrast_chunked(
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
    chunk: int | None = None,
) -> Contrast:
    """As `contrast`, value and gradients, with `chunk` rows of the matrix in memory at a time (None: by the device).

    Whatever the share is multiplied with before the backward pass must be equal on all ranks.
    """
    count = int(sum_over_ranks([len(rows)], rows.device)[0])
    if count == 0:
        nothing = (rows.sum() + texts.sum()) * 0.0 + scale * 0.0
        return Contrast(nothing, 0, nothing.detach(), nothing.detach())
    rows, texts = ready(rows, texts)
    all_texts, tiles = make_tiles(texts, text_ids, threshold, chunk)
    loss, right, dropped = _Streamed.apply(rows, all_texts, scale, tiles)
    return Contrast(loss / (2 * count), count, right / count, dropped / max(count * (count - 1), 1))


def compute_tile_logits(
    tile: Tile, rows: torch.Tensor, all_texts: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The logits of one tile, at least fp32, minus infinity where a negative is left out."""
    logits = product(rows[tile.rows], all_texts[tile.columns].T).mul_(scale)
    if bias is not None:
        logits.add_(bias)
    return logits if tile.drop is None else logits.masked_fill_(tile.drop, float("-inf"))


class Tally:
    """What is logged about the tiles so far: the best column of each row, and how many negatives were left out."""

    def __init__(self, tiles: Tiles, like: torch.Tensor) -> None:
        self.best = like.new_full((tiles.num_rows,), float("-inf"))
        self.column = torch.full_like(self.best, -1, dtype=torch.int64)
        self.dropped = torch.zeros((), dtype=torch.int64, device=like.device)
        self._start = tiles.start

    def add(self, tile: Tile, logits: torch.Tensor) -> torch.Tensor:
        """Take note of a tile; returns the maximum of each of its rows. Of equal columns the first counts."""
        highest, index = logits.max(dim=1)
        better = highest > self.best[tile.rows]
        self.best[tile.rows] = torch.where(better, highest, self.best[tile.rows])
        self.column[tile.rows] = torch.where(better, index + tile.columns.start, self.column[tile.rows])
        if tile.drop is not None:
            self.dropped += tile.drop.sum()
        return highest

    def right(self) -> torch.Tensor:
        """How many of this rank's rows are closest to their own text."""
        return (self.column == torch.arange(len(self.column), device=self.column.device) + self._start).sum()


class _Streamed(torch.autograd.Function):
    """Rows (K, E), texts (G, E) and the scale to this rank's share times 2 G, and the two counts of `Tally`."""

    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, all_texts: torch.Tensor, scale: torch.Tensor, tiles: Tiles
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        exact = torch.promote_types(rows.dtype, torch.float32)
        by_row = torch.full((len(rows),), float("-inf"), dtype=exact, device=rows.device)
        by_column = torch.full((len(all_texts),), float("-inf"), dtype=exact, device=rows.device)
        positives, tally = torch.zeros_like(by_row), Tally(tiles, by_row)
        for tile in tiles:
            logits = compute_tile_logits(tile, rows, all_texts, scale)
            tally.add(tile, logits)
            if tile.diagonal:
                positives[tile.rows] = logits.diagonal()
            by_row[tile.rows] = by_row[tile.rows].logaddexp(logits.logsumexp(1))
            by_column[tile.columns] = by_column[tile.columns].logaddexp(logits.logsumexp(0))
        by_column = logsumexp_over_ranks(by_column)
        ctx.save_for_backward(rows, all_texts, scale, by_row, by_column)
        ctx.tiles = tiles
        own = by_column[tiles.start : tiles.start + tiles.num_rows]
        right = tally.right()
        ctx.mark_non_differentiable(right, tally.dropped)
        return (by_row + own - 2 * positives).sum(), right, tally.dropped

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, all_texts, scale, by_row, by_column = ctx.saved_tensors
        grad_rows = torch.zeros_like(rows, dtype=by_row.dtype)
        grad_texts = torch.zeros_like(all_texts, dtype=by_row.dtype)
        for tile in ctx.tiles:
            logits = compute_tile_logits(tile, rows, all_texts, scale)
            weights = (logits - by_row[tile.rows, None]).exp_()
            weights += logits.sub_(by_column[None, tile.columns]).exp_()
            if tile.diagonal:
                weights.diagonal().sub_(2.0)
            accumulate(grad_rows[tile.rows], weights, all_texts[tile.columns])
            accumulate(grad_texts[tile.columns], weights.T, rows[tile.rows])
        return finish(grad, grad_rows, grad_texts, rows, all_texts, scale)


def finish(
    grad: torch.Tensor,
    grad_rows: torch.Tensor,
    grad_texts: torch.Tensor,
    rows: torch.Tensor,
    all_texts: torch.Tensor,
    scale: torch.Tensor,
) -> tuple[torch.Tensor | None, ...]:
    """From sums of weights times embeddings to the gradients of rows, texts and scale; the tiles have none."""
    grad_scale = (grad_rows * rows).sum().mul(grad).to(scale.dtype)
    factor = (grad * scale).to(grad_rows.dtype)
    return (
        grad_rows.mul_(factor).to(rows.dtype),
        grad_texts.mul_(factor).to(all_texts.dtype),
        grad_scale.reshape(scale.shape),
        None,
    )
