"""Greedy matching of detections and annotated boxes, once for all protocols.

Rules of the federated set (Gupta et al. 2019, and the code of lvis 0.5.3): a category is judged on an image only where
it is annotated or was checked to be absent; where not all its instances carry a box, unmatched detections do not
count. Unlike the official code, an annotation with id 0 can be found.

A limit on detections (an image's 300 best, a category's 10,000 best) keeps, of each category on each image, the first
ones in order of score. Matching goes in that order as well and never looks ahead, so what is matched without a limit
holds for every limit.

Letters: A area ranges, T IoU thresholds, G annotated boxes, D detections, J judged ones, K judged ones that overlap an
annotated box, P pairs of such a detection and an annotated box, S detections of one round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth, FloatArray, IntArray, number_within

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
_NONE = -1.0


@dataclass(frozen=True, eq=False)
class Matched:
    """Judged detections by category and falling score, and what was matched.

    Attributes:
        rows: (J,) place of each in the detections given.
        categories: (J,).
        excused: (A, J) bool: not counted as wrong when unmatched.
        places: (K,) ascending places in `rows` of those that overlap an annotated box.
        found: (A, T, K) bool, matched to a box, and
        found_outside: (A, T, K) bool, that box lies outside the area range.
        outside: (A, G) bool, annotated boxes that are not to be found in the range.
    """

    rows: IntArray
    categories: IntArray
    excused: NDArray[np.bool_]
    places: IntArray
    found: NDArray[np.bool_]
    found_outside: NDArray[np.bool_]
    outside: NDArray[np.bool_]


def rank_scores(scores: FloatArray) -> IntArray:
    """(D,) place of each when sorted by falling score; of equal ones the first in the file."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    return ranks


def choose_best_of_each(ranks: IntArray, groups: IntArray, count: int) -> NDArray[np.bool_]:
    """(D,) whether a detection is among the `count` best ranks of its group."""
    kept = np.ones(len(groups), dtype=bool)
    if np.bincount(groups).max(initial=0) > count:
        order = _sorted_by(groups, ranks, len(ranks))
        kept[order[number_within(groups[order]) >= count]] = False
    return kept


def match_detections(truth: DetectionTruth, detections: Detections, ranks: IntArray) -> Matched:
    """Match all detections.

    Args:
        truth: the annotations.
        detections: D of them, uncut.
        ranks: (D,) of `rank_scores`.
    """
    outside = (truth.areas < AREAS[:, :1]) | (truth.areas > AREAS[:, 1:]) | truth.ignored
    pairs = detections.categories * len(truth.image_ids) + detections.images
    judged = np.flatnonzero(np.isin(pairs, np.concatenate([truth.pairs, truth.negative_pairs])))
    rows = judged[_sorted_by(pairs[judged], ranks[judged], len(ranks))]  # by category, image, falling score
    taken = detections.take(rows)
    candidates, found, found_outside = _greedy(truth, taken, pairs[rows], outside)
    # Of equal scores the lower image id comes first, as in the official concatenation.
    _, ties = np.unique(-taken.scores, return_inverse=True)
    order = _sorted_by(taken.categories * (len(rows) + 1) + ties, np.arange(len(rows)), len(rows))
    back = np.empty(len(rows), dtype=np.int64)
    back[order] = np.arange(len(rows))
    places = back[candidates]
    ascending = np.argsort(places)
    areas = (taken.boxes_xywh[:, 2] * taken.boxes_xywh[:, 3])[order]
    open_pair = np.isin(pairs[rows], truth.open_pairs)[order]
    return Matched(
        rows=rows[order],
        categories=taken.categories[order],
        excused=(areas < AREAS[:, :1]) | (areas > AREAS[:, 1:]) | open_pair,
        places=places[ascending],
        found=found[:, :, ascending],
        found_outside=found_outside[:, :, ascending],
        outside=outside,
    )


def _sorted_by(groups: IntArray, ranks: IntArray, limit: int) -> IntArray:
    """Order by group, then rank; both in one whole number, which sorts several times faster than two keys.

    Args:
        groups: (D,) not negative.
        ranks: (D,) different from each other, in [0, limit).
        limit: at least 1 where D is.
    """
    where = np.empty(limit, dtype=np.int64)
    where[ranks] = np.arange(len(ranks))
    keys = groups * limit + ranks
    keys.sort()
    return where[keys % limit] if limit else keys


