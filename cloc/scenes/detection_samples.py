"""Samples of the detection folders: boxes with categories, captions with boxes for phrases, captions alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cloc.data.shards.card import find_made
from cloc.data.shards.read import ShardSet
from cloc.data.shards.write import write_shards
from cloc.scenes.captions import add_article, choose_templates, join_texts
from cloc.scenes.render import Scene, render_scene
from cloc.scenes.training import (
    LICENCE,
    FolderPlan,
    encode_jpeg,
    make_detection_card,
    make_numbered_sample,
    make_plain_card,
    make_regions_card,
    make_scene_region,
)
from cloc.scenes.world import WorldSpec, make_scene_rng
from cloc.structures import Region, Sample

SHUFFLED = "pairs-shuffled"
_TRIES = 1000
_NEXT_TRY = 1 << 40
_CHANCE_STREAM = 1 << 32
_RELATIONAL = 0.5


def list_folder_plans(spec: WorldSpec) -> list[FolderPlan]:
    """The folders of training shards that a world has."""
    plans = [
        FolderPlan("train", "regions", spec.train, make_numbered_sample, make_regions_card),
        FolderPlan("detection", "detection", spec.detection, make_detection_sample, make_detection_card),
        FolderPlan("grounding", "grounding", spec.grounding, make_grounding_sample, make_plain_card),
        FolderPlan("pairs", "pairs", spec.pairs, make_pairs_sample, make_plain_card),
    ]
    return [plan for plan in plans if plan.count > 0]


def render_boxed_scene(spec: WorldSpec, index: int, split: str) -> Scene:
    """A scene with at least one object that may have a box; where chance gives none, the next of a stream of its own.

    Raises:
        ValueError: nearly all categories are caption-only, and none is found.
    """
    for attempt in range(_TRIES):
        scene = render_scene(spec, index + attempt * _NEXT_TRY, split)
        if not all(thing.category.caption_only for thing in scene.objects):
            return scene
    raise ValueError(f"scenes: {_TRIES} scenes had no object with a box; lower caption_only or raise min_objects")


def _sample(spec: WorldSpec, scene: Scene, index: int, caption: str, regions: tuple[Region, ...]) -> Sample:
    side = scene.image.width
    extras = {"image_id": index + 1, "source": {"rendered": True, "split": scene.split, "index": scene.index}}
    image = encode_jpeg(scene.image, spec.quality)
    return Sample(f"{index:09d}", image, "jpg", side, side, caption, regions, extras)


def make_detection_sample(spec: WorldSpec, index: int) -> Sample:
    """Every object of a boxed category, its name as the phrase; no caption, so that no name is learned from one."""
    scene = render_boxed_scene(spec, index, "detection")
    boxed = [thing for thing in scene.objects if not thing.category.caption_only]
    regions = tuple(make_scene_region(spec, scene, t, t.name, {"category_id": t.category_id}) for t in boxed)
    return _sample(spec, scene, index, "", regions)


def make_pairs_sample(spec: WorldSpec, index: int) -> Sample:
    """A caption that names at most half of the objects, of any category; no region."""
    scene = render_scene(spec, index, "pairs")
    return _sample(spec, scene, index, scene.caption, ())


def make_grounding_sample(spec: WorldSpec, index: int) -> Sample:
    """A caption that names boxed objects, and a region for each (phrase, object), with the phrase's `span`."""
    scene = render_boxed_scene(spec, index, "grounding")
    caption, phrases = write_grounded_caption(
        scene, make_scene_rng(spec, "grounding", index + _CHANCE_STREAM), spec.background
    )
    regions = tuple(
        make_scene_region(spec, scene, scene.objects[number], caption[start:end], {"span": [start, end]})
        for (start, end), numbers in phrases
        for number in numbers
    )
    return _sample(spec, scene, index, caption, regions)


def write_grounded_caption(
    scene: Scene, rng: np.random.Generator, background: str = "plain"
) -> tuple[str, list[tuple[tuple[int, int], list[int]]]]:
    """A caption, and for each phrase in it its [start, end) and the objects that it means.

    A phrase is a name (then it means every object of that name) or a relational expression (one object). Half of the
    boxed objects or more are named; caption-only categories never are.
    """
    boxed = [number for number, thing in enumerate(scene.objects) if not thing.category.caption_only]
    count = int(rng.integers((len(boxed) + 1) // 2, len(boxed) + 1))
    order = [boxed[i] for i in rng.permutation(len(boxed)).tolist()[:count]]
    named_texts, meant = [], []
    named = set[str]()
    for number in order:
        name = scene.objects[number].name
        relational = [e.text for e in scene.expressions if e.object_index == number and e.kind == "relational"]
        if name in named:
            continue
        named.add(name)
        if relational and rng.random() < _RELATIONAL:
            named_texts.append((relational[0], relational[0]))
            meant.append([number])
        else:
            named_texts.append((add_article(name), name))
            meant.append([other for other in boxed if scene.objects[other].name == name])
    templates = choose_templates(background)
    before, after = templates[int(rng.integers(len(templates)))].split("{}")
    caption, spans, end = before + join_texts([text for text, _ in named_texts]) + after, [], len(before)
    for text, phrase in named_texts:
        end = caption.index(text, end) + len(text)
        spans.append((end - len(phrase), end))
    return caption, list(zip(spans, meant, strict=True))


def shuffle_captions(spec: WorldSpec, pairs: Path, out: Path) -> dict[str, Any]:
    """Write the samples of `pairs` again with every caption on another image: the control for what captions teach.

    The captions go round one circle drawn by chance, so that none stays and each is used once. `write_caption` in
    KEY.json names the sample that a caption came from.

    Returns:
        The card.
    """
    shards = ShardSet.open(pairs)
    locations = [(shard, row) for shard, count in enumerate(shards.counts) for row in range(count)]
    circle = make_scene_rng(spec, "pairs", _CHANCE_STREAM).permutation(len(locations))
    giver = np.empty_like(circle)
    giver[circle] = np.roll(circle, 1)
    captions = [(sample.key, sample.caption) for sample in (shards.read_sample(*location) for location in locations)]

    def samples() -> Iterator[Sample]:
        for number, location in enumerate(locations):
            sample = shards.read_sample(*location)
            key, caption = captions[giver[number]]
            yield replace(sample, caption=caption, extras={**sample.extras, "caption_of": key})

    head = {"name": "scenes-pairs-shuffled", "kind": "pairs", "rendered": True, "licence": LICENCE}
    return write_shards(samples(), out, {**head, "made": spec.made()}, spec.shard_size)


def is_shuffled_made(spec: WorldSpec, out: Path) -> bool:
    """Whether `out` holds the shuffled pairs of this world.

    Raises:
        ValueError: it holds something else.
    """
    return find_made(out, spec.made()) is not None
