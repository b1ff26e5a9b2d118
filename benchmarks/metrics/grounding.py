"""Figures of boxes: share above an IoU, and what the best constant box would reach.

IoU is of continuous xyxy boxes; only `answer_iou` knows the refer toolkit's extra pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloc.boxes import as_boxes, iou

MAX_CONSTANTS = 512
_BLOCK = 64


def score_hits(ious: object, threshold: float) -> NDArray[np.float64]:
    """(K,) 1.0 where the IoU reaches the threshold (equal counts as right), else 0.0."""
    return (np.asarray(ious) >= threshold).astype(np.float64)


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


@dataclass(frozen=True)
class ConstantBox:
    """What answers that do not look at the image reach.

    Attributes:
        best: the best figure of any one constant box tried, chosen on the evaluation set itself: an upper bound.
        drawn: the mean figure of a box drawn at random from the set's boxes on other images; None with one image.
    """

    best: float
    drawn: float | None

    @property
    def why_none(self) -> str | None:
        """For a row without chance."""
        return "no chance: there is no other image to draw a box from" if self.drawn is None else None


def choose_constants(count: int) -> NDArray[np.int64]:
    """Rows of the K referents that are tried as constant answers: all, or `MAX_CONSTANTS` evenly spaced ones."""
    return np.unique(np.linspace(0, count - 1, min(MAX_CONSTANTS, count)).round().astype(np.int64))


def score_constants(
    boxes_xyxy: object, extents_xyxy: object | None, more_xyxy: Sequence[Sequence[Any]] | None = None
) -> NDArray[np.float64]:
    """IoU of constant boxes with every referent.

    The constants are the referents of `choose_constants` and, as the last row, the mean of all referents.

    Args:
        boxes_xyxy: (K, 4) referents in [0, 1] of the canvas, or any frame that all images share.
        extents_xyxy: (K, 4) where each image lies on its canvas; an answer is cut at the image's border first. None
            where it is not known: nothing is cut.
        more_xyxy: K lists of boxes where any one of several is right, and the best one counts; the constants stay
            those of `boxes_xyxy`.

    Returns:
        (T + 1, K).
    """
    boxes = as_boxes(boxes_xyxy)
    if len(boxes) == 0:
        raise ValueError("constant boxes: expected at least one referent, got none")
    constants = np.concatenate([boxes[choose_constants(len(boxes))], boxes.mean(axis=0, keepdims=True)])
    everywhere = np.tile([-np.inf, -np.inf, np.inf, np.inf], (len(boxes), 1))
    extents = everywhere if extents_xyxy is None else as_boxes(extents_xyxy)
    if more_xyxy is not None:
        counts = np.array([len(own) for own in more_xyxy])
        every = as_boxes([box for own in more_xyxy for box in own])
        best = _ious(constants, every, np.repeat(extents, counts, axis=0))
        return np.maximum.reduceat(best, np.cumsum(counts) - counts, axis=1)
    return _ious(constants, boxes, extents)


def _ious(
    constants: NDArray[np.float64], boxes: NDArray[np.float64], extents: NDArray[np.float64]
) -> NDArray[np.float64]:
    result = np.empty((len(constants), len(boxes)))
    kinds, which = np.unique(extents, axis=0, return_inverse=True)
    for kind, extent in enumerate(kinds):
        columns = np.flatnonzero(which.ravel() == kind)
        low, high = np.tile(extent[:2], 2), np.tile(extent[2:], 2)
        cut = np.clip(constants, low, high)
        for start in range(0, len(constants), _BLOCK):
            result[start : start + _BLOCK, columns] = iou(cut[start : start + _BLOCK], boxes[columns])
    return result


def summarize_constants(values: object, image_ids: object) -> ConstantBox:
    """Sum up what constant boxes reach.

    Args:
        values: (T + 1, K) figures made of `score_constants`.
        image_ids: (K,) image of each referent: a drawn box must not come from the image it answers for.
    """
    figures, images = np.asarray(values, dtype=np.float64), np.asarray(image_ids)
    elsewhere = images[choose_constants(len(images))][:, None] != images[None]
    drawn = (figures[:-1] * elsewhere).sum() / elsewhere.sum() if elsewhere.any() else None
    return ConstantBox(best=float(figures.mean(axis=1).max()), drawn=None if drawn is None else float(drawn))
