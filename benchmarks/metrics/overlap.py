"""IoU of answer and reference in the two pixel conventions in use.

It stands apart from `cloc.boxes` because that room's front door loads torch, and scoring a file needs none.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def answer_iou(boxes_xyxy: object, references_xyxy: object, plus_one: bool = False) -> NDArray[np.float64]:
    """(K,) intersection over union of row k with row k.

    Args:
        boxes_xyxy: (K, 4) pixels; a box whose end lies before its start has IoU 0, NaN as well.
        references_xyxy: (K, 4) pixels.
        plus_one: corners are pixels that belong to the box, so each side is one pixel longer (the convention of the
            refer toolkit's users); else continuous.

    Raises:
        ValueError: the shapes differ or are not (K, 4).
    """
    a, b = np.asarray(boxes_xyxy, dtype=np.float64), np.asarray(references_xyxy, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 4:
        raise ValueError(f"answer_iou: expected two arrays of one shape (K, 4), got {a.shape} and {b.shape}")
    extra = 1.0 if plus_one else 0.0
    valid = (a[:, 2:] >= a[:, :2]).all(axis=1)
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]) + extra, 0.0, None)
    shared = sides.prod(axis=1)
    union = (a[:, 2:] - a[:, :2] + extra).prod(axis=1) + (b[:, 2:] - b[:, :2] + extra).prod(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=valid & (union > 0))
