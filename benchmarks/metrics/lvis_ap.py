"""LVIS box AP on arrays, equal to the official evaluator figure by figure.

Rules of the federated set (Gupta et al. 2019, and the code of lvis 0.5.3): a category is judged on an image only where
it is annotated or was checked to be absent; where not all its instances carry a box, unmatched detections do not
count. Unlike the official code, an annotation with id 0 can be found.

Letters: A area ranges, T IoU thresholds, R recall levels, C categories, G annotated boxes, D detections, P pairs of a
detection and an annotated box of the same image and category, S detections of one round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth, FloatArray, IntArray, best_of_each, places_within

PER_IMAGE = 300
FIXED_K = 10_000
AP300, UNLIMITED, FIXED = "lvis-ap300", "lvis-ap-unlimited", "lvis-fixed-ap"
PROTOCOLS = (AP300, UNLIMITED, FIXED)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e5**2], [0, 32**2], [32**2, 96**2], [96**2, 1e5**2]])
_SUFFIXES = ("", "s", "m", "l")
_NONE = -1.0


@dataclass(frozen=True, eq=False)
class _Judged:
    """Detections sorted by category, then by falling score, and what each one counts as.

    Attributes:
        categories: (D,).
        right, wrong: (A, T, D) bool; neither where it does not count.
    """

    categories: IntArray
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


def lvis_ap(
    truth: DetectionTruth, detections: Detections, protocol: str, fixed_k: int = FIXED_K
) -> dict[str, float | None]:
    """All figures of one protocol.

    Args:
        truth: the annotations.
        detections: every prediction, uncut.
        protocol: `lvis-ap300` keeps the 300 best of each image, `lvis-ap-unlimited` all, `lvis-fixed-ap` the `fixed_k`
            best of each category over the whole set (Dave et al. 2021), then without a limit an image.
        fixed_k: for the last one.

    Returns:
        AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR, ARs, ARm, ARl in [0, 1]; None where no annotation is of that
        kind (the official code writes -1).

    Raises:
        ValueError: there is no such protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    if protocol == AP300:
        detections = best_of_each(detections, detections.images, PER_IMAGE)
    elif protocol == FIXED:
        detections = best_of_each(detections, detections.categories, fixed_k)
    outside = (truth.areas < AREAS[:, :1]) | (truth.areas > AREAS[:, 1:]) | truth.ignored
    judged = _judge(truth, _federated(truth, detections), outside)
    precision, recall = _curves(truth, judged, outside)
    return _summary(truth, precision, recall)


def _federated(truth: DetectionTruth, detections: Detections) -> Detections:
    """Only detections that can be judged, sorted by category, image and falling score."""
    pairs = detections.categories * len(truth.image_ids) + detections.images
    kept = np.flatnonzero(np.isin(pairs, np.concatenate([truth.pairs, truth.negative_pairs])))
    return detections.take(kept[np.lexsort((-detections.scores[kept], pairs[kept]))])


def _judge(truth: DetectionTruth, detections: Detections, outside: NDArray[np.bool_]) -> _Judged:
    """What each detection counts as, at each area range and threshold."""
    pairs = detections.categories * len(truth.image_ids) + detections.images
    found, found_outside = _match(truth, detections, pairs, outside)
    areas = detections.boxes_xywh[:, 2] * detections.boxes_xywh[:, 3]
    excused = (areas < AREAS[:, :1]) | (areas > AREAS[:, 1:]) | np.isin(pairs, truth.open_pairs)
    right, wrong = found & ~found_outside, ~found & ~excused[:, None]
    # Stable: of equal scores the lower image id comes first, as in the official concatenation.
    order = np.lexsort((-detections.scores, detections.categories))
    return _Judged(detections.categories[order], right[:, :, order], wrong[:, :, order])


