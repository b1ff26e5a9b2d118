"""Texts of different lengths without padding: several in one row of the tower, none of which sees another.

A causal tower reads a text up to its end token; what stands behind cannot change the answer. So whole texts are laid
end to end into rows as wide as the longest, with positions that start again at each and a mask that keeps them apart.
Captions and phrases then cost one call of the tower and their real tokens.

Letters: S texts in all, R rows, W width of a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import CLIPTextModel, PreTrainedModel

from cloc.models.configuration import LEGACY_END

Texts = tuple[torch.Tensor, torch.Tensor]
"""(K, T) token ids, and 1 where a token is real; padded on the right."""


class PackedTexts(NamedTuple):
    """Rows of texts.

    Attributes:
        input_ids: (R, W); positions that no text takes hold the end token.
        position_ids: (R, W), from 0 in each text.
        visible: (R, 1, W, W) bool, True where a token (third) may look at another one (fourth).
        ends: (S,) where the end token of each text lies among the R W positions.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    visible: torch.Tensor
    ends: torch.Tensor


def can_pack(tower: PreTrainedModel) -> bool:
    """Whether a text tower is causal, pools at its first end token, and attends in a way that takes any mask."""
    # Towers with this id pool at their largest token instead.
    whole = isinstance(tower, CLIPTextModel) and tower.config.eos_token_id != LEGACY_END
    return whole and tower.config._attn_implementation in ("sdpa", "eager")


def pack(groups: Sequence[Texts], eos: int) -> PackedTexts:
    """Lay the texts of all groups, in their order, into as few rows as a quick search finds.

    Args:
        groups: at least one text in all.
        eos: the end token; what follows the first one in a text is left out.

    Raises:
        ValueError: a text is padded on the left.
    """
    lengths, ragged = [], []
    for ids, attention in groups:
        if not len(ids):
            continue
        ends = (ids == eos).int().argmax(dim=1) + 1
        real = torch.arange(ids.shape[1], device=ids.device) < ends[:, None]
        lengths.append(torch.where((attention.bool() | ~real).all(dim=1), ends, -1))
        ragged.append(ids[real])
    num_tokens = torch.cat(lengths).tolist()  # the one wait for the device
    if min(num_tokens) < 0:
        raise ValueError(
            "texts: expected padding on the right, got a text that is padded before its end token; "
            "set the tokenizer's padding_side to 'right'"
        )
    return lay_rows(torch.cat(ragged), num_tokens, eos)


def assign_rows(lengths: Sequence[int]) -> tuple[list[int], int]:
    """Where each text starts among the positions of all rows, and how many rows there are.

    The longest first, each into the row with the most positions left; a row is as wide as the longest text.
    """
    width, starts = max(lengths), [0] * len(lengths)
    rows: list[tuple[int, int]] = []  # (positions taken, row), the emptiest first
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        taken, row = rows[0] if rows else (width, 0)
        if taken + lengths[text] <= width:
            heapq.heapreplace(rows, (taken + lengths[text], row))
        else:
            taken, row = 0, len(rows)
            heapq.heappush(rows, (lengths[text], row))
        starts[text] = row * width + taken
    return starts, len(rows)


def lay_rows(tokens: torch.Tensor, lengths: list[int], eos: int) -> PackedTexts:
    """Rows of the texts whose (sum of lengths,) tokens follow each other in `tokens`."""
    width, (starts, rows) = max(lengths), assign_rows(lengths)
    length, start = (torch.tensor(numbers, device=tokens.device) for numbers in (lengths, starts))
    text = torch.arange(len(lengths), device=tokens.device).repeat_interleave(length, output_size=len(tokens))
    within = torch.arange(len(tokens), device=tokens.device) - (length.cumsum(0) - length)[text]
    targets = start[text] + within
    ids = tokens.new_full((rows * width,), eos)
    positions, owners = torch.zeros_like(ids), torch.full_like(ids, -1)
    ids[targets], positions[targets], owners[targets] = tokens, within, text
    owner = owners.view(rows, width)
    causal = torch.ones(width, width, dtype=torch.bool, device=tokens.device).tril()
    visible = (owner[:, :, None] == owner[:, None, :]) & causal
    return PackedTexts(ids.view(rows, width), positions.view(rows, width), visible[:, None], start + length - 1)


def encode_packed(tower: PreTrainedModel, packed: PackedTexts) -> torch.Tensor:
    """(S, D) the tower's pooled vector of each text."""
    mask = packed.visible
    if tower.config._attn_implementation == "eager":  # which adds its mask
        dtype = next(tower.parameters()).dtype
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    hidden = tower(input_ids=packed.input_ids, position_ids=packed.position_ids, attention_mask=mask).last_hidden_state
    return hidden.flatten(0, 1)[packed.ends]
