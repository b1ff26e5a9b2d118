"""`lvis`: detection where the model has heads, else region recognition on LVIS files, by frequency of the category.

The protocol says which: ids that begin with `regions/` are no detection figures. Detection is scored under all three
protocols of LVIS at once; `tasks/detection.py` says what a detector is asked. An encoder is asked for names with
underscores turned into blanks, nothing else. Frequencies are LVIS's own: r, c and f by the number of training images.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data_roots import FoundSet
from benchmarks.metrics import lvis_ap
from benchmarks.predictors.detector import DetectorPredictor
from benchmarks.report.charts import FREQUENCIES, group_by_frequency, make_precision_chart
from benchmarks.tasks.contract import Options, Score, Task, TaskOutput, name_dataset
from benchmarks.tasks.detection import (
    check_detection,
    detect_all,
    group_categories,
    make_examples,
    report_nothing,
    score_lvis_protocols,
)
from benchmarks.tasks.region_recognition import check_recognition
from benchmarks.tasks.regions import make_recognition_examples, recognise, score_recognition
from cloc.formats.annotated import AnnotatedSet, Category
from cloc.formats.lvis import read_lvis

PROTOCOL = "regions/gt-box/no-template/underscores-as-blanks"

FILES = (
    ("lvis", "val", "lvis_v1_val.json"),
    ("lvis", "minival", "lvis_v1_minival.json"),
    ("lvis", "minival", "lvis_v1_minival_inserted_image_name.json"),
    ("lvis-v0.5-mini", "val", "lvis_v0.5_val_mini.json"),
    ("lvis-v1-style-mini", "val", "lvis_v1_style_from_coco_val.json"),
)
"""Data set, split and file name. The sample files are no LVIS v1 and never carry its name."""


class Lvis(Task):
    """LVIS by frequency group."""

    name = "lvis"
    needs = "lvis/lvis_v1_val.json or lvis_v1_minival.json, and the photos in coco/val2017/ and coco/train2017/"
    runs_by_default = True
    kinds = ("encoder", "detector")

    def list_locations(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.list_locations`."""
        return [root / "lvis" / name for root in roots for _, _, name in FILES]

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        found = list[FoundSet]()
        for root in roots:
            photos = [root / "coco" / "val2017", root / "coco" / "train2017"]
            here: dict[tuple[str, str], FoundSet] = {}  # minival is known by two file names
            for dataset, split, name in FILES:
                file = root / "lvis" / name
                if file.is_file():
                    load = partial(read_lvis, file, photos, dataset)
                    here.setdefault((dataset, split), FoundSet(dataset, split, file, load))
            found += here.values()
        return found

    def self_check(self) -> None:
        """See `Task.self_check`."""
        check_recognition(self.name)
        check_detection(self.name)

    def run(self, predictor: Any, dataset: AnnotatedSet, found: FoundSet, options: Options) -> TaskOutput:
        """See `Task.run`."""
        if getattr(predictor, "kind", "encoder") == "detector":
            return measure_detection(predictor, dataset, found, options)
        answers = recognise(predictor, dataset, speak_name, options)
        frequency = np.array([category.frequency or "" for category in answers.categories])
        groups = {f"{found.split}/all": None, **{f"{found.split}/{kind}": frequency == kind for kind in FREQUENCIES}}
        scores = score_recognition(answers, groups, PROTOCOL, options)
        scores.append(
            Score(found.split, "lvis-ap300", "AP", reason="no detection heads: region recognition is reported instead")
        )
        name, examples = name_dataset(found.dataset, dataset.rendered), make_recognition_examples(answers)
        return TaskOutput(name, dataset.rendered, scores, answers.lines(), examples)


def measure_detection(
    predictor: DetectorPredictor, dataset: AnnotatedSet, found: FoundSet, options: Options
) -> TaskOutput:
    """AP under the three protocols, and class-agnostic recall by size."""
    detected = detect_all(predictor, dataset, options)
    name = name_dataset(found.dataset, dataset.rendered)
    if not detected.images:
        scores = report_nothing(dict.fromkeys(lvis_ap.PROTOCOLS, ("AP",)), found.split, detected)
        return TaskOutput(name, dataset.rendered, scores)
    groups = group_categories(detected, found.split)
    scores, curves = score_lvis_protocols(detected, groups, options)
    frequency = np.array([category.frequency or "" for category in detected.categories])
    lines = group_by_frequency(frequency)
    lines |= {split.partition("/")[2] or "all": chosen for split, chosen in groups.items()}
    chart = make_precision_chart(
        f"{name} {found.split}, {predictor.name}: precision over recall, IoU 0.5", curves, lines
    )
    examples = make_examples(detected)
    return TaskOutput(name, dataset.rendered, scores, detected.results, examples, (chart,), as_list=True)


def speak_name(category: Category) -> str:
    """`fire_extinguisher` as one would write it."""
    return category.name.replace("_", " ")
