"""The contrast of pairs, for every caller: softmax or sigmoid, as one matrix or in tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from cloc.comm import sum_over_ranks
from cloc.losses.chunked import contrast_chunked
from cloc.losses.contrastive import Contrast, contrast
from cloc.losses.sigmoid import sigmoid_contrast, sigmoid_contrast_chunked

WHOLE_UP_TO = 2048
"""Rows up to which the whole matrix (16 MiB) is no burden; beyond, tiles need less memory and less time."""


@dataclass(frozen=True, slots=True)
class Form:
    """How pairs are contrasted.

    Attributes:
        kind: `softmax` (CLOC Eq. 1 and 2) or `sigmoid` (SigLIP).
        chunk: rows of a tile; `auto` takes tiles where the whole matrix would be a burden, `none` never.
    """

    kind: Literal["softmax", "sigmoid"] = "softmax"
    chunk: int | Literal["auto", "none"] = "auto"


def contrast_pairs(
    form: Form,
    rows: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    text_ids: torch.Tensor | None = None,
    threshold: float | None = None,
) -> Contrast:
    """The contrast of this rank's pairs with those of all ranks; `bias` is read by the sigmoid form only.

    Raises:
        ValueError: the sigmoid form without a bias.
    """
    whole = form.chunk == "none" or (
        form.chunk == "auto" and sum_over_ranks([len(rows)], rows.device)[0] <= WHOLE_UP_TO
    )
    chunk = form.chunk if isinstance(form.chunk, int) else None
    if form.kind == "softmax":
        if whole:
            return contrast(rows, texts, scale, text_ids, threshold)
        return contrast_chunked(rows, texts, scale, text_ids, threshold, chunk)
    if bias is None:
        raise ValueError("loss.form sigmoid: the model has no bias for it; make it with logit_bias_init_value=-10")
    if whole:
        return sigmoid_contrast(rows, texts, scale, bias, text_ids, threshold)
    return sigmoid_contrast_chunked(rows, texts, scale, bias, text_ids, threshold, chunk)
