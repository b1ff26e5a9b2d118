"""What can be measured in seconds and memory: `speed`, `detection_speed`, and each of their parts by a name of its own.

Costs, not accuracy: no data set, no chance. They run only when asked for by name (`run.py speed`, `speed_step`), and
what is compared is timed in turn in one run, so that a busy machine hits both.

`speed_rendering`: scenes a second. `speed_encoding`: 100 boxes beside the image alone, with the model given.
`speed_regions`: the same with a ViT-B/16, and beside one encoding a box. `speed_step`: a training step beside the one
without regions and beside open_clip's. `speed_loader`: our loader beside open_clip's. `speed_contrast`: the region
contrast in tiles beside the whole matrix. `speed_conversion`: `cloc.convert coco` beside `tarfile`.
`speed_conversion_memory`: its peak memory on an annotation file and on one of half its length.

`detection_speed_inference`: one photo of 800 x 1333 pixels, 1,203 names, to 300 boxes, beside two public detectors.
`detection_speed_memory`, `detection_speed_alignment`: the memory of many names, at inference and in the alignment
loss. `detection_speed_training`: training images a second. `--limit N`: so many repeats instead of 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from benchmarks.predictors.contract import Predictor
from benchmarks.speed import detection_models as made
from benchmarks.speed.contrast import measure_contrast
from benchmarks.speed.conversion import measure_conversion
from benchmarks.speed.conversion_memory import measure_memory
from benchmarks.speed.detection import find_ratios, measure_inference
from benchmarks.speed.detection_memory import measure_memory as measure_detection_memory
from benchmarks.speed.loader import measure_loader
from benchmarks.speed.regions import measure_regions
from benchmarks.speed.step import measure_step
from benchmarks.speed.timing import find_ratio, make_cost_scores, take_in_turn, time_call
from benchmarks.tasks.contract import Score, expect
from cloc.scenes import WorldSpec, render_scene

SCENE_SIZE = 224
SCENES = 300
WARM_UP_SCENES = 20
BOXES = 100
REPEATS = 15
DETECTION_REPEATS = 3


@dataclass(frozen=True)
class Part:
    """One thing that is measured.

    Attributes:
        name: behind that of its measurement.
        split, dataset: of its rows.
        measure: from a predictor (None where no model is needed), the split and `--limit` to scores.
        needs_model: False where the figure does not depend on a model and is measured once.
    """

    name: str
    split: str
    dataset: str
    measure: Callable[[Predictor | None, str, int | None], list[Score]]
    needs_model: bool = False


@dataclass(frozen=True)
class SpeedMeasurement:
    """Some parts under one name.

    Attributes:
        name: on the command line and in the rows.
        needs: what it takes, for `--list`.
        parts: in their order, the quick ones first.
        self_check: raises RuntimeError where the arithmetic does not give what it must.
    """

    name: str
    needs: str
    parts: tuple[Part, ...]
    self_check: Callable[[], None]


def render_scenes(predictor: Predictor | None, split: str, limit: int | None) -> list[Score]:
    """Scenes with their boxes, names, captions and expressions, in this process, without encoding a JPEG."""
    world = WorldSpec()
    for index in range(WARM_UP_SCENES):
        render_scene(world, index, "val", SCENE_SIZE)
    seconds = time_call(lambda: [render_scene(world, index, "val", SCENE_SIZE) for index in range(SCENES)])
    return make_cost_scores(split, "one-process/no-jpeg", {"scenes_per_second": SCENES / seconds}, SCENES)


def encode_boxes(predictor: Predictor | None, split: str, limit: int | None) -> list[Score]:
    """One image with 100 boxes, beside the same image encoded as a whole without any."""
    assert predictor is not None
    image: Image.Image = render_scene(WorldSpec(), 0, "val", SCENE_SIZE).image
    corners = np.random.default_rng(0).uniform(0, SCENE_SIZE / 2, (BOXES, 2))
    boxes = np.concatenate([corners, corners + SCENE_SIZE / 4], axis=1)
    works = {
        "alone": lambda: time_call(lambda: predictor.encode_images([image])),
        "many": lambda: time_call(lambda: predictor.encode_regions([image], [boxes])),
    }
    seconds = take_in_turn(works, REPEATS)
    protocol = f"{BOXES}-boxes/median-of-{REPEATS}-pairs/with-preprocessing"
    figures = {
        "regions_per_second": BOXES / float(np.median(seconds["many"])),
        "seconds_over_image_alone": find_ratio(seconds["many"], seconds["alone"]),
    }
    return make_cost_scores(split, protocol, figures, REPEATS)


def load_and_measure_alignment(predictor: Predictor | None, split: str, limit: int | None) -> list[Score]:
    """Memory and seconds of the alignment loss, which is loaded for it."""
    from benchmarks.speed.alignment import measure_alignment

    return measure_alignment(split, limit or DETECTION_REPEATS)


def load_and_measure_training(predictor: Predictor | None, split: str, limit: int | None) -> list[Score]:
    """Training images a second, by the planner and the engine, which are loaded for it."""
    from benchmarks.speed.detection_training import measure_training

    return measure_training(split, limit or DETECTION_REPEATS)


PARTS = (
    Part("rendering", f"{SCENE_SIZE}px", "scenes", render_scenes),
    Part("encoding", f"{SCENE_SIZE}px-scene", "scenes", encode_boxes, needs_model=True),
    Part("regions", "vit-b16", "made-up-images", lambda predictor, split, limit: measure_regions(split)),
    Part("step", "vit-b16", "made-up-samples", lambda predictor, split, limit: measure_step(split)),
    Part("loader", f"{SCENE_SIZE}px", "scenes", lambda predictor, split, limit: measure_loader(split)),
    Part("conversion", "coco-layout", "made-up-photos", lambda predictor, split, limit: measure_conversion(split)),
    Part("conversion_memory", "coco-layout", "made-up-photos", lambda predictor, split, limit: measure_memory(split)),
    Part("contrast", "made-up-regions", "made-up-regions", lambda predictor, split, limit: measure_contrast(split)),
)
DETECTION_PARTS = (
    Part(
        "inference",
        f"swin-t/{made.SHORT}x{made.LONG}/{made.NUM_NAMES}-names",
        "made-up-photos",
        lambda predictor, split, limit: measure_inference(split, limit or DETECTION_REPEATS),
    ),
    Part(
        "memory",
        f"{made.SHORT}x{made.LONG}",
        "made-up-photos",
        lambda predictor, split, limit: measure_detection_memory(split, limit or DETECTION_REPEATS),
    ),
    Part("alignment", "focal-alignment", "made-up-photos", load_and_measure_alignment),
    Part("training", "swin-t", "made-up-photos", load_and_measure_training),
)


def _check_ratio() -> None:
    expect("speed: ratio", find_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]), 2.0)


def _check_detection() -> None:
    expect("detection_speed: different names", len(set(made.make_names())), made.NUM_NAMES)
    expect("detection_speed: ratios", find_ratios("b", {"a": [2.0, 4.0], "b": [1.0, 2.0]}), {"a": 2.0})


def _with_parts(
    name: str, needs: str, parts: tuple[Part, ...], check: Callable[[], None]
) -> tuple[SpeedMeasurement, ...]:
    """The whole, and each part by its own name."""
    whole = SpeedMeasurement(name, needs, parts, check)
    return whole, *(SpeedMeasurement(f"{name}_{part.name}", needs, (part,), check) for part in parts)


MEASUREMENTS = (
    *_with_parts("speed", "nothing: it renders or makes up what it reads", PARTS, _check_ratio),
    *_with_parts(
        "detection_speed",
        "nothing: it makes its models and a photo; 3 GB of disk for a while",
        DETECTION_PARTS,
        _check_detection,
    ),
)
