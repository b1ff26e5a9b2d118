"""Box and centre losses of the positive anchors (ATSS), GIoU weighted by centerness and centerness itself, and the loss
of the class-agnostic score.

Letters: K anchors of this rank's images in all, P positive anchors of this rank, G of all ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from cloc.comm import at_least_fp32, sum_over_ranks
from cloc.losses.assignment import row_iou

LearntScore = Literal["foreground", "iou"]


@dataclass(frozen=True, slots=True)
class Localisation:
    """This rank's shares.

    Attributes:
        giou: scalar; local weighted sum over the global sum of weights.
        centerness: scalar; local sum over the global number of positives.
        mean_iou: scalar; share of the mean IoU of the positives, for the log.
    """

    giou: torch.Tensor
    centerness: torch.Tensor
    mean_iou: torch.Tensor


def compute_centerness(anchors: torch.Tensor, boxes_xyxy: torch.Tensor) -> torch.Tensor:
    """(P,) in [0, 1]: 1 for an anchor whose centre is the box's, 0 at its border and outside.

    Args:
        anchors: (P, 4) xyxy, any unit.
        boxes_xyxy: (P, 4), the same unit.
    """
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    low, high = (centres - boxes_xyxy[:, :2]).clamp(min=0), (boxes_xyxy[:, 2:] - centres).clamp(min=0)
    return (torch.minimum(low, high) / torch.maximum(low, high).clamp(min=1e-12)).prod(dim=1).sqrt()


def localisation(
    predicted_xyxy: torch.Tensor,
    centerness: torch.Tensor,
    anchors: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    forced: torch.Tensor,
    positives: float,
) -> Localisation:
    """GIoU loss, each positive weighted by its centerness target, and binary cross entropy of the centerness.

    Args:
        predicted_xyxy: (P, 4) pixels; P may be 0.
        centerness: (P,) logits.
        anchors: (P, 4) pixels.
        boxes_xyxy: (P, 4) pixels, the box that each anchor answers for.
        forced: (P,) bool; the only anchor that its box has counts as central, wherever it lies.
        positives: G.
    """
    predicted, logits = at_least_fp32(predicted_xyxy), at_least_fp32(centerness)
    boxes = boxes_xyxy.to(predicted.dtype)
    target = torch.where(forced, 1.0, compute_centerness(anchors.to(predicted.dtype), boxes))
    weights = sum_over_ranks([float(target.sum())], target.device)[0]
    giou = generalized_box_iou_loss(predicted, boxes, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="sum")
    overlap = row_iou(predicted.detach()[:, None], boxes)
    return Localisation(
        giou=(giou * target).sum() / max(weights, 1e-12),
        centerness=entropy / max(positives, 1),
        mean_iou=overlap.sum() / max(positives, 1),
    )


def objectness_loss(
    kind: LearntScore,
    logits: torch.Tensor,
    rows: torch.Tensor,
    predicted_xyxy: torch.Tensor,
    boxes_xyxy: torch.Tensor,
    positives: float,
    alpha: float = 0.25,
    gamma: float = 2.0,
    crowded: torch.Tensor | None = None,
) -> torch.Tensor:
    """The class-agnostic score of a location, which proposals can be ranked by (DetCLIPv2 Table 2a): this rank's share.

    The paper names both scores and says no more; these are the forms usual for a dense head.

    Args:
        kind: `foreground`: focal loss over all anchors, one where an anchor answers for a box, nought elsewhere; `iou`:
            binary cross entropy over the positive anchors with the overlap of the predicted box and the anchor's own.
        logits: (K,); K may be 0.
        rows: (P,) of the positive anchors; P may be 0.
        predicted_xyxy: (P, 4) boxes at these anchors, any unit; read by `iou`, which sends them no gradient.
        boxes_xyxy: (P, 4) the box that each answers for, the same unit.
        positives: of all ranks.
        alpha: of the focal loss, weight of positives.
        gamma: of the focal loss, focus on what is wrong.
        crowded: (K,) bool, anchors in a crowd: those that answer for no box are left out of `foreground`. What a
            federated set leaves unlabelled counts as background; left out, no anchor would ever be taught to be one.

    Returns:
        Scalar, local sum over the global number of positives.
    """
    logits = at_least_fp32(logits)
    if kind == "foreground":
        target = torch.zeros_like(logits).index_fill(0, rows, 1.0)
        if crowded is not None and bool(crowded.any()):
            counted = (~crowded).index_fill(0, rows, True)
            logits, target = logits[counted], target[counted]
        summed = sigmoid_focal_loss(logits, target, alpha, gamma, reduction="sum")
    else:
        predicted = at_least_fp32(predicted_xyxy.detach())
        target = row_iou(predicted[:, None], boxes_xyxy.to(predicted.dtype))[:, 0].to(logits.dtype)
        summed = F.binary_cross_entropy_with_logits(logits[rows], target, reduction="sum")
    return summed / max(positives, 1)
