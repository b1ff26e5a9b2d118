"""A metric as sums over images, and its 95 % interval: bootstrap over images, paired for a difference, Wilson where a
bootstrap cannot vary.

Value, interval and paired difference come from one place. Every accuracy here is a mean over groups of (sum of values /
number of examples): with one group that is the plain mean (top-1, recall, acc@IoU, mean IoU), with one group a class it
is the class mean (mAcc). The sums are kept apart by image because images are resampled, not examples: the regions of
one image are not independent of each other. Letters: K examples, I images, G groups, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_BLOCK = 100


@dataclass(frozen=True)
class Tally:
    """Sums and counts of one metric, by image and group.

    Attributes:
        image_ids: (I,) different image ids, ascending; only images with at least one example.
        sums: (I, G) sum of the examples' values.
        counts: (I, G) number of examples.
        binary: True where every value is 0 or 1.
    """

    image_ids: NDArray[np.int64]
    sums: csr_array
    counts: csr_array
    binary: bool

    @classmethod
    def of(cls, image_ids: object, values: object, groups: object = None) -> Tally:
        """Collect examples.

        Args:
            image_ids: (K,) integer ids of the image that each example belongs to.
            values: (K,) numbers, 1.0 for right and 0.0 for wrong where the metric is a proportion.
            groups: (K,) integer group of each example, any numbering; None puts all in one group.

        Raises:
            ValueError: the three do not have one length, or a value is not finite.
        """
        ids, vals = np.asarray(image_ids, dtype=np.int64), np.asarray(values, dtype=np.float64)
        labels = np.zeros(len(vals), dtype=np.int64) if groups is None else np.asarray(groups)
        if ids.shape != vals.shape or labels.shape != vals.shape or vals.ndim != 1:
            raise ValueError(
                f"tally: expected one image id, value and group for each example, got shapes "
                f"{ids.shape}, {vals.shape} and {labels.shape}"
            )
        if not np.isfinite(vals).all():
            raise ValueError(f"tally: expected finite values, got {int((~np.isfinite(vals)).sum())} that are not")
        images, rows = np.unique(ids, return_inverse=True)
        kinds, columns = np.unique(labels, return_inverse=True)
        shape = (len(images), len(kinds))
        return cls(
            image_ids=images,
            sums=csr_array((vals, (rows, columns)), shape=shape),
            counts=csr_array((np.ones(len(vals)), (rows, columns)), shape=shape),
            binary=bool(np.isin(vals, (0.0, 1.0)).all()),
        )

    @property
    def num_examples(self) -> int:
        """K."""
        return int(self.counts.sum())

    @property
    def num_images(self) -> int:
        """I."""
        return len(self.image_ids)

    def value(self) -> float | None:
        """The metric, None without any example."""
        if self.num_examples == 0:
            return None
        return float(self.values(np.ones((1, self.num_images)))[0])

    def values(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The metric when image i counts weights[r, i] times.

        Args:
            weights: (R, I), not negative, at least one positive number a row.

        Returns:
            (R,); a group with no example in a row takes no part in that row's mean.
        """
        sums, counts = weights @ self.sums, weights @ self.counts
        shares = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
        return shares.sum(axis=1) / (counts > 0).sum(axis=1)

    def resampled(self, drawn: NDArray) -> NDArray[np.float64]:
        """`values` in blocks, because the product is dense in the number of groups."""
        blocks = [self.values(drawn[i : i + _BLOCK].astype(np.float64)) for i in range(0, len(drawn), _BLOCK)]
        return np.concatenate(blocks)


RESAMPLES = 1000
MIN_IMAGES = 6
"""Below this no interval is given: even a unanimous sign over images is no evidence at 95 % (2 * 0.5**5 = 0.0625)."""

_Z95 = 1.959963984540054

Interval = tuple[float, float]


class Resampled(Protocol):
    """A figure that can be worked out again for any draw of its images: a `Tally`, or an AP."""

    @property
    def binary(self) -> bool:
        """True where every value is 0 or 1."""

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """(I,) ascending."""

    @property
    def num_images(self) -> int:
        """I."""

    @property
    def num_examples(self) -> int:
        """What it is a figure of."""

    def value(self) -> float | None:
        """On the images as they are."""

    def resampled(self, drawn: NDArray[np.float32]) -> NDArray[np.float64]:
        """(R,) for (R, I) how often each image was drawn; NaN where a draw has no value."""


@dataclass(frozen=True)
class Difference:
    """A minus B on the same images.

    Attributes:
        value: difference of the two metrics.
        ci95: its paired bootstrap interval, None below `MIN_IMAGES` images.
    """

    value: float
    ci95: Interval | None

    @property
    def clear_of_zero(self) -> bool:
        """True where the whole interval lies on one side of 0."""
        return self.ci95 is not None and (self.ci95[0] > 0 or self.ci95[1] < 0)


@lru_cache(maxsize=2)
def _resamples(num_images: int, seed: int) -> NDArray[np.float32]:
    """(RESAMPLES, I) how often each image is drawn; the same numbers for the same arguments, which makes pairs."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((RESAMPLES, num_images), dtype=np.float32)
    for row in drawn:
        row[:] = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
    return drawn


def _resampled(figure: Resampled, seed: int) -> NDArray[np.float64]:
    return figure.resampled(_resamples(figure.num_images, seed))


def _percentiles(values: NDArray[np.float64]) -> Interval | None:
    """Of the draws that have a value; None where fewer than half of them have one."""
    values = values[~np.isnan(values)]
    if len(values) * 2 < RESAMPLES:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def find_wilson_interval(successes: float, trials: int) -> Interval:
    """Wilson's score interval of a proportion.

    Raises:
        ValueError: no trial, or more successes than trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"wilson: expected 0 <= successes <= trials and one trial or more, got {successes} of {trials}"
        )
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # At the ends the formula is exact only without rounding.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half)


def find_interval(tally: Resampled, seed: int = 0) -> Interval | None:
    """95 % interval of a metric, None below `MIN_IMAGES` images.

    Bootstrap over images. Where every example is right, or every one wrong, resampling cannot vary; then Wilson's
    interval with the number of images as trials, the cautious count when examples share images.
    """
    if tally.num_images < MIN_IMAGES:
        return None
    value = tally.value()
    if tally.binary and value is not None and value in (0.0, 1.0):
        return find_wilson_interval(value * tally.num_images, tally.num_images)
    return _percentiles(_resampled(tally, seed))


def compare_paired(a: Resampled, b: Resampled, seed: int = 0) -> Difference:
    """A minus B, with both metrics computed on the same resamples.

    Raises:
        ValueError: the two were not measured on the same images, or on none.
    """
    if a.num_images == 0 or not np.array_equal(a.image_ids, b.image_ids) or a.num_examples != b.num_examples:
        raise ValueError(
            f"paired difference: expected the same examples on both sides, got {a.num_examples} examples on "
            f"{a.num_images} images and {b.num_examples} on {b.num_images}"
        )
    ci95 = None
    if a.num_images >= MIN_IMAGES:
        ci95 = _percentiles(_resampled(a, seed) - _resampled(b, seed))
    of_a, of_b = a.value(), b.value()
    assert of_a is not None  # both have images
    assert of_b is not None
    return Difference(of_a - of_b, ci95)
