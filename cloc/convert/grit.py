"""GRIT rows as shards of kind `grounding`: one sample a row, boxes scaled to the photo that was downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.grit import PHRASES, read_grit
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos

CONVERTER = 2
"""Raised when equal input gives other shards than before."""

_ENDINGS = ("jpg", "jpeg", "png", "webp")


def convert_grit(
    images: Path, rows: Sequence[Path], out: Path, phrases: str = "both", **making: Unpack[Making]
) -> dict[str, Any]:
    """Convert GRIT to shards of kind `grounding`. A region's phrase is a piece of the caption, its `span` says which.

    Boxes are scaled to the photo as it lies there. One that was cropped or padded on the way (its aspect ratio is not
    the row's) would have its boxes in the wrong place: counted as `image_of_other_shape`. Each download numbers its
    photos anew: where img2dataset's JSON beside a photo (or its column `url`) tells another address than the row, the
    photo is another row's, counted as `image_of_other_row`.

    Args:
        images: folder with `KEY.jpg` (png, webp), flat or in folders named by the first five letters of the key, as
            img2dataset's `files` output has them; or tars or Parquet, see `Photos`.
        rows: `.parquet` files or JSON lines.
        out: folder to make.
        phrases: `noun_chunks`, `ref_exps` or `both`.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    rows = [Path(file) for file in rows]
    if phrases not in (*PHRASES, "both"):
        raise ValueError(f"phrases: expected {', '.join(PHRASES)} or both, got {phrases!r}")
    photos = Photos([images], addresses=True)
    inputs = {"rows": [hash_input(file) for file in rows], "phrases": phrases}
    job = Conversion("grit", CONVERTER, Path(out), inputs, "grounding", **making)
    columns = PHRASES if phrases == "both" else (phrases,)
    return job.run(rows[0], lambda reading: _make_drafts(rows, columns, photos, job.name, reading))


def _make_drafts(
    rows: Sequence[Path], columns: Sequence[str], photos: Photos, name: str, reading: Reading
) -> Iterator[Draft]:
    """The drafts in the order of the rows; keys are running numbers, for keys start anew in each download."""
    reading.read.update(rows=0, regions=0)
    for row in read_grit(rows, columns, reading.dropped):
        number = reading.read["rows"]
        reading.read.update(rows=1, regions=len(row.entries))
        folders = ("", f"{row.key[:5]}/")
        names = tuple(f"{folder}{row.key}.{ending}" for folder in folders for ending in _ENDINGS)
        regions = row.unit_regions(reading.dropped)
        location = find_photo(photos, (*names, row.key), reading, len(regions))
        if location is None:
            continue
        source = {"dataset": name, "key": row.key, **({"url": row.url} if row.url is not None else {})}
        size = (row.width, row.height) if row.width is not None and row.height is not None else None
        extras = {"source": source}
        beside = photos.beside(location)
        yield Draft(f"{number:09d}", location, row.key, row.caption, regions, extras, size, "unit", beside, row.url)
    reading.dropped.update(photos.dropped)
