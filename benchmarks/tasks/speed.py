"""`speed`: scenes rendered a second, what 100 boxes cost beside the image alone, and what the region contrast costs in
tiles beside the whole matrix. Only when asked for by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.predictors.contract import Predictor
from benchmarks.roots import FoundSet
from benchmarks.tasks.contract import Measured, Options, Score, expect
from benchmarks.tasks.contrast_cost import contrast_scores
from cloc.data.scenes import WorldSpec, render_scene

SCENE_SIZE = 224
SCENES = 300
WARM_UP_SCENES = 20
BOXES = 100
REPEATS = 15


class Speed:
    """Seconds, not accuracy. Encoding is timed in pairs, side by side in one run, so that a busy machine hits both."""

    name = "speed"
    needs = "nothing: it renders its own scenes"
    bare = False

    def places(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.places`."""
        return []

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`. The renderer's speed does not depend on the model, so it is measured once."""
        return [
            FoundSet("rendering", f"{SCENE_SIZE}px", Path(), WorldSpec, needs_model=False),
            FoundSet("contrast", "made-up-regions", Path(), WorldSpec, needs_model=False),
            FoundSet("encoding", f"{SCENE_SIZE}px-scene", Path(), WorldSpec),
        ]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        expect("speed: ratio", ratio_of([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]), 2.0)

    def run(self, predictor: Predictor | None, dataset: WorldSpec, found: FoundSet, options: Options) -> Measured:
        """See `Task.run`."""
        if found.dataset == "contrast":
            return Measured("made-up-regions", True, contrast_scores(found.split))
        if found.needs_model:
            return Measured("scenes", True, encoding_scores(predictor, dataset, found.split))
        return Measured("scenes", True, [scenes_a_second(dataset, found.split)])


def scenes_a_second(world: WorldSpec, split: str) -> Score:
    """Scenes with their boxes, names, captions and expressions, in this process, without encoding a JPEG."""
    for index in range(WARM_UP_SCENES):
        render_scene(world, index, "val", SCENE_SIZE)
    seconds = _seconds(lambda: [render_scene(world, index, "val", SCENE_SIZE) for index in range(SCENES)])
    return Score(split, "one-process/no-jpeg", "scenes_per_second", value=SCENES / seconds, num_examples=SCENES)


def encoding_scores(predictor: Predictor, world: WorldSpec, split: str) -> list[Score]:
    """One image with 100 boxes, beside the same image encoded as a whole without any."""
    image: Image.Image = render_scene(world, 0, "val", SCENE_SIZE).image
    corners = np.random.default_rng(0).uniform(0, SCENE_SIZE / 2, (BOXES, 2))
    boxes = np.concatenate([corners, corners + SCENE_SIZE / 4], axis=1)
    many, alone = [], []
    for _ in range(REPEATS + 1):
        alone.append(_seconds(lambda: predictor.encode_images([image])))
        many.append(_seconds(lambda: predictor.encode_regions([image], [boxes])))
    many, alone = many[1:], alone[1:]  # the first pair warms up
    protocol = f"{BOXES}-boxes/median-of-{REPEATS}-pairs/with-preprocessing"
    return [
        Score(split, protocol, "regions_per_second", value=BOXES / median(many), num_examples=REPEATS),
        Score(split, protocol, "seconds_over_image_alone", value=ratio_of(many, alone), num_examples=REPEATS),
    ]


def ratio_of(slow: Sequence[float], quick: Sequence[float]) -> float:
    """Median of the ratios of pairs."""
    return median(a / b for a, b in zip(slow, quick, strict=True))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