def _match(
    truth: DetectionTruth, detections: Detections, pairs: IntArray, outside: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Greedy matching in order of score, all images and categories at once, one rank after the other.

    Returns:
        (A, T, D) whether the detection found a box, and whether that box lies outside the range.
    """
    order = np.argsort(truth.pairs, kind="stable")
    rows, boxes, ious = _overlapping(detections, pairs, truth, order)
    shape = (len(AREAS), len(THRESHOLDS))
    taken = np.zeros((*shape, len(order)), dtype=bool)
    found = np.zeros((*shape, len(detections)), dtype=bool)
    found_outside = np.zeros_like(found)
    candidates, where = np.unique(rows, return_inverse=True)
    ranks = places_within(pairs[candidates])[where]
    by_rank = np.argsort(ranks, kind="stable")
    ends = np.searchsorted(ranks[by_rank], np.arange(ranks.max(initial=-1) + 1), side="right")
    for part in np.split(by_rank, ends[:-1]) if len(ends) else ():
        row, box, iou = rows[part], boxes[part], ious[part]
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
    return found, found_outside


def _overlapping(
    detections: Detections, pairs: IntArray, truth: DetectionTruth, order: IntArray
) -> tuple[IntArray, IntArray, FloatArray]:
    """(P,) detection, place of the annotated box in `order`, and IoU, where that reaches the lowest threshold."""
    sorted_pairs = truth.pairs[order]
    starts = np.searchsorted(sorted_pairs, pairs, side="left")
    counts = np.searchsorted(sorted_pairs, pairs, side="right") - starts
    rows = np.repeat(np.arange(len(detections)), counts)
    boxes = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
    ours, theirs = detections.boxes_xywh[rows], truth.boxes_xywh[order[boxes]]
    # In the order of operations of pycocotools' C code: an IoU may lie exactly on a threshold.
    ends = np.minimum(ours[:, 2:] + ours[:, :2], theirs[:, 2:] + theirs[:, :2])
    sides = np.clip(ends - np.maximum(ours[:, :2], theirs[:, :2]), 0.0, None)
    shared = sides[:, 0] * sides[:, 1]
    union = ours[:, 2] * ours[:, 3] + theirs[:, 2] * theirs[:, 3] - shared
    ious = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    near = ious >= THRESHOLDS[0]
    return rows[near], boxes[near], ious[near]


def _nearest(ious: FloatArray, allowed: NDArray[np.bool_], first: IntArray) -> IntArray:
    """(A, T, S) the allowed pair of greatest IoU of each detection, of equal ones the last; -1 without any.

    Args:
        ious: (P,) sorted by detection.
        allowed: (A, T, P).
        first: (S,) where each detection's pairs begin.
    """
    values = np.where(allowed, ious, _NONE)
    best = np.repeat(np.maximum.reduceat(values, first, axis=-1), np.diff(first, append=len(ious)), axis=-1)
    places = np.where(allowed & (values == best), np.arange(len(ious)), -1)
    return np.maximum.reduceat(places, first, axis=-1)


def _curves(truth: DetectionTruth, judged: _Judged, outside: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """(A, C, T, R) precision at each recall level and (A, C, T) final recall; -1 where nothing is annotated."""
    count = len(truth.category_ids)
    precision = np.full((len(AREAS), count, len(THRESHOLDS), len(RECALLS)), _NONE)
    recall = np.full((len(AREAS), count, len(THRESHOLDS)), _NONE)
    bounds = np.searchsorted(judged.categories, np.arange(count + 1))
    for a in range(len(AREAS)):
        totals = np.bincount(truth.categories[~outside[a]], minlength=count)
        for c in np.flatnonzero(totals):
            span = slice(bounds[c], bounds[c + 1])
            precision[a, c], recall[a, c] = _curve(judged.right[a, :, span], judged.wrong[a, :, span], totals[c])
    return precision, recall


def _curve(right: NDArray[np.bool_], wrong: NDArray[np.bool_], total: int) -> tuple[FloatArray, FloatArray]:
    """(T, R) precision, made to fall, and (T,) recall of one category, from (T, D) judgements by falling score."""
    precision = np.zeros((len(THRESHOLDS), len(RECALLS)))
    if right.shape[1] == 0:
        return precision, np.zeros(len(THRESHOLDS))
    hits, misses = np.cumsum(right, axis=1, dtype=np.float64), np.cumsum(wrong, axis=1, dtype=np.float64)
    recalls = hits / total
    # The official divisor is greater by 2e-16, with which perfect answers miss 1.0.
    raw = hits / np.maximum(misses + hits, 1.0)
    falling = np.maximum.accumulate(raw[:, ::-1], axis=1)[:, ::-1]
    for t in range(len(THRESHOLDS)):
        places = np.searchsorted(recalls[t], RECALLS, side="left")
        reached = places < recalls.shape[1]
        precision[t, reached] = falling[t, places[reached]]
    return precision, recalls[:, -1]


def _summary(truth: DetectionTruth, precision: FloatArray, recall: FloatArray) -> dict[str, float | None]:
    figures = {"AP": _mean(precision[0]), "AP50": _mean(precision[0, :, 0]), "AP75": _mean(precision[0, :, 5])}
    figures |= {f"AP{suffix}": _mean(precision[a]) for a, suffix in enumerate(_SUFFIXES) if suffix}
    figures |= {f"AP{group}": _mean(precision[0, truth.frequencies == group]) for group in "rcf"}
    return figures | {f"AR{suffix}": _mean(recall[a]) for a, suffix in enumerate(_SUFFIXES)}


def _mean(values: FloatArray) -> float | None:
    there = values[values > _NONE]
    return float(there.mean()) if there.size else None
