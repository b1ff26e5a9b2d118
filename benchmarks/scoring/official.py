"""The official `lvis` package as the evaluator, for whoever wants its own figures: minutes and gigabytes, not seconds.

Version 0.5.3 uses `np.float`, which NumPy has removed: it is put back while the package runs. The package is given what
our readers have checked, because it dies of an empty file and of one unknown image.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.metrics.detection import Detections, DetectionTruth
from benchmarks.metrics.lvis_ap import AP300, FIXED, FIXED_K, PER_IMAGE
from benchmarks.metrics.lvis_match import choose_best_of_each, rank_scores

NO_LIMIT = -1
_NONE = -1.0


def score_officially(
    annotations: Path, truth: DetectionTruth, detections: Detections, protocol: str, fixed_k: int = FIXED_K
) -> dict[str, float | None]:
    """All figures of one protocol by the `lvis` package.

    Args:
        annotations: the annotation file, which the package reads itself.
        truth: the same, read by us.
        detections: every prediction, uncut.
        protocol: one of `lvis_ap.PROTOCOLS`; the package itself knows the limit an image only, so the k best of each
            category are chosen beforehand for `lvis-fixed-ap`.
        fixed_k: for that.

    Raises:
        ValueError: there is no prediction; the package cannot score an empty file.
    """
    from lvis import LVIS, LVISEval, LVISResults

    if not len(detections):
        raise ValueError("--evaluator official: the lvis package cannot score an empty file; leave the option out")
    if protocol == FIXED:
        kept = choose_best_of_each(rank_scores(detections.scores), detections.categories, fixed_k)
        detections = detections.take(np.flatnonzero(kept))
    limit = PER_IMAGE if protocol == AP300 else NO_LIMIT
    with _old_names():
        known = LVIS(str(annotations))
        evaluator = LVISEval(known, LVISResults(known, _entries(truth, detections), max_dets=limit), "bbox")
        evaluator.params.max_dets = limit
        evaluator.run()
        figures = evaluator.get_results()
    return {name.split("@")[0]: None if value == _NONE else float(value) for name, value in figures.items()}


@contextmanager
def _old_names() -> Iterator[None]:
    """Put `np.float` back and keep the package's warnings quiet."""
    lacking = "float" not in vars(np)
    logging.disable(logging.WARNING)
    if lacking:
        vars(np)["float"] = float
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        if lacking:
            del vars(np)["float"]


def _entries(truth: DetectionTruth, detections: Detections) -> list[dict[str, object]]:
    columns = (
        truth.image_ids[detections.images].tolist(),
        truth.category_ids[detections.categories].tolist(),
        detections.boxes_xywh.tolist(),
        detections.scores.tolist(),
    )
    return [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for image, category, box, score in zip(*columns, strict=True)
    ]
