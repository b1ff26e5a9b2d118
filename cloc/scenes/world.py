"""What a world of scenes is: its parameters, its categories, the random numbers of each scene, and its presets."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from cloc.scenes.categories import CategorySet, SceneCategory, make_category_set
from cloc.scenes.sprites import find_font, hash_font

RENDERER = 2
"""Raised when equal parameters give other scenes than before, so that an older world is not taken for a new one."""

SPLITS = ("train", "val", "refcoco", "detection", "grounding", "pairs", "llava", "single")
"""Each has random numbers of its own, so that no evaluation scene is a training scene. Their order matters."""

COORDINATES = ("unit", "thousand", "bins")

_FIRST_FIELDS = 16
"""So many fields the first version had. A later one is left out of a card while it has its default: the worlds of the
first version stay what they are."""


@dataclass(frozen=True)
class WorldSpec:
    """Parameters of a rendered world; equal ones give equal files.

    Attributes:
        seed: start of all random numbers.
        train, val, refcoco: how many scenes of each split are written.
        size: side of the square scenes in pixels.
        shard_size: scenes a training shard.
        sprites: name of the sprite set, `shapes` or `emoji` (needs the font).
        caption_only: how many categories never have a box in training and occur in captions only.
        min_objects, max_objects: objects a scene.
        min_side, max_side: longer side of an object's box, as a share of the scene's side.
        twin_share: share of the scenes made with two objects of one category (chance adds some).
        expression_share: share of the objects with a true relational expression that get it as a further region.
        tail: Zipf's exponent: 0 for equally frequent categories, 1 for frequencies like 1, 1/2, 1/3, ...
        quality: of the JPEGs, 1 to 95.
        num_categories: how many categories there are, None for all of the sprite set.
        names: `descriptive`, or `coined` (a made-up word for each category).
        caption_only_words: `shared`, or `disjoint` (caption-only names share no word with any other name).
        background: `plain` (soft clouds) or `textured` (stripes, checks, dots and weaves over them).
        rotation: objects are turned by up to so many degrees to either side.
        tint: by how much of 255 an object's colours are shifted, up or down.
        max_iou: largest IoU of two boxes.
        max_covered: largest share of a box that another one covers.
        frequency_rule: `lvis` (up to 10 training images rare, up to 100 common) or `shares` (LVIS v1's shares of its
            categories by rank, for worlds that are small: 28 % rare, 38 % common, the others frequent).
        detection, grounding, pairs: training scenes in folders of their own: boxes with categories and no caption;
            captions with boxes for their phrases; captions alone.
        caption_only_in_detection: whether detection and grounding scenes show objects of caption-only categories,
            which have no box there.
        shuffle_captions: write `pairs-shuffled` too, the same images with the captions of other ones.
        conversations: scenes with conversations in LLaVA's layout; where there are some, `val` gets questions too.
        questions: most referring questions of a training conversation, and most grounding questions.
        coordinates: how these write places: `unit` (0 to 1), `thousand` (0 to 1000) or `bins` (0 to bins - 1).
        bins: how many bins a side.
        single: images of one object each, in class folders; None for as many as `val`.
        masks: whether the regions of training scenes carry the pixels that show their object.
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
    num_categories: int | None = None
    names: str = "descriptive"
    caption_only_words: str = "shared"
    background: str = "plain"
    rotation: float = 12.0
    tint: int = 22
    max_iou: float = 0.05
    max_covered: float = 0.10
    frequency_rule: str = "lvis"
    detection: int = 0
    grounding: int = 0
    pairs: int = 0
    caption_only_in_detection: bool = True
    shuffle_captions: bool = False
    conversations: int = 0
    coordinates: str = "unit"
    bins: int = 32
    single: int | None = None
    masks: bool = False
    questions: int = 1

    def __post_init__(self) -> None:
        get_category_set(self)  # refuses what it does not know
        for name, (fine, expected) in {**_check_counts(self), **_check_looks(self)}.items():
            if not fine:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    @property
    def num_single(self) -> int:
        """Images of one object each."""
        return self.val if self.single is None else self.single

    def made(self) -> dict[str, Any]:
        """What a card says about how the world was made; fields of later versions only where they matter."""
        later = {field.name for field in fields(self)[_FIRST_FIELDS:] if getattr(self, field.name) == field.default}
        parameters = {name: value for name, value in asdict(self).items() if name not in later}
        font = {"font": hash_font()} if self.sprites == "emoji" else {}
        return {"by": "cloc.data.scenes", "renderer": RENDERER, **parameters, **font}


