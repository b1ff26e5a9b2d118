"""LVIS box AP on arrays, equal to the official evaluator figure by figure.

Precision changes for the better only at a right detection, so a curve is fully told by its right detections and by how
many wrong ones stand before each. That makes the work proportional to the annotated boxes, not to the detections.

Letters: A area ranges, T IoU thresholds, R recall levels, C categories, D detections, J judged ones, K judged ones that
overlap an annotated box, N right ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.ap_resamples import RECALLS, ApResamples, Judged
from benchmarks.metrics.detection import Detections, DetectionTruth, FloatArray, IntArray, number_within
from benchmarks.metrics.lvis_match import AREAS, THRESHOLDS, Matched, choose_best_of_each, match_detections, rank_scores

PER_IMAGE = 300
FIXED_K = 10_000
AP300, UNLIMITED, FIXED = "lvis-ap300", "lvis-ap-unlimited", "lvis-fixed-ap"
PROTOCOLS = (AP300, UNLIMITED, FIXED)
_SUFFIXES = ("", "s", "m", "l")
_NONE = -1.0


@dataclass(frozen=True, eq=False)
class LvisCurves:
    """What all figures of one protocol are read off.

    Attributes:
        truth: the annotations.
        precision: (A, C, T, R) at each recall level, and
        recall: (A, C, T) final recall; -1 where nothing is annotated.
        detections, matched, kept: the answers, what was matched, and (J,) those that the protocol looks at.
    """

    truth: DetectionTruth
    precision: FloatArray
    recall: FloatArray
    detections: Detections
    matched: Matched
    kept: NDArray[np.bool_]

    def figures(self, chosen: NDArray[np.bool_] | None = None) -> dict[str, float | None]:
        """AP, AP50, AP75, APs, APm, APl, APr, APc, APf, AR, ARs, ARm, ARl in [0, 1].

        Args:
            chosen: (C,) the categories to average over; None for all.

        Returns:
            None where no annotation is of that kind (the official code writes -1).
        """
        picked = slice(None) if chosen is None else chosen
        precision, recall = self.precision[:, picked], self.recall[:, picked]
        groups = self.truth.frequencies[picked]
        figures = {"AP": _mean(precision[0]), "AP50": _mean(precision[0, :, 0]), "AP75": _mean(precision[0, :, 5])}
        figures |= {f"AP{suffix}": _mean(precision[a]) for a, suffix in enumerate(_SUFFIXES) if suffix}
        figures |= {f"AP{group}": _mean(precision[0, groups == group]) for group in "rcf"}
        return figures | {f"AR{suffix}": _mean(recall[a]) for a, suffix in enumerate(_SUFFIXES)}

    def resamples(self) -> ApResamples:
        """For the intervals of the figures over all areas."""
        matched, truth = self.matched, self.truth
        found, outside = matched.found[0], matched.found_outside[0]
        right = np.zeros((len(THRESHOLDS), len(matched.rows)), dtype=bool)
        right[:, matched.places] = found & ~outside
        wrong = np.tile(~matched.excused[0], (len(THRESHOLDS), 1))
        wrong[:, matched.places] &= ~found
        wanted = ~matched.outside[0]
        return ApResamples(
            Judged(
                image_ids=truth.image_ids,
                num_categories=len(truth.category_ids),
                categories=matched.categories,
                images=self.detections.images[matched.rows],
                right=right & self.kept,
                wrong=wrong & self.kept,
                box_images=truth.images[wanted],
                box_categories=truth.categories[wanted],
            )
        )

    def precision_at_recall(self, chosen: NDArray[np.bool_]) -> FloatArray | None:
        """(R,) precision at IoU 0.5, mean over the chosen categories that are annotated; None without any."""
        rows = self.precision[0, chosen, 0]
        rows = rows[rows[:, 0] > _NONE]
        return rows.mean(axis=0) if len(rows) else None


class LvisJudge:
    """All detections of a set, matched once and read under any protocol."""

    def __init__(self, truth: DetectionTruth, detections: Detections) -> None:
        self.truth, self.detections = truth, detections
        self._ranks = rank_scores(detections.scores)
        self._matched = match_detections(truth, detections, self._ranks)

    def curves(self, protocol: str, fixed_k: int = FIXED_K) -> LvisCurves:
        """The curves under one protocol.

        Args:
            protocol: `lvis-ap300` keeps the 300 best of each image, `lvis-ap-unlimited` all, `lvis-fixed-ap` the
                `fixed_k` best of each category over the whole set (Dave et al. 2021), then without a limit an image.
            fixed_k: for the last one.

        Raises:
            ValueError: there is no such protocol.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {protocol!r}")
        kept = np.ones(len(self.detections), dtype=bool)
        if protocol == AP300:
            kept = choose_best_of_each(self._ranks, self.detections.images, PER_IMAGE)
        elif protocol == FIXED:
            kept = choose_best_of_each(self._ranks, self.detections.categories, fixed_k)
        kept = kept[self._matched.rows]
        return LvisCurves(self.truth, *_curves(self.truth, self._matched, kept), self.detections, self._matched, kept)


