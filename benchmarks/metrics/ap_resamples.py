"""AP when the images of a set are drawn again: what the interval of a detection figure is read off.

An image that is drawn k times counts k times, with its annotated boxes and with what was found on it. Matching happens
within an image, so it is done once; only the curves are made anew. Of a curve only the right detections matter and how
many wrong ones stand before each, which are sums over images. The 10,000 of fixed AP are chosen once, on the whole set.

Letters: I images, C categories, T IoU thresholds, J judged detections, G boxes to be found, N right ones, R draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tqdm import tqdm

from benchmarks.metrics.detection import FloatArray, IntArray

RECALLS = np.linspace(0.0, 1.0, 101)
KINDS = {"AP": range(10), "AP50": (0,), "AP75": (5,)}
"""Figures over all areas, by the thresholds that they are a mean over."""
_CELLS = 4_000_000
"""Numbers of one array that is held at a time: 32 MB."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Every detection of a set, right, wrong or neither (a crowd, a box that is not to be found), in all areas.

    Attributes:
        image_ids: (I,) ascending, those with nothing on them as well.
        num_categories: C.
        categories: (J,) ascending, each by falling score.
        images: (J,) index into `image_ids`.
        right: (T, J) bool.
        wrong: (T, J) bool.
        box_images: (G,) image of each box to be found, and
        box_categories: (G,) its category.
    """

    image_ids: IntArray
    num_categories: int
    categories: IntArray
    images: IntArray
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    box_images: IntArray
    box_categories: IntArray


class ApResamples:
    """The APs of every category for any draw of images."""

    def __init__(self, judged: Judged) -> None:
        self.judged = judged
        self._drawn: NDArray | None = None
        self._kept = np.zeros((0, 0, 0))

    def of(self, drawn: NDArray) -> FloatArray:
        """APs, kept for the next call with the same array: the figures of a protocol share them.

        Args:
            drawn: (R, I) how often each image was drawn.

        Returns:
            (R, C, 3) in the order of `KINDS`; NaN where no box of the category is in the draw.
        """
        if self._drawn is not drawn:
            self._drawn, self._kept = drawn, self._figures(drawn)
        return self._kept

    def _figures(self, drawn: NDArray) -> FloatArray:
        judged, shape = self.judged, (len(drawn), self.judged.num_categories)
        some = max(1, _CELLS // max(1, len(judged.box_images)))
        blocks = [slice(start, start + some) for start in range(0, len(drawn), some)]
        boxes = csr_array(
            (np.ones(len(judged.box_images)), (judged.box_images, judged.box_categories)),
            shape=(len(judged.image_ids), judged.num_categories),
        )
        totals = np.concatenate([drawn[rows].astype(np.float64) @ boxes for rows in blocks])
        figures = np.zeros((len(KINDS), *shape), dtype=np.float32)
        for t in tqdm(range(len(judged.right)), "intervals of AP", leave=False, delay=5):
            right = np.flatnonzero(judged.right[t])
            wrong = self._wrong_before(t, right)
            for rows in blocks if len(right) else ():
                found = self._at(right, wrong, drawn[rows].astype(np.float64), totals[rows])
                for kind, chosen in enumerate(KINDS.values()):
                    if t in chosen:
                        figures[kind, rows] += found / len(chosen)
        return np.where(totals > 0, figures, np.nan).transpose(1, 2, 0)

    def _at(self, right: IntArray, wrong: csr_array, weights: FloatArray, totals: FloatArray) -> FloatArray:
        """(R, C) at one threshold; where there is no box to be found the value means nothing."""
        found, categories = np.zeros_like(totals), self.judged.categories[right]
        first = np.flatnonzero(np.diff(categories, prepend=-1))
        hits = _running(weights[:, self.judged.images[right]], first)
        precision = _share(hits, hits + _running(weights @ wrong, first))
        reached = np.searchsorted(RECALLS, _share(hits, totals[:, categories]), side="right")
        gained = np.diff(reached, axis=1, prepend=0)
        gained[:, first] = reached[:, first]
        found[:, categories[first]] = np.add.reduceat(gained * _best_from(precision, first), first, axis=1)
        return found / len(RECALLS)

    def _wrong_before(self, t: int, right: IntArray) -> csr_array:
        """(I, N) wrong detections between each right one and the right one before it in its category."""
        judged = self.judged
        wrong = np.flatnonzero(judged.wrong[t])
        after = np.searchsorted(right, wrong)
        wrong, after = wrong[after < len(right)], after[after < len(right)]
        own = judged.categories[wrong] == judged.categories[right[after]]
        places = judged.images[wrong[own]], after[own]
        return csr_array((np.ones(len(places[0])), places), shape=(len(judged.image_ids), len(right)))


@dataclass(frozen=True, eq=False)
class ApTally:
    """A detection figure as `intervals` wants it; see `Tally`.

    Attributes:
        figure: as the protocol's evaluator gives it.
        resamples: of the protocol.
        chosen: (C,) categories that it is a mean over.
        kind: one of `KINDS`.
    """

    figure: float
    resamples: ApResamples
    chosen: NDArray[np.bool_]
    kind: str
    binary = False

    @property
    def image_ids(self) -> IntArray:
        """(I,) of all images of the set."""
        return self.resamples.judged.image_ids

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)

    @property
    def num_examples(self) -> int:
        """I: a detector is asked once an image."""
        return self.num_images

    def value(self) -> float:
        """The figure on the set as it is."""
        return self.figure

    def resampled(self, drawn: NDArray) -> FloatArray:
        """(R,) the spread of `draws`, put around the figure; NaN where a draw has none.

        A rare category is in a draw only where its images are in it, and then more often than what is wrong elsewhere:
        draws lie above the figure, and their own percentiles would hold the truth less often (counted in
        `tests/benchmarks/test_ap_resamples.py`).
        """
        values = self.draws(drawn)
        there = ~np.isnan(values)
        return np.clip(values - values[there].mean() + self.figure, 0.0, 1.0) if there.any() else values

    def draws(self, drawn: NDArray) -> FloatArray:
        """(R,) the figure for (R, I) draws; NaN where none of its categories is in a draw."""
        values = self.resamples.of(drawn)[:, self.chosen, list(KINDS).index(self.kind)].astype(np.float64)
        there = ~np.isnan(values)
        return _share(np.where(there, values, 0.0).sum(axis=1), there.sum(axis=1), np.nan)


def make_ap_tallies(
    figures: Mapping[str, float | None],
    resamples: ApResamples,
    chosen: NDArray[np.bool_],
    frequencies: NDArray[np.str_] | None = None,
) -> dict[str, ApTally]:
    """Those of a protocol's figures that have an interval: over all areas, no recall.

    Args:
        figures: by name; None has no interval.
        resamples: of the protocol.
        chosen: (C,) categories that the figures are means over.
        frequencies: (C,) LVIS's `r`, `c` and `f`, for `APr`, `APc` and `APf`.
    """
    groups = {name: (chosen, name) for name in KINDS}
    if frequencies is not None:
        groups |= {f"AP{group}": (chosen & (frequencies == group), "AP") for group in "rcf"}
    valued = {name: value for name, value in figures.items() if name in groups and value is not None}
    return {name: ApTally(value, resamples, *groups[name]) for name, value in valued.items()}


def _running(values: FloatArray, first: IntArray) -> FloatArray:
    """(R, N) sums from the first of each category on."""
    sums = np.cumsum(values, axis=1)
    base = np.where(first[None] > 0, sums[:, first - 1], 0.0)
    return sums - np.repeat(base, np.diff(first, append=values.shape[1]), axis=1)


def _best_from(precision: FloatArray, first: IntArray) -> FloatArray:
    """(R, N) the best at each place or later in its category."""
    # From the back, each category above the one before it, so that a running maximum begins anew.
    steps = np.repeat(2.0 * np.arange(len(first), 0, -1), np.diff(first, append=precision.shape[1]))
    return np.maximum.accumulate((precision + steps)[:, ::-1], axis=1)[:, ::-1] - steps


def _share(part: FloatArray, whole: FloatArray, empty: float = 0.0) -> FloatArray:
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)
