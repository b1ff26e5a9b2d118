"""Answers as arrays, and the file made of them."""

import numpy as np
import pytest

from benchmarks.metrics.detection import DetectionTruth
from benchmarks.predictors.detector import Found
from benchmarks.tasks import coco_results
from benchmarks.tasks.coco_results import CocoResults, join_found, round_found


@pytest.fixture
def truth():
    none = np.zeros(0, dtype=np.int64)
    no_boxes, no_flags = np.zeros((0, 4)), np.zeros(0, dtype=bool)
    ids, sizes = np.array([3, 8, 11]), np.full((3, 2), 90)
    kinds = np.array([5, 7]), np.array(["", ""])
    return DetectionTruth(ids, sizes, *kinds, none, none, no_boxes, np.zeros(0), no_flags, no_flags, none, none)


def found(*rows):
    """x0, y0, x1, y1, score, label each."""
    table = np.array(rows, dtype=float).reshape(-1, 6)
    return round_found(Found(table[:, :4], table[:, 4], table[:, 5].astype(np.int64)))


@pytest.mark.parametrize("block", [1, 2, 4096])
def test_entries_are_those_of_the_arrays_in_the_order_asked(truth, block, monkeypatch):
    monkeypatch.setattr(coco_results, "BLOCK", block)
    flat = (4, 5, 4.001, 9, 0.9, 0)  # no area when rounded: no answer
    parts = [found((1, 2, 11.006, 4, 1 / 3, 1), flat), found(), found((0, 0, 1, 1, 0.5, 0), (2, 2, 3, 4, 0.25, 1))]
    detections = join_found([11, 3, 8], parts, [5, 7], truth)
    results = CocoResults(detections, truth)
    assert list(results) == [
        {"image_id": 11, "category_id": 7, "bbox": [1.0, 2.0, 10.01, 2.0], "score": 0.333333},
        {"image_id": 8, "category_id": 5, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.5},
        {"image_id": 8, "category_id": 7, "bbox": [2.0, 2.0, 1.0, 2.0], "score": 0.25},
    ]
    assert len(results) == len(detections) == 3
    assert list(results)[1] in results
    assert detections.images.tolist() == [2, 1, 1]
    assert detections.categories.tolist() == [1, 0, 1]


def test_nothing_found_is_no_entry(truth):
    results = CocoResults(join_found([3, 8, 11], [found()] * 3, [5, 7], truth), truth)
    assert not results
    assert list(results) == []
