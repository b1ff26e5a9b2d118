"""GRIT rows as shards of kind `grounding`: one sample a row, boxes scaled to the photo that was downloaded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.convert_photos import fingerprint, read_photo, refuse_no_folder, write_counted
from cloc.data.formats.grit import PHRASES, GritRow, read_grit
from cloc.data.shards import already_made
from cloc.structures import DataError, Sample

CONVERTER = 1
"""Raised when equal input gives other shards than before."""

_ENDINGS = ("jpg", "jpeg", "png", "webp")
_SHAPE_TOLERANCE = 0.02
"""How far the aspect ratio of a photo may be from its row's (rounding of small sides); beyond it was cropped."""


def convert_grit(
    images: Path,
    rows: Sequence[Path],
    out: Path,
    phrases: str = "both",
    name: str = "grit",
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert GRIT to shards of kind `grounding`. A region's phrase is a piece of the caption, its `span` says which.

    Boxes are scaled to the photo as it lies there. One that was cropped or padded on the way (its aspect ratio is not
    the row's) would have its boxes in the wrong place: counted as `image_of_other_shape`.

    Args:
        images: folder with `KEY.jpg` (png, webp), flat or in folders named by the first five letters of the key, as
            img2dataset's `files` output has them.
        rows: `.parquet` files or JSON lines.
        out: folder to make; one that is there and was made from the same files is left alone.
        phrases: `noun_chunks`, `ref_exps` or `both`.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an input is missing, no row can be used, or `out` holds something else.
    """
    images, rows, out = Path(images), [Path(file) for file in rows], Path(out)
    if phrases not in (*PHRASES, "both"):
        raise ValueError(f"phrases: expected {', '.join(PHRASES)} or both, got {phrases!r}")
    refuse_no_folder(images)
    made = {
        "by": "cloc.data.convert grit",
        "converter": CONVERTER,
        "rows": [fingerprint(file) for file in rows],
        "phrases": phrases,
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    dropped, read = Counter[str](), Counter[str](rows=0, regions=0)
    card = {"name": name, "kind": "grounding", "rendered": False, "licence": licence, "made": made}
    card |= {"read": read, "dropped": dropped}
    found = read_grit(rows, PHRASES if phrases == "both" else (phrases,), dropped)
    bar = tqdm(found, desc="copying photos", unit="row", disable=not progress)
    return write_counted(_samples(bar, images, name, read, dropped), out, card, shard_size, rows[0])


def _samples(
    rows: Iterator[GritRow], images: Path, name: str, read: Counter[str], dropped: Counter[str]
) -> Iterator[Sample]:
    """The samples in the order of the rows; keys are running numbers, for keys start anew in each download."""
    for row in rows:
        read.update(rows=1, regions=len(row.entries))
        try:
            data, ending, (width, height) = read_photo(_find(images, row.key))
            _refuse_other_shape(row, width, height)
        except DataError as error:
            dropped[error.reason] += 1
            dropped["region_of_dropped_image"] += len(row.entries)
            continue
        regions, lost = row.regions(width, height)
        dropped.update(lost)
        source = {"dataset": name, "key": row.key, **({"url": row.url} if row.url is not None else {})}
        key = f"{read['rows'] - 1:09d}"
        yield Sample(key, data, ending, width, height, row.caption, regions, {"source": source})


def _find(images: Path, key: str) -> Path:
    places = [folder / f"{key}.{ending}" for folder in (images, images / key[:5]) for ending in _ENDINGS]
    return next((place for place in places if os.path.isfile(place)), places[0])


def _refuse_other_shape(row: GritRow, width: int, height: int) -> None:
    if row.width is None or row.height is None:
        return
    if abs(width * row.height - height * row.width) > _SHAPE_TOLERANCE * width * row.height:
        raise DataError("image_of_other_shape", f"{row.key}: {width} x {height}, its row {row.width} x {row.height}")
