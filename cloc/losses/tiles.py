"""The similarity matrix of a contrastive loss, one square tile at a time, so that it never exists as a whole.

A rank owns K rows of the G x G matrix. Its tiles come with the similar-text mask (CLOC 3.4), which is computed inside
each tile; where a tile and its mirror image both belong to this rank, the mask of one serves both.

Letters: K rows of this rank, G rows of all ranks, E shared embedding, c rows of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from cloc.comm import at_least_fp32, gather_rows

AUTO_ROWS = {"cpu": 1024, "cuda": 8192}
"""Rows of a tile: on a CPU its 4 MiB of logits stay in the cache, on an accelerator it fills the machine."""


def auto_chunk(device: torch.device) -> int:
    """Rows of a tile where none is given."""
    return AUTO_ROWS.get(device.type, AUTO_ROWS["cuda"])


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile.

    Attributes:
        rows: which of this rank's K rows.
        columns: which of the G columns.
        drop: (rows, columns) True for the negatives to leave out; None where nothing is filtered.
        diagonal: whether the positives lie on its diagonal; else it holds none.
    """

    rows: slice
    columns: slice
    drop: torch.Tensor | None
    diagonal: bool


@dataclass(frozen=True, slots=True)
class Tiles:
    """All tiles of this rank, in ascending order of columns for every row; may be walked again and again.

    Attributes:
        all_texts: (G, E) the text embedding of each column, unit norm; carries no gradient here.
        all_ids: (G,) equal for equal strings, or None.
        threshold: cosine above which a text is no negative, or None.
        start: the column of this rank's first row.
        num_rows: K.
        chunk: c.
    """

    all_texts: torch.Tensor
    all_ids: torch.Tensor | None
    threshold: float | None
    start: int
    num_rows: int
    chunk: int

    def __iter__(self) -> Iterator[Tile]:
        """See the class."""
        end = self.start + self.num_rows
        own = _blocks(self.start, end, self.chunk)
        yield from self._foreign(own, _blocks(0, self.start, self.chunk))
        for number, rows in enumerate(own):
            for columns in own[number:]:
                drop = self._similar(rows, columns)
                if rows == columns:
                    if drop is not None:
                        drop.fill_diagonal_(False)
                    yield Tile(self._local(rows), columns, drop, diagonal=True)
                else:
                    yield Tile(self._local(rows), columns, drop, diagonal=False)
                    yield Tile(self._local(columns), rows, None if drop is None else drop.T, diagonal=False)
        yield from self._foreign(own, _blocks(end, len(self.all_texts), self.chunk))

    def _foreign(self, own: list[slice], others: list[slice]) -> Iterator[Tile]:
        for columns in others:
            for rows in own:
                yield Tile(self._local(rows), columns, self._similar(rows, columns), diagonal=False)

    def _local(self, rows: slice) -> slice:
        return slice(rows.start - self.start, rows.stop - self.start)

    @torch.no_grad()
    def _similar(self, rows: slice, columns: slice) -> torch.Tensor | None:
        drop = None
        if self.all_ids is not None:
            drop = self.all_ids[rows, None] == self.all_ids[None, columns]
        if self.threshold is not None:
            close = product(self.all_texts[rows], self.all_texts[columns].T) > self.threshold
            drop = close if drop is None else drop.logical_or_(close)
        return drop


def make_tiles(
    texts: torch.Tensor, text_ids: torch.Tensor | None, threshold: float | None, chunk: int | None
) -> tuple[torch.Tensor, Tiles]:
    """Gather the texts of all ranks and cut the matrix into tiles; `chunk` None takes `auto_chunk`.

    Args:
        texts: (K, E) this rank's, ready for a product.
        text_ids: (K,) as in `contrast`.
        threshold: as in `contrast`.
        chunk: rows of a tile.

    Returns:
        The gathered texts (G, E), differentiable, and the tiles.
    """
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk: expected at least one row a tile, got {chunk}; leave it out for the default")
    all_texts, start = gather_rows(texts)
    all_ids = None if text_ids is None else gather_rows(text_ids)[0]
    rows = auto_chunk(texts.device) if chunk is None else chunk
    return all_texts, Tiles(all_texts.detach(), all_ids, threshold, start, len(texts), rows)


def ready(rows: torch.Tensor, texts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings as `product` wants them: of one kind; half precision stays on an accelerator, whose sums are fp32."""
    kind = torch.promote_types(rows.dtype, texts.dtype)
    rows, texts = rows.to(kind), texts.to(kind)
    return (rows, texts) if rows.is_cuda else (at_least_fp32(rows), at_least_fp32(texts))


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(a, b) times (b, c), added up and returned in fp32 for half precision, else in their own precision."""
    if left.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(left, right, out_dtype=torch.float32)
    return left @ right


def accumulate(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Add the product of fp32 weights and embeddings to `total`, in the embeddings' precision with fp32 sums."""
    if left.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total.add_(product(left.to(right.dtype), right))


def _blocks(first: int, last: int, size: int) -> list[slice]:
    return [slice(at, min(at + size, last)) for at in range(first, last, size)]
