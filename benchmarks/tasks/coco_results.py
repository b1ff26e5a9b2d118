"""What a detector found on a whole set: arrays while it is asked and scored, COCO results where it is written.

LVIS val at 300 boxes an image is six million boxes: as one dict each they would be gigabytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.predictors.detector import Found
from cloc.boxes import xyxy_to_xywh

BLOCK = 4096
"""Entries that exist at a time."""


def round_found(found: Found) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(N, 4) xywh boxes, (N,) scores and (N,) labels of one image as they are written: boxes to a hundredth of a pixel,
    scores to a millionth. A box without area is no answer.
    """
    boxes_xywh = np.round(xyxy_to_xywh(found.boxes_xyxy), 2)
    real = (boxes_xywh[:, 2:] > 0).all(axis=1)
    return boxes_xywh[real], np.round(found.scores[real], 6), found.labels[real]


def join_found(
    image_ids: Sequence[int],
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]],
    category_ids: Sequence[int],
    truth: DetectionTruth,
) -> Detections:
    """The answers on all images, in the order asked.

    Args:
        image_ids: of the images that were asked about; all of them are in `truth`.
        parts: what `round_found` gave for each.
        category_ids: of what was asked for, in the order of the labels; all of them are in `truth`.
        truth: the annotations of these images.
    """
    boxes_xywh, scores, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    images = np.repeat(np.searchsorted(truth.image_ids, image_ids), [len(part[1]) for part in parts])
    return Detections(images, np.searchsorted(truth.category_ids, category_ids)[labels], boxes_xywh, scores)


class CocoResults(Collection[dict[str, Any]]):
    """Detections as the entries of a COCO results file, made while one goes through them.

    Args:
        detections: the arrays.
        truth: whose ids they are written with.
    """

    def __init__(self, detections: Detections, truth: DetectionTruth) -> None:
        self._detections, self._truth = detections, truth

    def __len__(self) -> int:
        return len(self._detections)

    def __contains__(self, entry: object) -> bool:
        return any(entry == one for one in self)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        whole, truth = self._detections, self._truth
        for start in range(0, len(whole), BLOCK):
            some = whole.take(slice(start, start + BLOCK))
            images, categories = truth.image_ids[some.images].tolist(), truth.category_ids[some.categories].tolist()
            boxes_xywh, scores = some.boxes_xywh.tolist(), some.scores.tolist()
            for image, category, box, score in zip(images, categories, boxes_xywh, scores, strict=True):
                yield {"image_id": image, "category_id": category, "bbox": box, "score": score}
