"""From scores to boxes: the best (anchor, concept) pairs of each level, non-maximum suppression within a concept, and
the best of what is left.

Letters: K anchors of one image, U concepts, N pairs that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torchvision.ops import clip_boxes_to_image, nms

from cloc.comm import at_least_fp32

MAX_ENTRIES = 2**24
"""Logits that are held at once: 64 MB in float32."""

LogitsOf = Callable[[torch.Tensor], torch.Tensor]
"""(n,) rows of anchors to their (n, U) class logits."""


@torch.no_grad()
def select_detections(
    logits_of: LogitsOf,
    num_concepts: int,
    boxes_xyxy: torch.Tensor,
    centerness: torch.Tensor,
    level_sizes: Sequence[int],
    *,
    limit: int = 300,
    threshold: float = 0.05,
    iou_threshold: float = 0.6,
    per_level: int = 1000,
    extent: tuple[float, float] = (1.0, 1.0),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The detections of one image. The score of a pair is sqrt(sigmoid(class logit) * sigmoid(centerness)), the product
    of ATSS as a geometric mean; all thresholds and rankings are on it. Boxes are cut at the image's border before any
    is suppressed, as ATSS's reference does; what lies on the padding alone is left out.

    Args:
        logits_of: class logits of some anchors; see `LogitsOf`.
        num_concepts: U, may be 0.
        boxes_xyxy: (K, 4) in [0, 1] of the canvas.
        centerness: (K,) logits.
        level_sizes: anchors of each level; their sum is K.
        limit: detections in all; 0 for no limit.
        threshold: pairs with a lower score are left out.
        iou_threshold: of two detections of one concept that overlap more, the weaker is left out.
        per_level: pairs of each level that reach the suppression.
        extent: width and height of the image as shares of the canvas, at whose top left it lies.

    Returns:
        Boxes (N, 4), scores (N,) in falling order and labels (N,) int64 among the concepts.
    """
    rows, labels, scores = [], [], []
    start = 0
    for size in level_sizes:
        level = torch.arange(start, start + int(size), device=boxes_xyxy.device)
        start += int(size)
        if num_concepts:
            found = _best_pairs(logits_of, num_concepts, level, centerness, threshold, per_level)
            for kept, part in zip((rows, labels, scores), found, strict=True):
                kept.append(part)
    if not rows:
        return (
            boxes_xyxy[:0],
            at_least_fp32(centerness[:0]),
            torch.zeros(0, dtype=torch.int64, device=boxes_xyxy.device),
        )
    row, label, score = torch.cat(rows), torch.cat(labels), torch.cat(scores)
    boxes = clip_boxes_to_image(boxes_xyxy[row], (extent[1], extent[0]))
    real = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    boxes, score, label = boxes[real], score[real], label[real]
    kept = nms_within(boxes, score, label, iou_threshold)
    kept = kept[:limit] if limit else kept
    return boxes[kept], score[kept], label[kept]


def nms_within(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Rows that survive, by falling score.

    Boxes of different groups never meet, since each group is moved to a location of its own (in float64, so that 20,000
    groups cost no precision). torchvision's `batched_nms` would loop over the groups.
    """
    if len(boxes_xyxy) == 0:
        return groups.new_zeros(0)
    apart = boxes_xyxy.double()
    apart = apart - apart.min()
    return nms(apart + (groups * (apart.max() + 1)).unsqueeze(1), scores.double(), iou_threshold)


def _best_pairs(
    logits_of: LogitsOf,
    num_concepts: int,
    level: torch.Tensor,
    centerness: torch.Tensor,
    threshold: float,
    per_level: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(row, label, score) of the best pairs of one level.

    The n best pairs lie on the n anchors whose best pair is best, so full rows are kept for those only.
    """
    centred = at_least_fp32(centerness).sigmoid()
    if len(level) > per_level:
        chunks = level.split(max(1, MAX_ENTRIES // num_concepts))
        best = torch.cat([at_least_fp32(logits_of(chunk)).amax(dim=1).sigmoid() for chunk in chunks])
        level = level[(best * centred[level]).topk(per_level).indices]
    found = []
    for chunk in level.split(max(1, MAX_ENTRIES // num_concepts)):
        squares = at_least_fp32(logits_of(chunk)).sigmoid() * centred[chunk].unsqueeze(1)
        square, index = squares.flatten().topk(min(per_level, squares.numel()))
        found.append((chunk[index // num_concepts], index % num_concepts, square.sqrt()))
    row, label, score = (torch.cat(part) for part in zip(*found, strict=True))
    best = score.topk(min(per_level, len(score))).indices
    best = best[score[best] > threshold]
    return row[best], label[best], score[best]
