"""Anchors and box deltas as ATSS has them: one square anchor a location.

Letters: B images, K anchors, s stride of a level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

DELTA_STD = (0.1, 0.1, 0.2, 0.2)
"""The head predicts deltas in units of these."""
MAX_LOG_RATIO = math.log(1000 / 16)
"""A box is at most 62.5 times larger or smaller than its anchor, so that no exponential overflows."""


def make_anchors(
    sizes: Sequence[tuple[int, int]],
    strides: Sequence[int],
    scale: float,
    canvas: tuple[int, int],
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Anchors of all levels, row by row, from the finest level to the coarsest.

    Args:
        sizes: (rows, columns) of each level's map.
        strides: pixels between the locations of each level.
        scale: an anchor's side in strides of its level.
        canvas: width and height in pixels.
        device: where they are made.

    Returns:
        (K, 4) float32 xyxy in [0, 1] of the canvas; those at the border reach beyond it.
    """
    levels = []
    for (rows, columns), stride in zip(sizes, strides, strict=True):
        y = (torch.arange(rows, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(columns, device=device, dtype=torch.float32) + 0.5) * stride
        y, x = torch.meshgrid(y, x, indexing="ij")
        centres, half = torch.stack([x.flatten(), y.flatten()], dim=1), scale * stride / 2
        levels.append(torch.cat([centres - half, centres + half], dim=1))
    return torch.cat(levels) / torch.tensor([*canvas, *canvas], device=device, dtype=torch.float32)


def decode(deltas: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Boxes from what the head predicts.

    Args:
        deltas: (B, K, 4) shift of the centre in anchor sides and logarithm of the size over the anchor's, in units of
            `DELTA_STD`.
        anchors: (K, 4) xyxy, any unit.

    Returns:
        (B, K, 4) xyxy in the anchors' unit, not cut at any border; width and height are positive.
    """
    shift, log_size = (deltas * deltas.new_tensor(DELTA_STD)).split(2, dim=-1)
    sides = (anchors[:, 2:] - anchors[:, :2]).to(deltas.dtype)
    centres = ((anchors[:, 2:] + anchors[:, :2]) / 2).to(deltas.dtype) + shift * sides
    half = sides * log_size.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def encode(boxes_xyxy: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The deltas for which `decode` gives these boxes: (..., K, 4) xyxy with positive sides to (..., K, 4)."""
    sides = anchors[:, 2:] - anchors[:, :2]
    shift = ((boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) - (anchors[:, :2] + anchors[:, 2:])) / 2 / sides
    log_size = ((boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]) / sides).log()
    return torch.cat([shift, log_size], dim=-1) / boxes_xyxy.new_tensor(DELTA_STD)
