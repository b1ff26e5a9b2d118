"""Training shards of a world, rendered by several processes with the same bytes whatever their number.

Here are the writer, the samples of `train` and the categories as cards list them: with counts, and rare, common or
frequent. The samples of the other folders are in `detection_samples.py`.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from cloc.data.shards.card import complete_card
from cloc.disk import removed_unless_done
from cloc.formats.segmentation import mask_to_rle
from cloc.jobs import ShardJob, make_entry, run_tasks
from cloc.scenes.render import Scene, SceneObject, render_scene
from cloc.scenes.world import WorldSpec, list_categories
from cloc.structures import Region, Sample

LICENCE = "Apache-2.0 (rendered by this kit)"


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes, colours at full resolution: small sprites would bleed otherwise."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def make_scene_region(
    spec: WorldSpec, scene: Scene, thing: SceneObject, phrase: str, extras: Mapping[str, Any] | None = None
) -> Region:
    """An object under a phrase, with its mask where the world has masks."""
    mask = {"mask": mask_to_rle(thing.mask(scene.image.width))} if spec.masks else {}
    return Region(thing.box_xyxy, phrase, extras={**(extras or {}), **mask})


def make_training_sample(spec: WorldSpec, scene: Scene) -> Sample:
    """A scene as a sample: each object that may have a box is a region with its name as the phrase.

    A share of them (`spec.expression_share` of those with a true relational expression) is a second region, with that
    expression. It has no category, so that nothing counts an object twice.
    """
    regions = [
        make_scene_region(spec, scene, thing, thing.name, {"category_id": thing.category_id})
        for thing in scene.objects
        if not thing.category.caption_only
    ]
    relational = {e.object_index: e.text for e in scene.expressions if e.kind == "relational"}
    for order, (number, text) in enumerate(sorted(relational.items())):
        thing = scene.objects[number]
        # a draw of its own that needs no further random numbers: spread evenly over scenes and objects
        chance = math.modf((scene.index * 8 + order + 1) * 0.6180339887498949)[0]
        if not thing.category.caption_only and chance < spec.expression_share:
            regions.append(make_scene_region(spec, scene, thing, text, {"kind": "relational"}))
    image = encode_jpeg(scene.image, spec.quality)
    extras = {"image_id": scene.index + 1, "source": {"rendered": True, "split": scene.split, "index": scene.index}}
    side = scene.image.width
    return Sample(f"{scene.index:09d}", image, "jpg", side, side, scene.caption, tuple(regions), extras)


@dataclass
class Tally:
    """What the samples of a folder hold.

    Attributes:
        images, instances: in how many samples each category has a box, and how many boxes, by category id.
        relational: regions with a relational expression.
    """

    images: Counter[int] = field(default_factory=Counter)
    instances: Counter[int] = field(default_factory=Counter)
    relational: int = 0

    def count(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Count what passes."""
        for sample in samples:
            ids = [region.extras["category_id"] for region in sample.regions if "category_id" in region.extras]
            self.instances.update(ids)
            self.images.update(set(ids))
            self.relational += len(sample.regions) - len(ids)
            yield sample

    def add(self, other: Mapping[str, Any]) -> None:
        """Count what another one counted, given as JSON has it."""
        for counted, counts in ((self.images, other["images"]), (self.instances, other["instances"])):
            counted.update({int(category): count for category, count in counts.items()})
        self.relational += other["relational"]


@dataclass(frozen=True)
class FolderPlan:
    """A folder of training shards.

    Attributes:
        name: of the folder and its split.
        kind: as the card says.
        count: samples.
        sample: the sample of a number.
        card: further fields of the card, from what the samples hold.
    """

    name: str
    kind: str
    count: int
    sample: Callable[[WorldSpec, int], Sample]
    card: Callable[[WorldSpec, Tally], Mapping[str, Any]]


def make_numbered_sample(spec: WorldSpec, index: int) -> Sample:
    """Sample `index` of `train`."""
    return make_training_sample(spec, render_scene(spec, index, "train"))


def _render_shard(spec: WorldSpec, plan: FolderPlan, job: ShardJob, number: int) -> tuple[int, dict[str, Any]]:
    first, tally = number * spec.shard_size, Tally()
    samples = (plan.sample(spec, index) for index in range(first, min(first + spec.shard_size, plan.count)))
    return number, job.write(number, tally.count(samples), more=lambda: {"tally": vars(tally)})


