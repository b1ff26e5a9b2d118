"""What a world of scenes is: its parameters, its categories, and the random numbers of each scene."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cloc.data.scenes.sprites import sprite_set

RENDERER = 2
"""Raised when equal parameters give other scenes than before, so that an older world is not taken for a new one."""

SPLITS = ("train", "val", "refcoco")
"""Each has random numbers of its own, so that no evaluation scene is a training scene. Their order matters."""


@dataclass(frozen=True)
class WorldSpec:
    """Parameters of a rendered world; equal ones give equal files.

    Attributes:
        seed: start of all random numbers.
        train, val, refcoco: how many scenes of each split are written.
        size: side of the square scenes in pixels.
        shard_size: scenes a training shard.
        sprites: name of the sprite set.
        caption_only: how many categories never have a box in training and occur in captions only.
        min_objects, max_objects: objects a scene.
        min_side, max_side: longer side of an object's box, as a share of the scene's side.
        twin_share: share of the scenes made with two objects of one category (chance adds some).
        expression_share: share of the objects with a true relational expression that get it as a further region.
        tail: 0 for equally frequent categories, 1 for frequencies like 1, 1/2, 1/3, ...
        quality: of the JPEGs, 1 to 95.
    """

    seed: int = 0
    train: int = 40_000
    val: int = 600
    refcoco: int = 600
    size: int = 96
    shard_size: int = 2_000
    sprites: str = "shapes"
    caption_only: int = 4
    min_objects: int = 2
    max_objects: int = 5
    min_side: float = 0.15
    max_side: float = 0.60
    twin_share: float = 0.35
    expression_share: float = 0.25
    tail: float = 0.0
    quality: int = 90

    def __post_init__(self) -> None:
        kinds = len(sprite_set(self.sprites))
        rules = {
            "seed": (self.seed >= 0, "0 or more"),
            "train": (self.train >= 1, "at least 1 scene"),
            "val": (self.val >= 1, "at least 1 scene"),
            "refcoco": (self.refcoco >= 1, "at least 1 scene"),
            "size": (32 <= self.size <= 2048, "32 to 2048 pixels"),
            "shard_size": (self.shard_size >= 1, "at least 1 scene"),
            "caption_only": (0 <= self.caption_only < kinds, f"0 to {kinds - 1}"),
            "min_objects": (1 <= self.min_objects <= self.max_objects, "1 to max_objects"),
            "max_objects": (self.max_objects <= 8, "at most 8, more do not fit with little overlap"),
            "min_side": (0.1 <= self.min_side <= self.max_side, "0.1 to max_side"),
            "max_side": (self.max_side <= 0.8, "at most 0.8"),
            "twin_share": (0.0 <= self.twin_share <= 1.0, "0 to 1"),
            "expression_share": (0.0 <= self.expression_share <= 1.0, "0 to 1"),
            "tail": (0.0 <= self.tail <= 3.0, "0 to 3"),
            "quality": (1 <= self.quality <= 95, "1 to 95"),
        }
        for name, (fine, expected) in rules.items():
            if not fine:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def made(self) -> dict[str, Any]:
        """What a card says about how the world was made."""
        return {"by": "cloc.data.scenes", "renderer": RENDERER, **asdict(self)}


@dataclass(frozen=True)
class SceneCategory:
    """One kind of object: id from 1, name, definition, and whether it never has a box in training."""

    id: int
    name: str
    definition: str
    caption_only: bool


@lru_cache(maxsize=16)
def categories(sprites: str = "shapes", caption_only: int = 4) -> tuple[SceneCategory, ...]:
    """The categories of a world. Caption-only ones are spread, so that each colour and shape also occurs with boxes."""
    everything = sprite_set(sprites)
    step = len(everything) // max(caption_only, 1)
    # one in each stretch of the list, a place further each time: another colour and another shape
    held_out = {number * step + (5 * number + 1) % step for number in range(caption_only)}
    return tuple(
        SceneCategory(index + 1, sprite.name, sprite.definition, index in held_out)
        for index, sprite in enumerate(everything)
    )


@lru_cache(maxsize=16)
def category_odds(sprites: str, tail: float) -> np.ndarray:
    """(C,) cumulated odds of the categories, ending at 1; the frequent ones are spread over the list."""
    count = len(sprite_set(sprites))
    rank = np.random.default_rng(count).permutation(count)
    weights = 1.0 / (1.0 + rank) ** tail
    return np.cumsum(weights) / weights.sum()


def scene_rng(spec: WorldSpec, split: str, index: int) -> np.random.Generator:
    """The random numbers of one scene: a pure function of (seed, split, index).

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return np.random.default_rng((spec.seed, SPLITS.index(split), index))
