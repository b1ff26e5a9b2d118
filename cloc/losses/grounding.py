"""Box prediction from a phrase prompt (CLOC Eq. 3): squared error on the four coordinates.

Letters: K boxes of this rank, G boxes of all ranks.
"""

from __future__ import annotations

import torch

from cloc.comm import at_least_fp32, sum_over_ranks


def grounding(predicted: torch.Tensor, boxes: torch.Tensor) -> tuple[torch.Tensor, int]:
    """This rank's share of the mean squared error.

    Args:
        predicted: (K, 4) xyxy in [0, 1] of the canvas; K may be 0.
        boxes: (K, 4) the annotated boxes.

    Returns:
        The local sum divided by 4 G, and G.
    """
    if predicted.shape != boxes.shape:
        raise ValueError(f"grounding: expected predictions of shape {tuple(boxes.shape)}, got {tuple(predicted.shape)}")
    count = int(sum_over_ranks([len(boxes)], boxes.device)[0])
    return (at_least_fp32(predicted) - at_least_fp32(boxes)).square().sum() / (4 * max(count, 1)), count
