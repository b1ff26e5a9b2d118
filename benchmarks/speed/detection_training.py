"""Training images a second of a detector: pairs at 320 pixels beside detection at 1333 x 800 (DetCLIPv2 4.2).

`configs/detclipv2_swin_t.yaml` with one model for both kinds; forward, losses and backward on made-up photos of one
size, in turn. The optimiser is left out, which costs a step of either kind the same, and so is the loader, which the
task `speed` measures. Processor seconds stand beside the wall clock, which a busy machine stretches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any, cast

from benchmarks.speed.timing import COST, describe_threads, find_ratio
from benchmarks.tasks.contract import Score
from cloc.config import load_config
from cloc.device import find_device
from cloc.plan.batch_shapes import ConceptShapes
from cloc.plan.synthetic_batch import made_up_concepts
from cloc.plan.timed_step import Trial, finish
from cloc.structures.batches import ConceptBatch

RECIPE = "configs/detclipv2_swin_t.yaml"
OVERRIDES: tuple[str, ...] = ("model.vision.source=null", "model.text.source=null")
"""Further fields of the recipe: its towers' shapes without their weights, which cost the same and need no hub."""
CANVAS = 1344, 800
"""A photo of 1333 x 800 on its canvas, whose sides are multiples of 32 pixels."""
PAIRS_SIDE, PAIRS_IMAGES = 320, 8
"""So many pairs that what a step costs once does not count."""
CONCEPTS, BOXES, WORDS, TOKENS = 150, 15, 4, 16
"""Names of the detection image (the paper's M) and its boxes (Objects365's mean); texts of a pair; tokens of each."""


@dataclass(frozen=True, slots=True)
class PassSeconds:
    """Forward, losses and backward of one batch: wall clock, and seconds of the processor."""

    wall: float
    processor: float


def measure_training(split: str, repeats: int) -> list[Score]:
    """Images a second of each kind, and pairs over detection by both clocks."""
    images, works = make_works()
    works["warm"]()  # one small batch: allocators and kernels, not the minutes of a whole round
    found: dict[str, list[PassSeconds]] = {"detection": [], "pairs": []}
    for number in range(repeats):
        for kind in sorted(found, reverse=bool(number % 2)):
            found[kind].append(works[kind]())
    return make_scores(split, found, images, describe_precision())


def describe_precision() -> str:
    """Device and precision, for the protocol."""
    return "bf16/cuda" if find_device() == "cuda" else "fp32/cpu"


def make_works() -> tuple[dict[str, int], dict[str, Callable[[], PassSeconds]]]:
    """Images of a batch of each kind, and what takes its passes; `warm` is a small one of pairs."""
    precision, device = describe_precision().split("/")
    width, height = CANVAS
    shapes = {
        "detection": ConceptShapes("detection", 1, width, height, CONCEPTS, TOKENS, BOXES),
        "pairs": ConceptShapes("pairs", PAIRS_IMAGES, PAIRS_SIDE, PAIRS_SIDE, WORDS * PAIRS_IMAGES, TOKENS, 0),
        "warm": ConceptShapes("pairs", 2, 64, 64, 4, TOKENS, 0),
    }
    config = load_config(RECIPE, [f"run.device={device}", f"run.precision={precision}", *OVERRIDES])
    first = Trial.start(config, shapes["warm"])
    assert isinstance(first.batch, ConceptBatch)
    eos = int(first.batch.concept_ids[0, -1])
    trials = {
        kind: replace(first, batch=made_up_concepts(shape, eos).to(first.stepper.device))
        for kind, shape in shapes.items()
    }
    return {kind: shape.images for kind, shape in shapes.items()}, {
        kind: partial(time_passes, trial) for kind, trial in trials.items()
    }


def time_passes(trial: Trial) -> PassSeconds:
    """Forward, losses and backward; the weights stay and the gradients go."""
    wall, processor = time.perf_counter(), time.process_time()
    _, share = trial.losses(cast(Any, trial.batch), 0)
    trial.stepper.backward(share)
    finish(trial.stepper.device)
    seconds = PassSeconds(time.perf_counter() - wall, time.process_time() - processor)
    cast(Any, trial.stepper).model.zero_grad(set_to_none=True)
    return seconds


def make_scores(
    split: str, found: Mapping[str, Sequence[PassSeconds]], images: Mapping[str, int], precision: str
) -> list[Score]:
    """Medians as images a second, and the median over the rounds of pairs over detection."""
    repeats = len(found["pairs"])
    width, height = CANVAS
    sizes = {
        "detection": f"detection-{width}x{height}-batch-{images['detection']}-{CONCEPTS}-names-{BOXES}-boxes",
        "pairs": f"pairs-{PAIRS_SIDE}-batch-{images['pairs']}-{WORDS}-texts-each",
    }
    conditions = f"forward-losses-backward/{precision}/median-of-{repeats}-in-turn/{describe_threads()}"
    rows = []
    for clock, ending in (("wall", ""), ("processor", "_processor")):
        each = {kind: [getattr(one, clock) / images[kind] for one in passes] for kind, passes in found.items()}
        figures = {
            f"{kind}_images_per_second{ending}": (f"{sizes[kind]}/{conditions}", 1 / median(seconds))
            for kind, seconds in each.items()
        }
        both = f"{sizes['pairs']}/{sizes['detection']}/{conditions}"
        figures[f"pairs_over_detection{ending}"] = (both, find_ratio(each["detection"], each["pairs"]))
        rows += [
            Score(split, protocol, name, value=value, num_examples=repeats, no_constant=COST)
            for name, (protocol, value) in figures.items()
        ]
    return rows
