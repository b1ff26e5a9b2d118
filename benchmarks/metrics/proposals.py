"""What is found whatever its name (class-agnostic recall), and what detections that never look at the image reach.

IoU does not change when both boxes are stretched alike, so shares of the image's sides stand for boxes on images of any
size.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.grounding import iou
from benchmarks.metrics.lvis_ap import AP300, PER_IMAGE, score_lvis
from benchmarks.metrics.lvis_match import AREAS, THRESHOLDS

TRIED = 32
"""Boxes of a category that are tried as its constant answer, evenly spaced over the file; and their mean."""
ANSWERS = 200_000
"""Answers on the whole set at most, so that they are judged in seconds: the surest categories are named."""
NAMES = 100
"""Categories named on an image at most: COCO counts as many answers."""
NO_CHANCE = "AP and recall have no chance: answers drawn at random have no order, and more of them reach more"


def scale_to_shares(truth: DetectionTruth) -> NDArray[np.float64]:
    """(G, 4) annotated boxes as shares of their image's sides."""
    sizes = np.tile(truth.sizes[truth.images], 2).astype(np.float64)
    corners = np.concatenate([truth.boxes_xywh[:, :2], truth.boxes_xywh[:, :2] + truth.boxes_xywh[:, 2:]], axis=1)
    return corners / sizes


def make_constant_detections(truth: DetectionTruth) -> Detections:
    """One box for each category, the same on every image, by the share of images on which it is right (IoU 0.5).

    The boxes are sought among those of the set itself, which flatters them.
    """
    boxes, wanted = scale_to_shares(truth), ~(truth.ignored | truth.crowd)
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


PROTOCOL = f"class-agnostic/{PER_IMAGE}-boxes-an-image"
METRICS = ("AR", "ARs", "ARm", "ARl")
_BLOCK = 64


def score_agnostic_recall(truth: DetectionTruth, detections: Detections) -> dict[str, float | None]:
    """Mean recall at IoU 0.5 to 0.95, over all annotated boxes and by their size.

    A box that was given several names counts once, with its best score, so that names do not use up the 300 places.
    Crowds and ignored annotations are neither to be found nor to be missed.

    Returns:
        `METRICS`; None where no annotation is of that size.
    """
    blank = np.zeros_like
    order = np.argsort(-detections.scores, kind="stable")
    places = np.column_stack([detections.images[order], detections.boxes_xywh[order]])
    _, first = np.unique(places, axis=0, return_index=True)
    once = detections.take(order[np.sort(first)])
    one_name = replace(once, categories=blank(once.categories))
    things = replace(
        truth,
        category_ids=np.array([1]),
        frequencies=np.array(["f"]),
        categories=blank(truth.categories),
        ignored=truth.ignored | truth.crowd,
        negative_pairs=np.arange(len(truth.image_ids)),
        open_pairs=np.zeros(0, dtype=np.int64),
    )
    figures = score_lvis(things, one_name, AP300)
    return {name: figures[name] for name in METRICS}


def score_constant_recall(truth: DetectionTruth) -> dict[str, float | None]:
    """What the same 300 boxes reach on every image: boxes of the set, evenly spaced over the file, those of the image
    itself left out. A box of the set is found where any of them overlaps it enough, so an upper bound.

    Returns:
        `METRICS`, as `score_agnostic_recall`.
    """
    rows = np.flatnonzero(~(truth.ignored | truth.crowd))
    if not len(rows):
        return dict.fromkeys(METRICS)
    boxes, images, areas = scale_to_shares(truth)[rows], truth.images[rows], truth.areas[rows]
    tried = np.unique(np.linspace(0, len(rows) - 1, min(PER_IMAGE, len(rows))).round().astype(int))
    best = np.zeros(len(rows))
    for start in range(0, len(tried), _BLOCK):
        some = tried[start : start + _BLOCK]
        overlap = iou(boxes[some], boxes) * (images[some][:, None] != images[None])
        best = np.maximum(best, overlap.max(axis=0))
    reached = (best[:, None] >= THRESHOLDS[None]).mean(axis=1)
    sizes = [(areas >= low) & (areas <= high) for low, high in AREAS]
    return {name: float(reached[of].mean()) if of.any() else None for name, of in zip(METRICS, sizes, strict=True)}
