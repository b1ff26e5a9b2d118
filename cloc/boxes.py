"""Arithmetic on boxes. Every function says the format in its argument's name.

Letters: K boxes, P predicted boxes, Q reference boxes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def as_boxes(boxes: object) -> FloatArray:
    """Turn nested sequences or an array into a (K, 4) float64 array; an empty input gives (0, 4).

    Raises:
        ValueError: the input is not a list of four numbers a box.
    """
    array = np.asarray(boxes, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise ValueError(f"boxes: expected shape (K, 4), got {array.shape}; pass one list of four numbers for each box")
    return array


def xywh_to_xyxy(boxes_xywh: object) -> FloatArray:
    """COCO's (x, y, width, height) to (x0, y0, x1, y1), in the same unit."""
    boxes = as_boxes(boxes_xywh)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def xyxy_to_xywh(boxes_xyxy: object) -> FloatArray:
    """(x0, y0, x1, y1) to COCO's (x, y, width, height), in the same unit."""
    boxes = as_boxes(boxes_xyxy)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def area(boxes_xyxy: object) -> FloatArray:
    """(K,) areas; a box with a negative side has area 0."""
    boxes = as_boxes(boxes_xyxy)
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None), axis=1)


def iou(boxes_xyxy: object, others_xyxy: object) -> FloatArray:
    """Intersection over union of every pair.

    Args:
        boxes_xyxy: (P, 4), any unit.
        others_xyxy: (Q, 4), the same unit.

    Returns:
        (P, Q) in [0, 1]; a pair of two empty boxes gives 0.
    """
    a, b = as_boxes(boxes_xyxy), as_boxes(others_xyxy)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(high - low, 0.0, None), axis=2)
    union = area(a)[:, None] + area(b)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def paired_iou(boxes_xyxy: object, others_xyxy: object) -> FloatArray:
    """(K,) intersection over union of row k with row k."""
    a, b = as_boxes(boxes_xyxy), as_boxes(others_xyxy)
    if a.shape != b.shape:
        raise ValueError(f"paired_iou: expected two arrays of one shape, got {a.shape} and {b.shape}")
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    intersection = np.prod(np.clip(high - low, 0.0, None), axis=1)
    union = area(a) + area(b) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def lie_on_image(boxes_xyxy: object, width: float, height: float) -> NDArray[np.bool_]:
    """(K,) whether boxes (pixels) have an area and leave a width x height image by at most a pixel; NaN never does."""
    boxes, limits = as_boxes(boxes_xyxy), np.array([width, height, width, height], dtype=np.float64) + 1
    inside, has_area = (boxes >= -1) & (boxes <= limits), boxes[:, 2:] > boxes[:, :2]
    return np.asarray(inside.all(axis=1) & has_area.all(axis=1))


def cut_at_border(
    box_xyxy: tuple[float, float, float, float], width: float, height: float
) -> tuple[float, float, float, float] | None:
    """One box (pixels) cut at the border of a width x height image; None where nothing of it lies inside."""
    x0, y0, x1, y1 = box_xyxy
    cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    return None if cut[2] <= cut[0] or cut[3] <= cut[1] else cut


def clip_to_image(boxes_xyxy: object, width: float, height: float) -> FloatArray:
    """Cut boxes (pixels) at the border of a width x height image; a box outside becomes empty."""
    return np.clip(as_boxes(boxes_xyxy), 0.0, np.array([width, height, width, height], dtype=np.float64))
