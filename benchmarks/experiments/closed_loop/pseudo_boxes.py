"""How good a labeller's boxes are: precision and recall at IoU 0.5 against what the rendered scenes truly show.

A pseudo-box is right where an object of its name, taken by no more confident box, has an IoU of at least 0.5 with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.experiments.closed_loop.loop import SPLITS
from cloc.boxes import iou
from cloc.data.shards import ShardSet
from cloc.files import read_object
from cloc.phrases.mentions import Mentions
from cloc.scenes import WorldSpec, render_scene
from cloc.structures import Region

LEAST_IOU = 0.5
GROUPS = BOXED, CAPTION_ONLY = SPLITS


@dataclass(frozen=True, slots=True)
class Thing:
    """An object that a scene truly shows.

    Attributes:
        box: xyxy pixels.
        name: of its category.
        caption_only: its category never had a box in training.
        named: whether the caption names its category, so that the labeller was asked for it.
    """

    box: tuple[float, float, float, float]
    name: str
    caption_only: bool
    named: bool


@dataclass(frozen=True)
class Quality:
    """Counts over all scenes, by group of the category; a box whose phrase names no category is in `junk`.

    Attributes:
        boxes, right: pseudo-boxes, and those that are right.
        things: objects; a right box stands for one of them.
        named, found_named: objects whose name is in the caption, and those of them that a right box stands for.
        junk: pseudo-boxes of phrases that name no category.
    """

    boxes: Counter[str]
    right: Counter[str]
    things: Counter[str]
    named: Counter[str]
    found_named: Counter[str]
    junk: int

    def precision(self, groups: Sequence[str] = GROUPS) -> float | None:
        """Share of the boxes that are right; with all groups junk counts as wrong. None where there is no box."""
        boxes = sum(self.boxes[name] for name in groups) + (self.junk if set(groups) == set(GROUPS) else 0)
        return sum(self.right[name] for name in groups) / boxes if boxes else None

    def recall(self, groups: Sequence[str] = GROUPS, named: bool = False) -> float | None:
        """Share of the objects (of those that captions name) that are found. None where there is none."""
        there, found = (self.named, self.found_named) if named else (self.things, self.right)
        whole = sum(there[name] for name in groups)
        return sum(found[name] for name in groups) / whole if whole else None

    def to_json(self) -> dict[str, Any]:
        """Counts and shares."""
        shares = {
            name: {
                "precision": self.precision(groups),
                "recall": self.recall(groups),
                "recall_named": self.recall(groups, True),
            }
            for name, groups in {"all": GROUPS, **{one: (one,) for one in GROUPS}}.items()
        }
        counts: dict[str, Any] = {
            name: dict(getattr(self, name)) for name in ("boxes", "right", "things", "named", "found_named")
        }
        counts["junk"] = self.junk
        return {"schema": 1, "least_iou": LEAST_IOU, "shares": shares, "counts": counts}


def count_right_boxes(regions: Sequence[Region], things: Sequence[Thing]) -> dict[int, int]:
    """{pseudo-box: the object that it stands for}, each object once, the most confident box first."""
    if not regions or not things:
        return {}
    overlap = iou([region.box for region in regions], [thing.box for thing in things])
    same = np.array([[_name(region) == thing.name for thing in things] for region in regions])
    overlap = np.where(same, overlap, -1.0)
    matched: dict[int, int] = {}
    for row in sorted(range(len(regions)), key=lambda row: -(regions[row].score or 0.0)):
        column = int(overlap[row].argmax())
        if overlap[row, column] >= LEAST_IOU:
            matched[row] = column
            overlap[:, column] = -1.0
    return matched


def measure_quality(scenes: Iterable[tuple[Sequence[Region], Sequence[Thing]]], groups: dict[str, str]) -> Quality:
    """Count over scenes.

    Args:
        scenes: pseudo-boxes and true objects of each.
        groups: of each category's name, `boxed` or `caption-only`.
    """
    counts = {name: Counter[str]() for name in ("boxes", "right", "things", "named", "found_named")}
    junk = 0
    for regions, things in scenes:
        matched = count_right_boxes(regions, things)
        for region in regions:
            junk += _name(region) not in groups
            counts["boxes"].update([groups[_name(region)]] if _name(region) in groups else [])
        found = set(matched.values())
        for number, thing in enumerate(things):
            group = groups[thing.name]
            counts["things"][group] += 1
            counts["right"][group] += number in found
            counts["named"][group] += thing.named
            counts["found_named"][group] += thing.named and number in found
    return Quality(**counts, junk=junk)


def _name(region: Region) -> str:
    """A phrase without its article: what categories are called."""
    first, _, rest = region.phrase.partition(" ")
    return rest if first in ("a", "an", "the") and rest else region.phrase


def measure(labelled: Path, world: Path, progress: bool = True) -> Quality:
    """Compare labelled shards with the scenes that they show, which are rendered again.

    Args:
        labelled: folder of the labelled shards of `world/train`.
        world: folder of the world.
        progress: show a bar.
    """
    spec = spec_of(world)
    scenes = tqdm(_scenes(labelled, spec), desc="comparing boxes", unit="scene", disable=not progress)
    return measure_quality(scenes, groups_of(spec))


def groups_of(spec: WorldSpec) -> dict[str, str]:
    """The group of each category's name."""
    from cloc.scenes.world import list_categories

    return {one.name: CAPTION_ONLY if one.caption_only else BOXED for one in list_categories(spec)}


def spec_of(world: Path) -> WorldSpec:
    """The parameters of a world that is there."""
    made = read_object(world / "world.json", "the card of a world")["made"]
    return WorldSpec(**{name: value for name, value in made.items() if name not in ("by", "renderer", "font")})


def _scenes(labelled: Path, spec: WorldSpec) -> Iterator[tuple[Sequence[Region], Sequence[Thing]]]:
    shards = ShardSet.open(labelled)
    for number, count in enumerate(shards.counts):
        for place in range(count):
            sample = shards.read_sample(number, place)
            source = sample.extras["source"]
            scene = render_scene(spec, source["index"], source["split"])
            caption = Mentions([sample.caption])
            yield (
                sample.regions,
                [
                    Thing(one.box_xyxy, one.name, one.category.caption_only, one.name in caption)
                    for one in scene.objects
                ],
            )
