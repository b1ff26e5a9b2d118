"""`region_recognition`: which of the classes is in a ground-truth box? COCO layout (CLOC section 5.2, RecCOCO).

An encoder takes the nearest class name. An MLLM with region tokens is asked what its `<region>` is, and the class that
its answer names first counts; an answer that names none is wrong, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data_roots import FoundSet, list_coco_files
from benchmarks.metrics.accuracy import find_nearest, score_top1
from benchmarks.metrics.intervals import Tally, find_interval
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, expect, name_dataset
from benchmarks.tasks.regions import make_recognition_examples, recognise, recognise_in_words, score_recognition
from cloc.formats.annotated import AnnotatedSet, Category
from cloc.formats.coco import read_coco

PROTOCOL, REGION_PROTOCOL = "gt-box/no-template", "gt-box/region-prompt/class-named-first"
METRICS = ("top1", "class_mean")
NO_REGIONS = (
    "this MLLM has no region tokens (no regions/ in its folder), so it cannot be asked about a box; train one with "
    "mllm_bridge.tune and regions.export"
)


def describe_needs(files: str) -> str:
    """What the task needs of COCO's `val2017` or `train2017`."""
    return f"coco/annotations/instances_{files}.json and the photos in coco/{files}/"


class RegionRecognition(Task):
    """Top-1 and class mean over ground-truth boxes of COCO val2017."""

    name = "region_recognition"
    files = "val2017"
    split = "val"
    needs = describe_needs(files)
    runs_by_default = True
    kinds = ("encoder", "mllm")

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
        check_recognition(self.name)

    def run(self, predictor: Any, dataset: AnnotatedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`. Categories that never have a box in training get rows of their own."""
        name, protocol = name_dataset(found.dataset, dataset.rendered), PROTOCOL
        if getattr(predictor, "kind", "encoder") == "mllm":
            if not getattr(predictor, "answers_regions", False):
                scores = [Score(found.split, f"{REGION_PROTOCOL}/{n}", n, reason=NO_REGIONS) for n in METRICS]
                return TaskOutput(name, dataset.rendered, scores)
            answers = recognise_in_words(predictor, dataset, options)
            protocol = f"{REGION_PROTOCOL}/asked '{predictor.region_question}'"
        else:
            answers = recognise(predictor, dataset, name_class, options)
        only = np.array([category.caption_only for category in answers.categories], dtype=bool)
        groups: dict[str, NDArray[np.bool_] | None] = {found.split: None}
        if only.any():
            groups = {
                f"{found.split}/boxed": ~only,
                f"{found.split}/caption-only": only,
                f"{found.split}/all": None,
            }
        scores = score_recognition(answers, groups, protocol, options)
        return TaskOutput(name, dataset.rendered, scores, answers.lines(), make_recognition_examples(answers))


class RegionFit(RegionRecognition):
    """The same on COCO train2017: how well a model fits what it was trained on. No evaluation; only when asked for."""

    name = "region_fit"
    files = "train2017"
    split = "train (a fit, no evaluation)"
    needs = describe_needs(files)
    runs_by_default = False


def name_class(category: Category) -> str:
    """The bare name: no template is put around it."""
    return category.name


def check_recognition(what: str) -> None:
    """Three boxes of two classes on three images, of which the last is wrong."""
    classes = np.array([0, 0, 1])
    hits = score_top1(find_nearest(np.array([[0.9, 0.1], [0.8, 0.3], [0.6, 0.5]])), classes)
    plain, by_class = Tally.of([1, 2, 3], hits), Tally.of([1, 2, 3], hits, classes)
    expect(f"{what}: top1", plain.value(), 2 / 3)
    expect(f"{what}: class_mean", by_class.value(), 0.5)
    expect(f"{what}: perfect answers", Tally.of([1, 2, 3], np.ones(3), classes).value(), 1.0)
    spread = find_interval(Tally.of(np.arange(12), np.tile([0.0, 1.0], 6), np.arange(12) % 3))
    expect(f"{what}: interval", spread is not None and spread[0] < 0.5 < spread[1], True)
