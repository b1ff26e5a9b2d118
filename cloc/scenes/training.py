"""Training shards of a world, rendered by several processes with the same bytes whatever their number.

Here are the writer and the samples of `train`; those of the Detection wing's folders are in `wing.py`.
"""

from __future__ import annotations

import io
import math
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from cloc.data.shards.card import ShardEntry, Staging, full_card
from cloc.data.shards.write import write_shard
from cloc.formats.segmentation import rle_of_mask
from cloc.scenes.render import Scene, SceneObject, render_scene
from cloc.scenes.world import WorldSpec
from cloc.structures import Region, Sample
from cloc.workers import leave_interrupts_to_parent

LICENCE = "Apache-2.0 (rendered by this kit)"


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """JPEG bytes, colours at full resolution: small sprites would bleed otherwise."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def region_of(
    spec: WorldSpec, scene: Scene, thing: SceneObject, phrase: str, extras: Mapping[str, Any] | None = None
) -> Region:
    """An object under a phrase, with its mask where the world has masks."""
    mask = {"mask": rle_of_mask(thing.mask(scene.image.width))} if spec.masks else {}
    return Region(thing.box_xyxy, phrase, extras={**(extras or {}), **mask})


def training_sample(spec: WorldSpec, scene: Scene) -> Sample:
    """A scene as a sample: each object that may have a box is a region with its name as the phrase.

    A share of them (`spec.expression_share` of those with a true relational expression) is a second region, with that
    expression. It has no category, so that nothing counts an object twice.
    """
    regions = [
        region_of(spec, scene, thing, thing.name, {"category_id": thing.category_id})
        for thing in scene.objects
        if not thing.category.caption_only
    ]
    relational = {e.object_index: e.text for e in scene.expressions if e.kind == "relational"}
    for place, (number, text) in enumerate(sorted(relational.items())):
        thing = scene.objects[number]
        # a draw of its own that needs no further random numbers: spread evenly over scenes and objects
        chance = math.modf((scene.index * 8 + place + 1) * 0.6180339887498949)[0]
        if not thing.category.caption_only and chance < spec.expression_share:
            regions.append(region_of(spec, scene, thing, text, {"kind": "relational"}))
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

    def watch(self, samples: Iterator[Sample]) -> Iterator[Sample]:
        """Count what passes."""
        for sample in samples:
            ids = [region.extras["category_id"] for region in sample.regions if "category_id" in region.extras]
            self.instances.update(ids)
            self.images.update(set(ids))
            self.relational += len(sample.regions) - len(ids)
            yield sample

    def add(self, other: Tally) -> None:
        """Count what another one counted."""
        self.images.update(other.images)
        self.instances.update(other.instances)
        self.relational += other.relational


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


def numbered_sample(spec: WorldSpec, index: int) -> Sample:
    """Sample `index` of `train`."""
    return training_sample(spec, render_scene(spec, index, "train"))


def _render_shard(spec: WorldSpec, plan: FolderPlan, folder: Path, number: int) -> tuple[ShardEntry, Tally]:
    first, tally = number * spec.shard_size, Tally()
    samples = (plan.sample(spec, index) for index in range(first, min(first + spec.shard_size, plan.count)))
    return write_shard(folder / f"{number:06d}.tar", tally.watch(samples)), tally


def write_folder(spec: WorldSpec, plan: FolderPlan, out: Path, workers: int, progress: bool = True) -> dict[str, Any]:
    """Render the shards of a folder into `out` (which must be free) and return their card."""
    staging, shards = Staging(out), math.ceil(plan.count / spec.shard_size)
    work = partial(_render_shard, spec, plan, staging.folder)
    bar = tqdm(total=plan.count, desc=f"rendering {plan.name} scenes", unit="scene", disable=not progress)
    with bar, ExitStack() as undone:
        undone.callback(shutil.rmtree, staging.folder, ignore_errors=True)  # scenes are quickly made anew
        if min(workers, shards) > 1:
            # forked: the children only draw and write, and starting them costs nothing
            with multiprocessing.get_context("fork").Pool(min(workers, shards), leave_interrupts_to_parent) as pool:
                results = _advance(pool.imap(work, range(shards)), bar)
        else:
            results = _advance(map(work, range(shards)), bar)
        undone.pop_all()
    tally = Tally()
    for _, shard in results:
        tally.add(shard)
    name = "scenes" if plan.name == "train" else f"scenes-{plan.name}"
    head = {"name": name, "kind": plan.kind, "rendered": True, "licence": LICENCE, "made": spec.made()}
    card = full_card({**head, **plan.card(spec, tally)}, [entry for entry, _ in results])
    staging.finish(card)
    return card


def _advance(results: Iterator[tuple[ShardEntry, Tally]], bar: tqdm) -> list[tuple[ShardEntry, Tally]]:
    done = []
    for result in results:
        done.append(result)
        bar.update(result[0].samples)
    return done
