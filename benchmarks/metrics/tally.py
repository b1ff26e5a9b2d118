"""A metric as sums over images, so that value, interval and paired difference come from one place.

Every accuracy of this room is a mean over groups of (sum of values / number of examples): with one group that is the
plain mean (top-1, recall, acc@IoU, mean IoU), with one group a class it is the class mean (mAcc). Keeping the sums
apart by image allows a bootstrap over images. Letters: K examples, I images, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass

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
