"""Boxes with a text each, for `region_retrieval`: an annotated set, GRIT, or region shards.

Layouts under a data root:
- `region_text/grit*/`: GRIT's rows (`*.parquet`, or `*.jsonl` with the same fields; Kosmos-2, arXiv 2306.14824, data
  card huggingface.co/datasets/zzliang/GRIT) and the photos in `images/`, `KEY.jpg` (png, webp) flat or in folders named
  by the key's first five letters, as img2dataset's `files` output has them. Boxes are scaled to the photo there.
- `region_text/NAME/`: shards of this kit with their `dataset.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.tasks.photos import UNREADABLE, open_photo, open_sized
from cloc.data.shards.read import ShardSet
from cloc.formats.annotated import AnnotatedImage, AnnotatedSet
from cloc.formats.grit import GritRow, read_grit
from cloc.images import decode
from cloc.structures import DataError
from cloc.text import canonical

ENDINGS = ("jpg", "jpeg", "png", "webp")
OTHER_SHAPE = "photo of another shape than the row tells"
_SHAPE = 0.02


@dataclass(frozen=True, eq=False)
class TextedImage:
    """One image and the texts of its boxes.

    Attributes:
        image_id: number in the set.
        path: of the photo, or of the shard that holds it.
        boxes_xyxy: (K, 4), pixels, or in [0, 1] of the photo where `unit`.
        texts: K canonical texts.
        ids: (K,) numbers of the boxes.
        open_photo: the photo in RGB, or why it cannot be used.
        crowds: annotations that were left out because they are crowds.
        unit: whether the boxes are scaled to the photo that is opened.
    """

    image_id: int
    path: Path
    boxes_xyxy: NDArray[np.float64]
    texts: tuple[str, ...]
    ids: NDArray[np.int64]
    open_photo: Callable[[], Image.Image | str]
    crowds: int = 0
    unit: bool = False

    def pixels(self, rows: list[int], photo: Image.Image) -> NDArray[np.float64]:
        """(len(rows), 4) boxes in pixels of the opened photo."""
        boxes = self.boxes_xyxy[rows].reshape(-1, 4)
        return boxes * np.array([*photo.size, *photo.size], dtype=np.float64) if self.unit else boxes


@dataclass(frozen=True)
class TextedSet:
    """Images with texted boxes, by number. `dropped`: what the reader left out, by reason."""

    name: str
    images: tuple[TextedImage, ...]
    rendered: bool = False
    dropped: Counter[str] = field(default_factory=Counter)


def convert_annotated(dataset: AnnotatedSet) -> TextedSet:
    """The class names of an annotated set; crowds left out."""
    names = {category.id: canonical(category.name) for category in dataset.categories.values()}
    images = tuple(_annotated(image, names) for image in dataset.images)
    return TextedSet(dataset.name, images, dataset.rendered, Counter(dataset.dropped))


def _annotated(image: AnnotatedImage, names: dict[int, str]) -> TextedImage:
    rows = np.flatnonzero(~image.crowd)
    texts = tuple(names[int(number)] for number in image.category_ids[rows])
    photo = partial(open_photo, image)
    boxes, ids = image.boxes_xyxy[rows], image.annotation_ids[rows]
    return TextedImage(image.image_id, image.path, boxes, texts, ids, photo, int(image.crowd.sum()))


def read_grit_texts(folder: Path, phrases: str) -> TextedSet:
    """GRIT's rows with at least one usable region.

    Args:
        folder: `region_text/grit*`.
        phrases: `noun_chunks` or `ref_exps`; the CLOC paper does not say which it takes.

    Raises:
        ValueError: a file is no table of GRIT, or no row has a region.
    """
    images, dropped, first = [], Counter[str](), 0
    for number, row in enumerate(read_grit(find_grit_files(folder), (phrases,), dropped)):
        regions = row.unit_regions(dropped)
        if not regions:
            dropped["row_without_region"] += 1
            continue
        ids = np.arange(first, first + len(regions))
        texts = tuple(canonical(region.phrase) for region in regions)
        boxes, path = np.array([region.box for region in regions], dtype=np.float64), _photo(folder / "images", row.key)
        images.append(TextedImage(number, path, boxes, texts, ids, partial(_open_grit, path, row), unit=True))
        first += len(regions)
    if not images:
        raise ValueError(f"{folder}: expected rows of GRIT with {phrases}, found none; check the files")
    return TextedSet(folder.name, tuple(images), dropped=dropped)


def find_grit_files(folder: Path) -> list[Path]:
    """The tables of a GRIT folder."""
    return sorted([*folder.glob("*.parquet"), *folder.glob("*.jsonl")])


def _photo(folder: Path, key: str) -> Path:
    """Where the photo of a row lies; the plain name where it is nowhere. A key holds letters, digits, - and _ only."""
    names = [place / f"{key}.{ending}" for place in (folder, folder / key[:5]) for ending in ENDINGS]
    return next((name for name in names if name.is_file()), names[0])


def _open_grit(path: Path, row: GritRow) -> Image.Image | str:
    photo = open_sized(path, None)
    if isinstance(photo, str) or not row.width or not row.height:
        return photo
    ratio = (photo.width / photo.height) / (row.width / row.height)
    return photo if abs(ratio - 1) <= _SHAPE else OTHER_SHAPE


def read_region_shards(folder: Path) -> TextedSet:
    """The regions of a folder of shards; samples without a region are left out and counted.

    Raises:
        ValueError: there is no shard, or not one region.
    """
    shards, images, dropped, first, number = ShardSet.open(folder), [], Counter[str](), 0, 0
    for shard, count in enumerate(shards.counts):
        for place in range(count):
            number += 1
            try:
                sample = shards.read_sample(shard, place)
            except DataError as error:
                dropped[error.reason] += 1
                continue
            dropped.update(sample.dropped)
            kept = [region for region in sample.regions if not region.extras.get("crowd")]
            if not kept:
                dropped["sample_without_region"] += 1
                continue
            boxes = np.array([region.box for region in kept], dtype=np.float64)
            texts, ids = tuple(canonical(region.phrase) for region in kept), np.arange(first, first + len(kept))
            crowds, photo = len(sample.regions) - len(kept), partial(_open_sample, shards, shard, place)
            images.append(TextedImage(number - 1, shards.shards[shard], boxes, texts, ids, photo, crowds))
            first += len(kept)
    if not images:
        raise ValueError(f"{folder}: expected shards with regions, found none; `pairs` have no regions")
    rendered = bool((shards.card or {}).get("rendered", False))
    return TextedSet(folder.name, tuple(images), rendered, dropped)


def _open_sample(shards: ShardSet, shard: int, place: int) -> Image.Image | str:
    try:
        sample = shards.read_sample(shard, place)
        return decode(sample.image, (sample.width, sample.height))
    except ValueError:
        return UNREADABLE
