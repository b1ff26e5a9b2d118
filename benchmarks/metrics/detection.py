"""What the detection metrics work on: annotations and predictions of a whole set as arrays, not a dict a box.

Letters: I images, C categories, G annotated boxes, D predicted boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
EMPTY = "annotated boxes without width or height, which no answer can reach (they stay in, as the official code has it)"
"""What is said of them beside a figure."""


@dataclass(frozen=True, eq=False)
class DetectionTruth:
    """The annotations of a set, in the order of the file.

    A pair of category c and image i is numbered c * I + i.

    Attributes:
        image_ids: (I,) ascending.
        sizes: (I, 2) width and height in pixels.
        category_ids: (C,) ascending.
        frequencies: (C,) LVIS's `r`, `c` or `f`; empty strings where the layout has none.
        images: (G,) index into `image_ids`.
        categories: (G,) index into `category_ids`.
        boxes_xywh: (G, 4) pixels.
        areas: (G,) square pixels as annotated (of the outline, not of the box).
        ignored: (G,) bool, LVIS's `ignore`: neither to be found nor to be missed.
        crowd: (G,) bool, COCO's `iscrowd`.
        negative_pairs: pairs that were checked to be absent (LVIS).
        open_pairs: pairs of which not all instances carry a box (LVIS).
    """

    image_ids: IntArray
    sizes: IntArray
    category_ids: IntArray
    frequencies: NDArray[np.str_]
    images: IntArray
    categories: IntArray
    boxes_xywh: FloatArray
    areas: FloatArray
    ignored: NDArray[np.bool_]
    crowd: NDArray[np.bool_]
    negative_pairs: IntArray
    open_pairs: IntArray

    @property
    def num_empty(self) -> int:
        """Boxes without width or height: no answer reaches them, and the official evaluators count them as missed."""
        return int(((self.boxes_xywh[:, 2:] <= 0).any(axis=1) & ~self.ignored & ~self.crowd).sum())

    @property
    def pairs(self) -> IntArray:
        """(G,) pair of category and image of each annotation."""
        return self.categories * len(self.image_ids) + self.images


@dataclass(frozen=True, eq=False)
class Detections:
    """Predicted boxes, in the order of their file.

    Attributes:
        images: (D,) index into the truth's `image_ids`.
        categories: (D,) index into the truth's `category_ids`.
        boxes_xywh: (D, 4) pixels.
        scores: (D,) finite, higher is surer.
    """

    images: IntArray
    categories: IntArray
    boxes_xywh: FloatArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: NDArray | slice) -> Detections:
        """Some of them, by index, mask or slice, in the order given."""
        return Detections(self.images[rows], self.categories[rows], self.boxes_xywh[rows], self.scores[rows])


def number_within(groups: NDArray) -> IntArray:
    """(K,) 0, 1, 2, ... within each run of equal values of the sorted (K,) `groups`."""
    starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1)) if len(groups) else np.zeros(0, dtype=np.int64)
    lengths = np.diff(starts, append=len(groups))
    return np.arange(len(groups)) - np.repeat(starts, lengths)