def score_lvis(
    truth: DetectionTruth, detections: Detections, protocol: str, fixed_k: int = FIXED_K
) -> dict[str, float | None]:
    """All figures of one protocol: `LvisJudge(...).curves(...).figures()`."""
    return LvisJudge(truth, detections).curves(protocol, fixed_k).figures()


def _curves(truth: DetectionTruth, matched: Matched, kept: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """(A, C, T, R) precision at each recall level and (A, C, T) final recall; -1 where nothing is annotated.

    Args:
        truth: the annotations.
        matched: all judged detections.
        kept: (J,) those that the protocol looks at.
    """
    count = len(truth.category_ids)
    precision = np.full((len(AREAS), count, len(THRESHOLDS), len(RECALLS)), _NONE)
    recall = np.full((len(AREAS), count, len(THRESHOLDS)), _NONE)
    categories = matched.categories[matched.places]
    kept_here = kept[matched.places]
    for a in range(len(AREAS)):
        totals = np.bincount(truth.categories[~matched.outside[a]], minlength=count)
        there = np.flatnonzero(totals)
        blamed = kept & ~matched.excused[a]
        before = _before(blamed, matched.categories, count)[matched.places]
        blamed_here = blamed[matched.places]
        levels = _levels(totals[there])
        for t in range(len(THRESHOLDS)):
            found = matched.found[a, t] & kept_here
            saved = _before(found & blamed_here, categories, count)  # found ones are not wrong, whatever they found
            right = np.flatnonzero(found & ~matched.found_outside[a, t])
            falling, bounds = _falling(categories[right], (before - saved)[right], count)
            hits = np.diff(bounds)[there]
            places = np.minimum(bounds[:-1][there][:, None] + levels - 1, len(falling) - 1)
            reached = levels <= hits[:, None]
            precision[a, there, t] = np.where(reached, falling[places], 0.0) if len(falling) else 0.0
            recall[a, there, t] = hits / totals[there]
    return precision, recall


def _before(marked: NDArray[np.bool_], categories: IntArray, count: int) -> IntArray:
    """(M,) how many marked ones of its own category stand before each of the M sorted by category."""
    running: NDArray[np.int64] = np.cumsum(marked) - marked
    starts = np.searchsorted(categories, np.arange(count))
    base = np.append(running, marked.sum())[starts]
    return running - base[categories]


def _falling(categories: IntArray, wrong: IntArray, count: int) -> tuple[FloatArray, IntArray]:
    """(N,) the best precision at each right detection or later in its category; and (C + 1,) where categories begin.

    Args:
        categories: (N,) ascending, each by falling score.
        wrong: (N,) wrong detections that stand before each.
        count: C.
    """
    bounds = np.searchsorted(categories, np.arange(count + 1))
    hits = number_within(categories) + 1.0
    # The official divisor is greater by 2e-16, with which perfect answers miss 1.0.
    raw = hits / (hits + wrong)
    order = np.argsort(raw, kind="stable")
    height = np.empty(len(raw), dtype=np.int64)
    height[order] = np.arange(len(raw))
    # From the back, each category above the one before it, so that a running maximum begins anew: exact in integers.
    steps = (count - categories) * len(raw)
    highest = np.maximum.accumulate((height + steps)[::-1])[::-1] - steps
    return raw[order[highest]], bounds


def _levels(totals: IntArray) -> IntArray:
    """(C', R) how many right detections reach each recall level, of so many annotated boxes each; at least one."""
    kinds, which = np.unique(totals, return_inverse=True)
    table = [np.searchsorted(np.arange(1, total + 1) / total, RECALLS, side="left") + 1 for total in kinds.tolist()]
    return np.array(table, dtype=np.int64).reshape(-1, len(RECALLS))[which]


def _mean(values: FloatArray) -> float | None:
    there = values[values > _NONE]
    return float(there.mean()) if there.size else None
