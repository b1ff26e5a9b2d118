"""`coco`: detection of the 80 categories on COCO val2017, scored by pycocotools; `coco_fit`: the same on train2017."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.data_roots import FoundSet, list_coco_files
from benchmarks.metrics import coco_ap
from benchmarks.predictors.detector import DetectorPredictor
from benchmarks.tasks.contract import Options, Task, TaskOutput, name_dataset
from benchmarks.tasks.detection import (
    check_detection,
    detect_all,
    group_categories,
    make_examples,
    report_nothing,
    score_coco_protocols,
)
from cloc.formats.annotated import AnnotatedSet
from cloc.formats.coco import read_coco


def describe_needs(files: str) -> str:
    """What the task needs of COCO's `val2017` or `train2017`."""
    return f"coco/annotations/instances_{files}.json and the photos in coco/{files}/; a model with detection heads"


class Coco(Task):
    """AP under `coco-ap100/name`, and class-agnostic recall by size."""

    name = "coco"
    files, split = "val2017", "val"
    needs = describe_needs(files)
    runs_by_default = True
    kinds = ("detector",)

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [file for file, _ in list_coco_files(roots, self.files)]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        return [
            FoundSet("coco", self.split, file, partial(read_coco, file, images))
            for file, images in list_coco_files(roots, self.files)
            if file.is_file()
        ]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        check_detection(self.name)

    def run(self, predictor: DetectorPredictor, dataset: AnnotatedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        return measure_coco(predictor, dataset, found, options)


class CocoFit(Coco):
    """The same on COCO train2017: how well a model fits what it was trained on. No evaluation; only when asked for."""

    name = "coco_fit"
    files, split = "train2017", "train (a fit, no evaluation)"
    needs = describe_needs(files)
    runs_by_default = False


def measure_coco(predictor: DetectorPredictor, dataset: AnnotatedSet, found: FoundSet, options: Options) -> TaskOutput:
    """Detect and score any set in COCO's layout."""
    detected = detect_all(predictor, dataset, options)
    name = name_dataset(found.dataset, dataset.rendered)
    if not detected.images:
        scores = report_nothing({coco_ap.AP100: coco_ap.METRICS}, found.split, detected)
        return TaskOutput(name, dataset.rendered, scores)
    scores = score_coco_protocols(detected, group_categories(detected, found.split), options)
    return TaskOutput(name, dataset.rendered, scores, detected.results, make_examples(detected), as_list=True)