def _greedy(
    truth: DetectionTruth, detections: Detections, pairs: IntArray, outside: NDArray[np.bool_]
) -> tuple[IntArray, NDArray[np.bool_], NDArray[np.bool_]]:
    """In order of score, all images and categories at once, one rank after the other.

    Returns:
        (K,) detections that overlap a box, (A, T, K) whether they were matched, and to a box outside the range.
    """
    order = np.argsort(truth.pairs, kind="stable")
    rows, boxes, ious = _overlapping(detections, pairs, truth, order)
    shape = (len(AREAS), len(THRESHOLDS))
    candidates, where = np.unique(rows, return_inverse=True)
    taken = np.zeros((*shape, len(order)), dtype=bool)
    found = np.zeros((*shape, len(candidates)), dtype=bool)
    found_outside = np.zeros_like(found)
    turns = number_within(pairs[candidates])[where]
    by_turn = np.argsort(turns, kind="stable")
    ends = np.searchsorted(turns[by_turn], np.arange(turns.max(initial=-1) + 1), side="right")
    for part in np.split(by_turn, ends[:-1]) if len(ends) else ():
        row, box, iou = where[part], boxes[part], ious[part]
        first = np.flatnonzero(np.diff(row, prepend=-1))
        free = ~taken[:, :, box] & (iou >= THRESHOLDS[:, None])
        away = outside[:, None, order[box]]
        chosen = _nearest(iou, free & ~away, first)
        chosen = np.where(chosen >= 0, chosen, _nearest(iou, free & away, first))
        a, t, s = np.nonzero(chosen >= 0)
        hit = box[chosen[a, t, s]]
        taken[a, t, hit] = True
        found[a, t, row[first[s]]] = True
        found_outside[a, t, row[first[s]]] = outside[a, order[hit]]
    return candidates, found, found_outside


def _overlapping(
    detections: Detections, pairs: IntArray, truth: DetectionTruth, order: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """(P,) detection, place of the annotated box in `order`, and IoU, where that reaches the lowest threshold."""
    sorted_pairs = truth.pairs[order]
    starts = np.searchsorted(sorted_pairs, pairs, side="left")
    counts = np.searchsorted(sorted_pairs, pairs, side="right") - starts
    rows = np.repeat(np.arange(len(detections)), counts)
    boxes = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts - starts, counts)
    near, ious = _near(detections.boxes_xywh, rows, truth.boxes_xywh[order], boxes)
    return rows[near], boxes[near], ious


def _near(
    ours_xywh: FloatArray, rows: IntArray, theirs_xywh: FloatArray, boxes: IntArray
) -> tuple[IntArray, FloatArray]:
    """Which pairs reach the lowest threshold, and their IoU; in blocks, so that memory stays flat."""
    places, ious = [np.zeros(0, dtype=np.int64)], [np.zeros(0)]
    for start in range(0, len(rows), 1 << 18):
        part = slice(start, start + (1 << 18))
        x, y, w, h = ours_xywh[rows[part]].T
        x2, y2, w2, h2 = theirs_xywh[boxes[part]].T
        # In the order of operations of pycocotools' C code: an IoU may lie exactly on a threshold.
        width = np.minimum(w + x, w2 + x2) - np.maximum(x, x2)
        height = np.minimum(h + y, h2 + y2) - np.maximum(y, y2)
        shared = np.maximum(width, 0.0) * np.maximum(height, 0.0)
        union = w * h + w2 * h2 - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
        kept = np.flatnonzero(iou >= THRESHOLDS[0])
        places.append(kept + start)
        ious.append(iou[kept])
    return np.concatenate(places), np.concatenate(ious)


def _nearest(ious: FloatArray, allowed: NDArray[np.bool_], first: IntArray) -> IntArray:
    """(A, T, S) the allowed pair of greatest IoU of each detection, of equal ones the last; -1 without any.

    Args:
        ious: (P,) sorted by detection.
        allowed: (A, T, P).
        first: (S,) where each detection's pairs begin.
    """
    if len(first) == len(ious):  # one box each: nothing to choose
        return np.where(allowed, np.arange(len(ious)), -1)
    values = np.where(allowed, ious, _NONE)
    best = np.repeat(np.maximum.reduceat(values, first, axis=-1), np.diff(first, append=len(ious)), axis=-1)
    places = np.where(allowed & (values == best), np.arange(len(ious)), -1)
    return np.maximum.reduceat(places, first, axis=-1)
