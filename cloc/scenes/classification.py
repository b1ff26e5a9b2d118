"""Images of one object each, as class folders: what `zeroshot` asks on a rendered world.

Layout of torchvision's ImageFolder, as the readers of real classification sets take it: `zeroshot/single/test/CLASS/`,
the folders numbered by category, their names in `classnames.txt`.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from cloc.data.shards.card import CARD
from cloc.scenes.render import Scene, render_scene
from cloc.scenes.training import LICENCE, encode_jpeg
from cloc.scenes.world import WorldSpec, categories

ZEROSHOT, NAME, SPLIT = "zeroshot", "single", "test"


def single_scene(spec: WorldSpec, index: int) -> Scene:
    """A scene of the world with one object, of any category."""
    return render_scene(replace(spec, min_objects=1, max_objects=1), index, "single")


def write_single(spec: WorldSpec, root: Path, progress: bool = True) -> Counter[str]:
    """Write `zeroshot/single` below a data root: a folder for every category, one without an image included.

    Returns:
        Images and classes written.
    """
    folder, known = root / ZEROSHOT / NAME, categories(spec)
    places = {category.id: folder / SPLIT / f"{category.id:04d}" for category in known}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    for index in tqdm(range(spec.num_single), desc="rendering single objects", unit="scene", disable=not progress):
        scene = single_scene(spec, index)
        file = places[scene.objects[0].category_id] / f"{index + 1:06d}.jpg"
        file.write_bytes(encode_jpeg(scene.image, spec.quality))
    lines = "".join(f"{category.name}\n" for category in known)
    (folder / "classnames.txt").write_text(lines, encoding="utf-8")
    card = {"schema": 1, "name": f"scenes-{NAME}", "rendered": True, "licence": LICENCE, "made": spec.made()}
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return Counter(images=spec.num_single, classes=len(known))
