"""95 % intervals: bootstrap over images, paired bootstrap for a difference, Wilson where a bootstrap cannot vary.

Images are resampled, not examples: the regions of one image are not independent of each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
MIN_IMAGES = 6
"""Below this no interval is given: even a unanimous sign over images is no evidence at 95 % (2 * 0.5**5 = 0.0625)."""

_Z95 = 1.959963984540054

Interval = tuple[float, float]


class Resampled(Protocol):
    """A figure that can be worked out again for any draw of its images: a `Tally`, or an AP."""

    binary: bool

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


def wilson_interval(successes: float, trials: int) -> Interval:
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


def interval(tally: Resampled, seed: int = 0) -> Interval | None:
    """95 % interval of a metric, None below `MIN_IMAGES` images.

    Bootstrap over images. Where every example is right, or every one wrong, resampling cannot vary; then Wilson's
    interval with the number of images as trials, the cautious count when examples share images.
    """
    if tally.num_images < MIN_IMAGES:
        return None
    value = tally.value()
    if tally.binary and value in (0.0, 1.0):
        return wilson_interval(value * tally.num_images, tally.num_images)
    return _percentiles(_resampled(tally, seed))


def paired_difference(a: Resampled, b: Resampled, seed: int = 0) -> Difference:
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
    return Difference(a.value() - b.value(), ci95)
