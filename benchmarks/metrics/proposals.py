"""Recall of boxes whatever their name: is the thing found at all?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.metrics.constant_detections import shares_xyxy
from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.grounding import iou
from benchmarks.metrics.lvis_ap import AP300, PER_IMAGE, lvis_ap
from benchmarks.metrics.lvis_match import AREAS, THRESHOLDS

PROTOCOL = f"class-agnostic/{PER_IMAGE}-boxes-an-image"
METRICS = ("AR", "ARs", "ARm", "ARl")
_BLOCK = 64


def agnostic_recall(truth: DetectionTruth, detections: Detections) -> dict[str, float | None]:
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
    figures = lvis_ap(things, one_name, AP300)
    return {name: figures[name] for name in METRICS}


def constant_recall(truth: DetectionTruth) -> dict[str, float | None]:
    """What the same 300 boxes reach on every image: boxes of the set, evenly spaced over the file, those of the image
    itself left out. A box of the set is found where any of them overlaps it enough, so an upper bound.

    Returns:
        `METRICS`, as `agnostic_recall`.
    """
    rows = np.flatnonzero(~(truth.ignored | truth.crowd))
    if not len(rows):
        return dict.fromkeys(METRICS)
    boxes, images, areas = shares_xyxy(truth)[rows], truth.images[rows], truth.areas[rows]
    tried = np.unique(np.linspace(0, len(rows) - 1, min(PER_IMAGE, len(rows))).round().astype(int))
    best = np.zeros(len(rows))
    for start in range(0, len(tried), _BLOCK):
        some = tried[start : start + _BLOCK]
        overlap = iou(boxes[some], boxes) * (images[some][:, None] != images[None])
        best = np.maximum(best, overlap.max(axis=0))
    reached = (best[:, None] >= THRESHOLDS[None]).mean(axis=1)
    sizes = [(areas >= low) & (areas <= high) for low, high in AREAS]
    return {name: float(reached[of].mean()) if of.any() else None for name, of in zip(METRICS, sizes, strict=True)}