def write_folder(spec: WorldSpec, plan: FolderPlan, out: Path, workers: int, progress: bool = True) -> dict[str, Any]:
    """Render the shards of a folder into `out` (which must be free) and return their card."""
    job, shards = ShardJob(out), math.ceil(plan.count / spec.shard_size)
    work, tasks = partial(_render_shard, spec, plan, job), ((number,) for number in range(shards))
    bar = tqdm(total=plan.count, desc=f"rendering {plan.name} scenes", unit="scene", disable=not progress)
    busy = f"{out}: another process is rendering it; wait for it, or give another folder"
    # scenes are quickly made anew: a job that stops leaves nothing, one that is killed its finished shards
    with job.opened(spec.made(), busy) as card, removed_unless_done(job.folder), bar:
        if card is not None:
            return card
        reports = {}
        for number, report in run_tasks(work, tasks, min(workers, shards), out):
            reports[number] = report
            bar.update(report["samples"])
        reports = dict(sorted(reports.items()))
        tally = Tally()
        for report in reports.values():
            tally.add(report["tally"])
        name = "scenes" if plan.name == "train" else f"scenes-{plan.name}"
        head = {"name": name, "kind": plan.kind, "rendered": True, "licence": LICENCE, "made": spec.made()}
        entries = [make_entry(number, report) for number, report in reports.items()]
        card = complete_card({**head, **plan.card(spec, tally)}, entries)
        job.finish(card)
    return card


LVIS_SHARES = (337 / 1203, 461 / 1203)
"""How many of LVIS v1's categories are rare and common, as shares."""


def classify_frequency(image_count: int) -> str:
    """LVIS's classes: `r` for up to 10 training images with the category, `c` for up to 100, else `f`."""
    return "r" if image_count <= 10 else "c" if image_count <= 100 else "f"


def classify_frequencies(spec: WorldSpec, images: Mapping[int, int]) -> dict[int, str]:
    """The class of each category by id.

    With `frequency_rule=lvis` LVIS's own thresholds. With `shares` the boxed categories are ranked by their training
    images, and the first 28 % are rare, the next 38 % common, as in LVIS v1: a world of a few thousand images has few
    categories with at most 10. A caption-only category has no training image with a box: it is rare in both.
    """
    known = list_categories(spec)
    if spec.frequency_rule == "lvis":
        return {category.id: classify_frequency(images.get(category.id, 0)) for category in known}
    boxed = sorted((images.get(c.id, 0), c.id) for c in known if not c.caption_only)
    rare = round(LVIS_SHARES[0] * len(boxed))
    common = rare + round(LVIS_SHARES[1] * len(boxed))
    classes = "r" * rare + "c" * (common - rare) + "f" * (len(boxed) - common)
    ranked = {number: letter for letter, (_, number) in zip(classes, boxed, strict=True)}
    return {c.id: ranked.get(c.id, "r") for c in known}


def list_counted_categories(
    spec: WorldSpec, images: Mapping[int, int], instances: Mapping[int, int]
) -> list[dict[str, Any]]:
    """All categories, in the order of their ids.

    Args:
        spec: the world.
        images: training images with a box of the category, by id.
        instances: boxes, by id.
    """
    classes = classify_frequencies(spec, images)
    return [
        {
            "id": c.id,
            "name": c.name,
            "definition": c.definition,
            "frequency": classes[c.id],
            "image_count": images.get(c.id, 0),
            "instance_count": instances.get(c.id, 0),
            "caption_only": c.caption_only,
        }
        for c in list_categories(spec)
    ]


def list_card_categories(spec: WorldSpec, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All categories with the counts that a folder's card lists; those that it does not list have none."""
    images = {entry["id"]: entry["image_count"] for entry in card["categories"]}
    instances = {entry["id"]: entry["instance_count"] for entry in card["categories"]}
    return list_counted_categories(spec, images, instances)


def make_regions_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the card of `train` says beyond the usual."""
    return {
        "relational_regions": tally.relational,
        "categories": list_counted_categories(spec, tally.images, tally.instances),
    }


def make_detection_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the card of `detection` says: the categories that have boxes, and no other.

    A caption-only category in this list would be drawn as a negative, and be taught to be absent where it is not.
    """
    listed = list_counted_categories(spec, tally.images, tally.instances)
    return {"categories": [entry for entry in listed if not entry["caption_only"]]}


def make_plain_card(spec: WorldSpec, tally: Tally) -> dict[str, Any]:
    """What the cards of `grounding` and `pairs` say beyond the usual: nothing, they have phrases and no categories."""
    return {}
