"""ATSS: which anchors answer for which box. Each box takes a threshold from its own candidates.

Letters: K anchors of one image, R its boxes, S candidates of a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Assignment:
    """The positive anchors of one image.

    Attributes:
        anchor: (P,) rows of the anchors that answer for a box, rising.
        box: (P,) which of the image's boxes.
        forced: (P,) bool, True where a box without any such anchor was given one (`nearest_when_none`).
        lone: boxes that have no anchor in the end.
    """

    anchor: torch.Tensor
    box: torch.Tensor
    forced: torch.Tensor
    lone: int


@torch.no_grad()
def assign(
    anchors: torch.Tensor,
    level_sizes: Sequence[int],
    boxes_xyxy: torch.Tensor,
    top: int = 9,
    nearest_when_none: bool = False,
) -> Assignment:
    """ATSS (Zhang et al. 2020, algorithm 1).

    A box's candidates are the `top` anchors of each level whose centres are nearest to its own. Those with an IoU of at
    least mean plus deviation of the candidates' IoUs, and with their centre inside the box, are positive. An anchor
    that several boxes want goes to the one with the highest IoU.

    Args:
        anchors: (K, 4) xyxy, pixels.
        level_sizes: anchors of each level; their sum is K.
        boxes_xyxy: (R, 4) pixels, R may be 0.
        top: candidates of each level.
        nearest_when_none: a box that is left without an anchor takes, of its candidates that are free, the one with the
            highest IoU, wherever its centre lies (not in the paper: small objects would otherwise teach nothing).
    """
    none = torch.zeros(0, dtype=torch.int64, device=anchors.device)
    if len(boxes_xyxy) == 0:
        return Assignment(none, none, none.bool(), 0)
    anchors, boxes_xyxy = anchors.double(), boxes_xyxy.to(anchors.device).double()
    candidates = _nearest(anchors, level_sizes, boxes_xyxy, top)
    overlaps = row_iou(anchors[candidates], boxes_xyxy)
    threshold = overlaps.mean(dim=1) + (overlaps.std(dim=1) if candidates.shape[1] > 1 else 0.0)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    inside = (centres[candidates] > boxes_xyxy[:, None, :2]) & (centres[candidates] < boxes_xyxy[:, None, 2:])
    positive = (overlaps >= threshold[:, None]) & inside.all(dim=2)

    best = anchors.new_full((len(anchors),), -1.0)
    best.scatter_reduce_(0, candidates[positive], overlaps[positive], "amax")
    owner = torch.full((len(anchors),), len(boxes_xyxy), dtype=torch.int64, device=anchors.device)
    rows = torch.arange(len(boxes_xyxy), device=anchors.device)[:, None].expand_as(candidates)
    winner = positive & (overlaps == best[candidates])
    owner.scatter_reduce_(0, candidates[winner], rows[winner], "amin")
    forced = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
    alone = _without_anchor(owner, len(boxes_xyxy))
    if nearest_when_none and len(alone):
        _force(alone, candidates, overlaps, owner, forced, len(boxes_xyxy))
        alone = _without_anchor(owner, len(boxes_xyxy))
    taken = (owner < len(boxes_xyxy)).nonzero()[:, 0]
    return Assignment(taken, owner[taken], forced[taken], len(alone))


def _nearest(anchors: torch.Tensor, level_sizes: Sequence[int], boxes_xyxy: torch.Tensor, top: int) -> torch.Tensor:
    """(R, S) rows of the anchors with the nearest centres, `top` of each level or all where it has fewer."""
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    targets = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    found, start = [], 0
    for size in level_sizes:
        # Squares and not cdist: its matrix trick loses the digits that decide between near ones.
        level = centres[start : start + size]
        distance = (targets[:, None, 0] - level[None, :, 0]).square_() + (
            targets[:, None, 1] - level[None, :, 1]
        ).square_()
        found.append(distance.topk(min(top, size), dim=1, largest=False).indices + start)
        start += size
    return torch.cat(found, dim=1)


def row_iou(candidates: torch.Tensor, boxes_xyxy: torch.Tensor) -> torch.Tensor:
    """Intersection over union of (R, S, 4) with the one box of its row, (R, 4): (R, S), any unit."""
    boxes = boxes_xyxy[:, None]
    sides = torch.minimum(candidates[..., 2:], boxes[..., 2:]) - torch.maximum(candidates[..., :2], boxes[..., :2])
    intersection = sides.clamp(min=0).prod(dim=2)
    areas = (candidates[..., 2:] - candidates[..., :2]).prod(dim=2) + (boxes[..., 2:] - boxes[..., :2]).prod(dim=2)
    return intersection / (areas - intersection)


def _without_anchor(owner: torch.Tensor, boxes: int) -> torch.Tensor:
    return (torch.bincount(owner, minlength=boxes)[:boxes] == 0).nonzero()[:, 0]


def _force(
    alone: torch.Tensor,
    candidates: torch.Tensor,
    overlaps: torch.Tensor,
    owner: torch.Tensor,
    forced: torch.Tensor,
    free: int,
) -> None:
    """Give each box of `alone` its best free candidate, in place; `free` marks an anchor that no box owns."""
    for row in alone.tolist():
        possible = overlaps[row].masked_fill(owner[candidates[row]] != free, -1.0)
        if float(possible.max()) >= 0:
            chosen = candidates[row, possible.argmax()]
            owner[chosen], forced[chosen] = row, True
