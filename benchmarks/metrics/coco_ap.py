"""COCO box AP by the official evaluator, pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.metrics.detection import Detections, DetectionTruth

AP100 = "coco-ap100"
PROTOCOLS = (AP100,)
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR@1", "AR@10", "AR@100", "ARs", "ARm", "ARl")
_NONE = -1.0


def coco_ap(truth: DetectionTruth, detections: Detections) -> dict[str, float | None]:
    """The twelve official figures, 100 detections an image and category at most.

    Returns:
        `METRICS` in [0, 1]; None where no annotation is of that kind (pycocotools writes -1).
    """
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
        evaluator.summarize()
    figures = zip(METRICS, evaluator.stats.tolist(), strict=True)
    return {name: None if value == _NONE else value for name, value in figures}


def _entries(
    truth: DetectionTruth, images: np.ndarray, categories: np.ndarray, boxes_xywh: np.ndarray
) -> list[dict[str, object]]:
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