def _check_counts(spec: WorldSpec) -> dict[str, tuple[bool, str]]:
    """Field: (whether its value is possible, what is)."""
    others = spec.detection + spec.grounding + spec.pairs + spec.conversations
    rules = {
        "seed": (spec.seed >= 0, "0 or more"),
        "train": (spec.train >= (0 if others > 0 else 1), "at least 1 scene"),
        "val": (spec.val >= 1, "at least 1 scene"),
        "refcoco": (spec.refcoco >= 1, "at least 1 scene"),
        "size": (32 <= spec.size <= 2048, "32 to 2048 pixels"),
        "shard_size": (spec.shard_size >= 1, "at least 1 scene"),
        "min_objects": (1 <= spec.min_objects <= spec.max_objects, "1 to max_objects"),
        "max_objects": (spec.max_objects <= 8, "at most 8, more do not fit with little overlap"),
        "shuffle_captions": (
            spec.pairs >= 2 or not spec.shuffle_captions,
            "pairs=2 or more, whose captions can change places",
        ),
        "coordinates": (spec.coordinates in COORDINATES, f"one of {', '.join(COORDINATES)}"),
        "questions": (1 <= spec.questions <= 8, "1 to 8"),
        "bins": (2 <= spec.bins <= 1000, "2 to 1000"),
        "single": (spec.num_single >= 0, "0 (none) or more scenes, or none for as many as val"),
    }
    for name in ("detection", "grounding", "pairs", "conversations"):
        rules[name] = (getattr(spec, name) >= 0, "0 (none) or more scenes")
    return rules


def _check_looks(spec: WorldSpec) -> dict[str, tuple[bool, str]]:
    return {
        "min_side": (0.1 <= spec.min_side <= spec.max_side, "0.1 to max_side"),
        "max_side": (spec.max_side <= 0.8, "at most 0.8"),
        "twin_share": (0.0 <= spec.twin_share <= 1.0, "0 to 1"),
        "expression_share": (0.0 <= spec.expression_share <= 1.0, "0 to 1"),
        "tail": (0.0 <= spec.tail <= 3.0, "0 to 3"),
        "quality": (1 <= spec.quality <= 95, "1 to 95"),
        "background": (spec.background in ("plain", "textured"), "one of plain, textured"),
        "rotation": (0.0 <= spec.rotation <= 180.0, "0 to 180 degrees"),
        "tint": (0 <= spec.tint <= 80, "0 to 80 of 255"),
        "max_iou": (0.0 <= spec.max_iou <= 0.6, "0 to 0.6"),
        "max_covered": (0.0 <= spec.max_covered <= 0.6, "0 to 0.6"),
        "frequency_rule": (spec.frequency_rule in ("lvis", "shares"), "one of lvis, shares"),
    }


def get_category_set(spec: WorldSpec) -> CategorySet:
    """The sprites and categories of a world."""
    return make_category_set(spec.sprites, spec.num_categories, spec.names, spec.caption_only, spec.caption_only_words)


def list_categories(spec: WorldSpec | None = None) -> tuple[SceneCategory, ...]:
    """The categories of a world, by default of the quickstart's."""
    return get_category_set(WorldSpec() if spec is None else spec).categories


@lru_cache(maxsize=16)
def compute_category_odds(count: int, tail: float, without: frozenset[int] = frozenset()) -> np.ndarray:
    """(count,) cumulated odds of the categories, ending at 1; the frequent ones are spread over the list.

    Args:
        count: categories.
        tail: Zipf's exponent.
        without: places of categories that do not occur.
    """
    rank = np.random.default_rng(count).permutation(count)
    weights = 1.0 / (1.0 + rank) ** tail
    weights[list(without)] = 0.0
    return np.cumsum(weights) / weights.sum()


def compute_odds(spec: WorldSpec, split: str) -> np.ndarray:
    """(C,) cumulated odds of the categories of a world in one of its splits."""
    known, without = list_categories(spec), frozenset[int]()
    if split in ("detection", "grounding") and not spec.caption_only_in_detection:
        without = frozenset(category.id - 1 for category in known if category.caption_only)
    return compute_category_odds(len(known), spec.tail, without)


def make_scene_rng(spec: WorldSpec, split: str, index: int) -> np.random.Generator:
    """The random numbers of one scene: a pure function of (seed, split, index).

    Raises:
        ValueError: the split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    return np.random.default_rng((spec.seed, SPLITS.index(split), index))


PRESETS = ("quickstart", "detection")


def make_preset(name: str) -> WorldSpec:
    """The world of a preset.

    `quickstart`: coloured shapes at 96 pixels, the world of the bare commands. `detection`: 24 categories with boxes
    and 8 that only captions name, by words that occur in no other name; emoji where the font is installed, else
    coloured shapes with made-up names; 128 pixels, 1 to 5 objects from 16 pixels up, a folder for each data type.

    Raises:
        ValueError: there is no such preset.
    """
    if name == "quickstart":
        return WorldSpec()
    if name != "detection":
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}")
    emoji = find_font() is not None
    return WorldSpec(
        size=128,
        sprites="emoji" if emoji else "shapes",
        names="descriptive" if emoji else "coined",
        num_categories=32,
        caption_only=8,
        caption_only_words="disjoint",
        min_objects=1,
        max_objects=5,
        min_side=16 / 128,
        train=6_000,
        detection=6_000,
        grounding=3_000,
        pairs=6_000,
        val=500,
        refcoco=500,
    )
