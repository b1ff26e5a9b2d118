"""COCO box AP by the official evaluator, pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.metrics.ap_resamples import ApResamples, Judged
from benchmarks.metrics.detection import Detections, DetectionTruth

AP100 = "coco-ap100"
PROTOCOLS = (AP100,)
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")
_NONE = -1.0


class CocoCurves:
    """All detections of a set, 100 an image and category at most, evaluated once and read for any categories."""

    def __init__(self, truth: DetectionTruth, detections: Detections) -> None:
        self._truth, self._evaluator = truth, _evaluated(truth, detections)

    def figures(self, chosen: NDArray[np.bool_]) -> dict[str, float | None]:
        """`METRICS` in [0, 1] averaged over the categories of a (C,) mask; None where no annotation is of that kind."""
        found = self._evaluator.eval
        precision, recall = found["precision"], found["recall"]  # (T, R, C, A, M) and (T, C, A, M)
        return _figures(precision[:, :, chosen], recall[:, chosen])

    def resamples(self) -> ApResamples:
        """For the intervals of the figures over all areas."""
        truth, params = self._truth, self._evaluator.params
        images, limit = len(truth.image_ids), params.maxDets[-1]
        none = np.zeros((len(params.iouThrs), 0), dtype=bool)
        right, wrong = [none], [none]
        scores, places = list[float](), list[tuple[int, int]]()
        for category in range(len(truth.category_ids)):
            first = category * len(params.areaRng) * images  # then area by area, the first of them all areas
            for image, one in enumerate(self._evaluator.evalImgs[first : first + images]):
                if one is None:
                    continue
                scores += one["dtScores"][:limit]
                counted, matched = one["dtIgnore"][:, :limit] == 0, one["dtMatches"][:, :limit] > 0
                places += [(category, image)] * counted.shape[1]
                right.append(matched & counted)
                wrong.append(~matched & counted)
        where = np.array(places, dtype=np.int64).reshape(-1, 2)
        order = np.lexsort((-np.array(scores), where[:, 0]))  # stable: of equal scores the image of lower id first
        wanted = ~truth.crowd
        return ApResamples(
            Judged(
                image_ids=truth.image_ids,
                num_categories=len(truth.category_ids),
                categories=where[order, 0],
                images=where[order, 1],
                right=np.concatenate(right, axis=1)[:, order],
                wrong=np.concatenate(wrong, axis=1)[:, order],
                box_images=truth.images[wanted],
                box_categories=truth.categories[wanted],
            )
        )


def _figures(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float | None]:
    parts = {"AP": precision[:, :, :, 0, 2], "AP50": precision[0, :, :, 0, 2], "AP75": precision[5, :, :, 0, 2]}
    parts |= {f"AP{size}": precision[:, :, :, area, 2] for area, size in enumerate("sml", start=1)}
    parts |= {f"AR@{count}": recall[:, :, 0, place] for place, count in enumerate((1, 10, 100))}
    parts |= {f"AR{size}": recall[:, :, area, 2] for area, size in enumerate("sml", start=1)}
    return {
        name: float(values[values > _NONE].mean()) if (values > _NONE).any() else None for name, values in parts.items()
    }


def _evaluated(truth: DetectionTruth, detections: Detections) -> COCOeval:
    entries = _entries(truth, truth.images, truth.categories, truth.boxes_xywh)
    for entry, area, crowd in zip(entries, truth.areas.tolist(), truth.crowd.tolist(), strict=True):
        entry.update(area=area, iscrowd=int(crowd))
    answers = _entries(truth, detections.images, detections.categories, detections.boxes_xywh)
    for entry, score in zip(answers, detections.scores.tolist(), strict=True):
        entry.update(area=entry["bbox"][2] * entry["bbox"][3], iscrowd=0, score=score)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        evaluator = COCOeval(_indexed(truth, entries), _indexed(truth, answers), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator


def _entries(
    truth: DetectionTruth, images: np.ndarray, categories: np.ndarray, boxes_xywh: np.ndarray
) -> list[dict[str, Any]]:
    """Annotations in COCO's layout, numbered from 1: pycocotools takes an id of 0 for "not found"."""
    columns = (truth.image_ids[images].tolist(), truth.category_ids[categories].tolist(), boxes_xywh.tolist())
    return [
        {"id": number, "image_id": image, "category_id": category, "bbox": box}
        for number, (image, category, box) in enumerate(zip(*columns, strict=True), start=1)
    ]


def _indexed(truth: DetectionTruth, entries: list[dict[str, object]]) -> COCO:
    made = COCO()
    made.dataset = {
        "images": [{"id": image} for image in truth.image_ids.tolist()],
        "categories": [{"id": category} for category in truth.category_ids.tolist()],
        "annotations": entries,
    }
    made.createIndex()
    return made
