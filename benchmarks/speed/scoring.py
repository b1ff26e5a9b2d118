"""What it costs to score a results file of LVIS's size: matching and curves alone, and the whole command.

    python -m benchmarks.speed.scoring                  # minival's size: 4,809 images, 1.44 million boxes
    python -m benchmarks.speed.scoring --images 19809   # the full validation set's

Annotations and boxes are made up, with LVIS's number of categories, its long tail and its lists of absent and not
exhaustive ones. All three protocols are scored.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics.ap_resamples import make_ap_tallies
from benchmarks.metrics.intervals import find_interval
from benchmarks.metrics.lvis_ap import PROTOCOLS, LvisJudge
from benchmarks.scoring.detections import read_detections, read_truth
from benchmarks.speed.timing import Used, measure_command
from cloc.files import read_json

IMAGES, PER_IMAGE, CATEGORIES = 4809, 300, 1203
SIDE = 640
BOXES, NEGATIVES = 12, 10
"""Annotated boxes an image, and categories that are known to be absent from it."""
RIGHT = 0.3
"""Share of the answers that lie on an annotated box."""
SECONDS, COMMAND_SECONDS, GIGABYTES = 5.0, 25.0, 1.5
"""The bars at minival's size."""


def write_files(folder: Path, images: int, per_image: int, seed: int = 0) -> tuple[Path, Path]:
    """Made-up annotations and answers in the official layouts; their two files."""
    rng = np.random.default_rng(seed)
    tail = 1 / np.arange(1, CATEGORIES + 1)
    count = images * BOXES
    owner, category = rng.integers(0, images, count), rng.choice(CATEGORIES, count, p=tail / tail.sum())
    boxes = _boxes(rng, count)
    present = [set[int]() for _ in range(images)]
    for image, kind in zip(owner.tolist(), category.tolist(), strict=True):
        present[image].add(kind)
    absent = rng.integers(0, CATEGORIES, (images, NEGATIVES))
    content = {
        "images": [
            {
                "id": image + 1,
                "width": SIDE,
                "height": SIDE,
                "neg_category_ids": sorted({kind + 1 for kind in absent[image].tolist()} - {k + 1 for k in own}),
                "not_exhaustive_category_ids": sorted(k + 1 for k in own if k % 10 == 0),
            }
            for image, own in enumerate(present)
        ],
        "categories": [{"id": k + 1, "name": f"name {k}", "frequency": "rcf"[k % 3]} for k in range(CATEGORIES)],
        "annotations": [
            {"id": row + 1, "image_id": image + 1, "category_id": kind + 1, "bbox": box, "area": box[2] * box[3]}
            for row, (image, kind, box) in enumerate(
                zip(owner.tolist(), category.tolist(), boxes.tolist(), strict=True)
            )
        ],
    }
    truth, answers = folder / "annotations.json", folder / "predictions.json"
    truth.write_text(json.dumps(content), encoding="utf-8")
    answers.write_text(json.dumps(_answers(rng, images * per_image, images, owner, category, boxes)), encoding="utf-8")
    return truth, answers


def _boxes(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """(count, 4) xywh pixels inside the image."""
    corners, sides = rng.uniform(0, SIDE * 0.6, (count, 2)), np.exp(rng.uniform(np.log(8), np.log(250), (count, 2)))
    return np.round(np.concatenate([corners, sides], axis=1), 2)


def _answers(
    rng: np.random.Generator, count: int, images: int, owner: NDArray, category: NDArray, boxes: NDArray
) -> list[dict[str, Any]]:
    """COCO results: some lie about on annotated boxes, the others anywhere."""
    source = rng.integers(0, len(owner), count)
    right = rng.random(count) < RIGHT
    image = np.where(right, owner[source], rng.integers(0, images, count))
    kind = np.where(right, category[source], rng.integers(0, CATEGORIES, count))
    near = np.abs(boxes[source] * rng.normal(1, 0.08, (count, 4)))
    box = np.round(np.where(right[:, None], near, _boxes(rng, count)), 2)
    rows = zip(image.tolist(), kind.tolist(), box.tolist(), np.round(rng.random(count), 6).tolist(), strict=True)
    return [{"image_id": i + 1, "category_id": k + 1, "bbox": b, "score": s} for i, k, b, s in rows]


def time_arrays(truth_file: Path, answers_file: Path) -> tuple[float, float]:
    """From arrays to the figures of all protocols, and from there to their intervals."""
    truth = read_truth(read_json(truth_file))
    detections, *_ = read_detections(read_json(answers_file), truth)
    start = time.perf_counter()
    judge, every = LvisJudge(truth, detections), np.ones(CATEGORIES, dtype=bool)
    found = [judge.curves(protocol) for protocol in PROTOCOLS]
    figures = [curves.figures(every) for curves in found]
    between = time.perf_counter()
    for curves, own in zip(found, figures, strict=True):
        for tally in make_ap_tallies(own, curves.resamples(), every, truth.frequencies).values():
            find_interval(tally)
    return between - start, time.perf_counter() - between


def format_lines(images: int, per_image: int, arrays: float, intervals: float, command: Used) -> list[str]:
    """The cost for the screen, each figure beside minival's bar."""
    return [
        f"set               {images:,} images, {images * per_image:,} boxes, {CATEGORIES:,} categories, made up",
        f"arrays to figures {arrays:.2f} s for {len(PROTOCOLS)} protocols (minival's bar: {SECONDS:.0f} s)",
        f"their intervals   {intervals:.1f} s, where a model is asked; with --intervals for a file",
        f"whole command     {command.seconds:.1f} s, {command.busy_seconds:.1f} s of processor time "
        f"(minival's bar: {COMMAND_SECONDS:.0f} s)",
        f"its peak          {command.peak_bytes / 1e9:.2f} GB (minival's bar: {GIGABYTES} GB)",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 1 where minival's size misses a bar."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.scoring",
        description="Score a made-up results file of LVIS's size under all three protocols, and measure matching and "
        "curves alone, the whole command with reading the JSON, and its memory.",
    )
    parser.add_argument("--images", type=int, default=IMAGES, metavar="N", help="images (default: minival's, 4,809)")
    parser.add_argument("--boxes", type=int, default=PER_IMAGE, metavar="N", help="boxes an image (default: 300)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="scoring-speed-") as work:
        truth, answers = write_files(Path(work), asked.images, asked.boxes)
        words = ["--predictions", str(answers), "--annotations", str(truth), "--out", str(Path(work) / "out")]
        command = measure_command(["-m", "benchmarks.run", *words])
        arrays, intervals = time_arrays(truth, answers)
    print("\n".join(format_lines(asked.images, asked.boxes, arrays, intervals, command)))
    minival = (asked.images, asked.boxes) == (IMAGES, PER_IMAGE)
    missed = arrays > SECONDS or command.seconds > COMMAND_SECONDS or command.peak_bytes > GIGABYTES * 1e9
    return int(minival and missed)


if __name__ == "__main__":
    sys.exit(main())
