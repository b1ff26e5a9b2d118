"""The class-agnostic score of a place, which proposals can be ranked by (DetCLIPv2 Table 2a: foreground, IoU).

The paper names both scores and says no more; these are the forms usual for a dense head. Letters: K places of this
rank's images in all, P positive places.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from cloc.comm import at_least_fp32
from cloc.losses.assignment import row_iou

LearntScore = Literal["foreground", "iou"]


def objectness_loss(
    kind: LearntScore,
    logits: torch.Tensor,
    place: torch.Tensor,
    predicted_xyxy: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    positives: float,
    alpha: float = 0.25,
    gamma: float = 2.0,
    crowded: torch.Tensor | None = None,
) -> torch.Tensor:
    """This rank's share.

    Args:
        kind: `foreground`: focal loss over all places, one where a place answers for a box, nought elsewhere; `iou`:
            binary cross entropy over the positive places with the overlap of the predicted box and the place's own.
        logits: (K,); K may be 0.
        place: (P,) rows of the positive places; P may be 0.
        predicted_xyxy: (P, 4) boxes at these places, any unit; read by `iou`, which sends them no gradient.
        boxes_xyxy: (P, 4) the box that each answers for, the same unit.
        positives: of all ranks.
        alpha: of the focal loss, weight of positives.
        gamma: of the focal loss, focus on what is wrong.
        crowded: (K,) bool, places in a crowd: those that answer for no box are left out of `foreground`. What a
            federated set leaves unlabelled counts as background; left out, no place would ever be taught to be one.

    Returns:
        Scalar, local sum over the global number of positives.
    """
    logits = at_least_fp32(logits)
    if kind == "foreground":
        target = torch.zeros_like(logits).index_fill(0, place, 1.0)
        if crowded is not None and bool(crowded.any()):
            counted = (~crowded).index_fill(0, place, True)
            logits, target = logits[counted], target[counted]
        summed = sigmoid_focal_loss(logits, target, alpha, gamma, reduction="sum")
    else:
        predicted = at_least_fp32(predicted_xyxy.detach())
        target = row_iou(predicted[:, None], boxes_xyxy.to(predicted.dtype))[:, 0].to(logits.dtype)
        summed = F.binary_cross_entropy_with_logits(logits[place], target, reduction="sum")
    return summed / max(positives, 1)
