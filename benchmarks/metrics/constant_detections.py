"""What a detector reaches that never looks: the same boxes with the same names on every image.

IoU does not change when both boxes are stretched alike, so shares of the image's sides stand for boxes on images of any
shape. Letters: I images, C categories, G annotated boxes.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.grounding import iou

TRIED = 32
"""Boxes of a category that are tried as its constant answer, evenly spaced over the file; and their mean."""
ANSWERS = 200_000
"""Answers on the whole set at most, so that they are judged in seconds: the surest categories are named."""
NAMES = 100
"""Categories named on an image at most: COCO counts as many answers."""
NO_CHANCE = "AP and recall have no chance: answers drawn at random have no order, and more of them reach more"


def shares_xyxy(truth: DetectionTruth) -> NDArray[np.float64]:
    """(G, 4) annotated boxes as shares of their image's sides."""
    sizes = np.tile(truth.sizes[truth.images], 2).astype(np.float64)
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    return corners / sizes


def constant_detections(truth: DetectionTruth) -> Detections:
    """One box for each category, the same on every image, by the share of images on which it is right (IoU 0.5).

    The boxes are sought among those of the set itself, which flatters them.
    """
    boxes, wanted = shares_xyxy(truth), ~(truth.ignored | truth.crowd)
    count, best = len(truth.image_ids), list[tuple[float, int, NDArray[np.float64]]]()
    order = np.flatnonzero(wanted)[np.argsort(truth.categories[wanted], kind="stable")]
    ends = np.searchsorted(truth.categories[order], np.arange(len(truth.category_ids) + 1))
    for category, (start, end) in enumerate(pairwise(ends.tolist())):
        rows = order[start:end]
        if not len(rows):
            continue
        tried = boxes[rows[np.unique(np.linspace(0, len(rows) - 1, min(TRIED, len(rows))).round().astype(int))]]
        tried = np.concatenate([tried, boxes[rows].mean(axis=0, keepdims=True)])
        hit = iou(tried, boxes[rows]) >= 0.5
        images = np.array([len(np.unique(truth.images[rows[own]])) for own in hit])
        best.append((float(images.max()) / count, category, tried[images.argmax()]))
    best.sort(key=lambda one: -one[0])
    best = best[: max(1, min(NAMES, ANSWERS // count))]
    places = np.repeat(np.arange(count), len(best))
    corners = np.tile(np.array([box for _, _, box in best]).reshape(-1, 4), (count, 1)) * np.tile(
        truth.sizes[places], 2
    )
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    scores = np.tile(np.array([share for share, _, _ in best]), count)
    return Detections(places, np.tile(np.array([c for _, c, _ in best], dtype=np.int64), count), xywh, scores)
