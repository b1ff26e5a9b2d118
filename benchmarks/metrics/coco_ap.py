"""COCO box AP by the official evaluator, pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
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
    evaluator = _evaluated(truth, detections)
    with contextlib.redirect_stdout(io.StringIO()):  # it reports each step
        evaluator.summarize()
    figures = zip(METRICS, evaluator.stats.tolist(), strict=True)
    return {name: None if value == _NONE else value for name, value in figures}


def coco_ap_of(
    truth: DetectionTruth, detections: Detections, groups: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, float | None]]:
    """The twelve figures averaged over some of the categories.

    Args:
        truth: the annotations.
        detections: every prediction.
        groups: name to a (C,) mask of the categories.
    """
    found = _evaluated(truth, detections).eval
    precision, recall = found["precision"], found["recall"]  # (T, R, C, A, M) and (T, C, A, M)
    return {name: _figures(precision[:, :, chosen], recall[:, chosen]) for name, chosen in groups.items()}


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
