"""`speed`: what things cost, in seconds and memory. Only when asked for by name; each part has a name of its own.

`speed_rendering`: scenes a second. `speed_encoding`: 100 boxes beside the image alone, with the model given.
`speed_regions`: the same with a ViT-B/16, and beside one encoding a box. `speed_step`: a training step beside the one
without regions and beside open_clip's. `speed_loader`: our loader beside open_clip's. `speed_contrast`: the region
contrast in tiles beside the whole matrix. `speed_conversion`: `cloc.convert coco` beside `tarfile`.
`speed_conversion_memory`: its peak memory on an annotation file and on one of half its length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.data_roots import FoundSet
from benchmarks.predictors.contract import Predictor
from benchmarks.speed.contrast import contrast_scores
from benchmarks.speed.conversion import conversion_scores
from benchmarks.speed.conversion_memory import memory_scores
from benchmarks.speed.loader import loader_scores
from benchmarks.speed.regions import region_scores
from benchmarks.speed.step import step_scores
from benchmarks.speed.timing import in_turn, ratio_of, seconds_of
from benchmarks.tasks.contract import COST, Measured, Options, Score, Task, expect
from cloc.scenes import WorldSpec, render_scene

SCENE_SIZE = 224
SCENES = 300
WARM_UP_SCENES = 20
BOXES = 100
REPEATS = 15

PARTS: dict[str, tuple[str, str, bool]] = {
    "rendering": (f"{SCENE_SIZE}px", "scenes", False),
    "encoding": (f"{SCENE_SIZE}px-scene", "scenes", True),
    "regions": ("vit-b16", "made-up-images", False),
    "step": ("vit-b16", "made-up-samples", False),
    "loader": (f"{SCENE_SIZE}px", "scenes", False),
    "conversion": ("coco-layout", "made-up-photos", False),
    "conversion_memory": ("coco-layout", "made-up-photos", False),
    "contrast": ("made-up-regions", "made-up-regions", False),
}
"""By name: the split, the data set of the rows, and whether it needs a model. The quick ones first."""


class Speed(Task):
    """Seconds, not accuracy. What is compared is timed in turn in one run, so that a busy machine hits both.

    Args:
        part: one of `PARTS`; None for all of them.
    """

    needs = "nothing: it renders or makes up what it reads"
    bare = False
    timed = True

    def __init__(self, part: str | None = None) -> None:
        self.name = "speed" if part is None else f"speed_{part}"
        self.parts = tuple(PARTS) if part is None else (part,)

    def places(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.places`."""
        return []

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`. What does not depend on the model is measured once."""
        return [FoundSet(part, PARTS[part][0], Path(), WorldSpec, needs_model=PARTS[part][2]) for part in self.parts]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        expect("speed: ratio", ratio_of([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]), 2.0)

    def run(self, predictor: Predictor | None, dataset: WorldSpec, found: FoundSet, options: Options) -> Measured:
        """See `Task.run`."""
        split, measured, _ = PARTS[found.dataset]
        if found.dataset == "encoding":
            return Measured(measured, True, encoding_scores(predictor, dataset, split))
        if found.dataset == "rendering":
            return Measured(measured, True, [scenes_a_second(dataset, split)])
        alone: dict[str, Callable[[str], list[Score]]] = {
            "regions": region_scores,
            "step": step_scores,
            "loader": loader_scores,
            "conversion": conversion_scores,
            "conversion_memory": memory_scores,
            "contrast": contrast_scores,
        }
        return Measured(measured, True, alone[found.dataset](split))


def scenes_a_second(world: WorldSpec, split: str) -> Score:
    """Scenes with their boxes, names, captions and expressions, in this process, without encoding a JPEG."""
    for index in range(WARM_UP_SCENES):
        render_scene(world, index, "val", SCENE_SIZE)
    seconds = seconds_of(lambda: [render_scene(world, index, "val", SCENE_SIZE) for index in range(SCENES)])
    return Score(
        split, "one-process/no-jpeg", "scenes_per_second", value=SCENES / seconds, num_examples=SCENES, no_constant=COST
    )


def encoding_scores(predictor: Predictor, world: WorldSpec, split: str) -> list[Score]:
    """One image with 100 boxes, beside the same image encoded as a whole without any."""
    image: Image.Image = render_scene(world, 0, "val", SCENE_SIZE).image
    corners = np.random.default_rng(0).uniform(0, SCENE_SIZE / 2, (BOXES, 2))
    boxes = np.concatenate([corners, corners + SCENE_SIZE / 4], axis=1)
    works = {
        "alone": lambda: seconds_of(lambda: predictor.encode_images([image])),
        "many": lambda: seconds_of(lambda: predictor.encode_regions([image], [boxes])),
    }
    seconds = in_turn(works, REPEATS)
    protocol = f"{BOXES}-boxes/median-of-{REPEATS}-pairs/with-preprocessing"
    rate, ratio = BOXES / float(np.median(seconds["many"])), ratio_of(seconds["many"], seconds["alone"])
    return [
        Score(split, protocol, "regions_per_second", value=rate, num_examples=REPEATS, no_constant=COST),
        Score(split, protocol, "seconds_over_image_alone", value=ratio, num_examples=REPEATS, no_constant=COST),
    ]
