"""Training shards of a world, rendered by several processes with the same bytes whatever their number."""

from __future__ import annotations

import io
import math
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from cloc.data.scenes.render import Scene, render_scene
from cloc.data.scenes.world import WorldSpec, categories
from cloc.data.shards.card import ShardEntry, Staging, full_card
from cloc.data.shards.write import write_shard
from cloc.structures import Region, Sample

LICENCE = "Apache-2.0 (rendered by this kit)"


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes, colours at full resolution: small sprites would bleed otherwise."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def training_sample(spec: WorldSpec, scene: Scene) -> Sample:
    """A scene as a sample: each object that may have a box is a region with its name as the phrase.

    A share of them (`spec.expression_share` of those with a true relational expression) is a second region, with that
    expression. It has no category, so that nothing counts an object twice.
    """
    regions = [
        Region(thing.box_xyxy, thing.name, extras={"category_id": thing.category_id})
        for thing in scene.objects
        if not thing.category.caption_only
    ]
    relational = {e.object_index: e.text for e in scene.expressions if e.kind == "relational"}
    for place, (number, text) in enumerate(sorted(relational.items())):
        thing = scene.objects[number]
        # a draw of its own that needs no further random numbers: spread evenly over scenes and objects
        chance = math.modf((scene.index * 8 + place + 1) * 0.6180339887498949)[0]
        if not thing.category.caption_only and chance < spec.expression_share:
            regions.append(Region(thing.box_xyxy, text, extras={"kind": "relational"}))
    image = encode_jpeg(scene.image, spec.quality)
    extras = {"image_id": scene.index + 1, "source": {"rendered": True, "split": scene.split, "index": scene.index}}
    side = scene.image.width
    return Sample(f"{scene.index:09d}", image, "jpg", side, side, scene.caption, tuple(regions), extras)


class _Tally:
    """How often each category has a box, and in how many scenes."""

    def __init__(self) -> None:
        self.images, self.instances, self.relational = Counter[int](), Counter[int](), 0

    def watch(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            ids = [region.extras["category_id"] for region in sample.regions if "category_id" in region.extras]
            self.instances.update(ids)
            self.images.update(set(ids))
            self.relational += len(sample.regions) - len(ids)
            yield sample


def _render_shard(spec: WorldSpec, folder: Path, number: int) -> tuple[ShardEntry, Counter[int], Counter[int], int]:
    first, tally = number * spec.shard_size, _Tally()
    scenes = (render_scene(spec, i, "train") for i in range(first, min(first + spec.shard_size, spec.train)))
    samples = tally.watch(training_sample(spec, scene) for scene in scenes)
    return write_shard(folder / f"{number:06d}.tar", samples), tally.images, tally.instances, tally.relational


def frequency(image_count: int) -> str:
    """LVIS's classes: `r` for up to 10 training images with the category, `c` for up to 100, else `f`."""
    return "r" if image_count <= 10 else "c" if image_count <= 100 else "f"


def write_training(spec: WorldSpec, out: Path, workers: int, progress: bool = True) -> dict[str, Any]:
    """Render the training shards into `out` (which must be free) and return their card."""
    staging, shards = Staging(out), math.ceil(spec.train / spec.shard_size)
    work = partial(_render_shard, spec, staging.folder)
    entries, images, instances, relational = [], Counter[int](), Counter[int](), 0
    with tqdm(total=spec.train, desc="rendering training scenes", unit="scene", disable=not progress) as bar:
        if min(workers, shards) > 1:
            # forked: the children only draw and write, and starting them costs nothing
            with multiprocessing.get_context("fork").Pool(min(workers, shards)) as pool:
                results = _advance(pool.imap(work, range(shards)), bar)
        else:
            results = _advance(map(work, range(shards)), bar)
    for entry, shard_images, shard_instances, shard_relational in results:
        entries.append(entry)
        images.update(shard_images)
        instances.update(shard_instances)
        relational += shard_relational
    listed = [
        {
            "id": c.id,
            "name": c.name,
            "definition": c.definition,
            "frequency": frequency(images[c.id]),
            "image_count": images[c.id],
            "instance_count": instances[c.id],
            "caption_only": c.caption_only,
        }
        for c in categories(spec.sprites, spec.caption_only)
    ]
    card = full_card(
        {
            "name": "scenes",
            "kind": "regions",
            "rendered": True,
            "licence": LICENCE,
            "made": spec.made(),
            "relational_regions": relational,
            "categories": listed,
        },
        entries,
    )
    staging.finish(card)
    return card


def _advance(results: Iterator[tuple[ShardEntry, Any, Any, int]], bar: tqdm) -> list[tuple[ShardEntry, Any, Any, int]]:
    done = []
    for result in results:
        done.append(result)
        bar.update(result[0].samples)
    return done
