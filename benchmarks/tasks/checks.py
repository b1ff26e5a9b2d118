"""Self-checks of the detection metrics on a few made-up boxes."""

from __future__ import annotations

import numpy as np

from benchmarks.metrics.coco_ap import CocoCurves
from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.lvis_ap import PROTOCOLS, lvis_ap
from benchmarks.tasks.contract import expect


def check_detection(what: str) -> None:
    """Two images with one box each of two categories: found perfectly, not at all, and one of two."""
    boxes = np.array([[10.0, 10.0, 40.0, 40.0], [20.0, 20.0, 50.0, 30.0]])
    places = np.array([0, 1])
    none = np.zeros(0, dtype=np.int64)
    truth = DetectionTruth(
        image_ids=np.array([1, 2]),
        sizes=np.full((2, 2), 100),
        category_ids=np.array([1, 2]),
        frequencies=np.array(["f", "f"]),
        images=places,
        categories=places,
        boxes_xywh=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        ignored=np.zeros(2, dtype=bool),
        crowd=np.zeros(2, dtype=bool),
        negative_pairs=none,
        open_pairs=none,
    )
    perfect = Detections(places, places, boxes, np.ones(2))
    wanted = {"perfect answers": (perfect, 1.0), "no answer": (perfect.take(none), 0.0)}
    wanted["one of two"] = (perfect.take(np.array([0])), 0.5)
    for case, (detections, value) in wanted.items():
        figures = CocoCurves(truth, detections).figures(np.ones(2, dtype=bool))
        expect(f"{what}: coco AP of {case}", round(figures["AP"], 9), value)
        for protocol in PROTOCOLS:
            expect(f"{what}: {protocol} of {case}", round(lvis_ap(truth, detections, protocol)["AP"], 9), value)
