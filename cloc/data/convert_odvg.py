"""ODVG rows as shards: one sample a row, so an image with five captions gives five samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.data.convert_photos import fingerprint, read_photo_of_size, refuse_no_folder, write_counted
from cloc.data.formats.odvg import OdvgRow, read_odvg
from cloc.data.shards import already_made
from cloc.structures import DataError, Region, Sample

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_odvg(
    images: Path,
    annotations: Path,
    out: Path,
    name: str = "odvg",
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert ODVG JSON lines to shards; the kind (`detection` or `grounding`) is that of the first usable row.

    Keys are running numbers, for one photo may stand in several rows. Rows of the other kind are counted as
    `row_of_other_kind`, objects whose label had another name before as `label_of_other_category`.

    Args:
        images: folder of the photos.
        annotations: the JSON lines.
        out: folder to make; one that is there and was made from the same file is left alone.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an input is missing, no row can be used, or `out` holds something else.
    """
    images, annotations, out = Path(images), Path(annotations), Path(out)
    refuse_no_folder(images)
    made = {
        "by": "cloc.data.convert odvg",
        "converter": CONVERTER,
        "annotations": fingerprint(annotations),
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    dropped, read = Counter[str](), Counter[str](rows=0, regions=0)
    kind = next((row.kind for row in read_odvg(annotations, Counter())), "grounding")
    card: dict[str, Any] = {"name": name, "kind": kind, "rendered": False, "licence": licence, "made": made}
    card |= {"read": read, "dropped": dropped}
    rows = tqdm(read_odvg(annotations, dropped), desc="copying photos", unit="row", disable=not progress)
    samples = _samples(rows, images, card)
    return write_counted(samples, out, card, shard_size, annotations)


def _samples(rows: Iterator[OdvgRow], images: Path, card: dict[str, Any]) -> Iterator[Sample]:
    """The samples in the order of the rows; counts and, at the end, the categories go into the card."""
    dropped, read, names = card["dropped"], card["read"], dict[int, str]()
    categories = card.setdefault("categories", []) if card["kind"] == "detection" else []
    for row in rows:
        read.update(rows=1, regions=len(row.regions))
        if row.kind != card["kind"]:
            dropped["row_of_other_kind"] += 1
            continue
        try:
            data, ending = read_photo_of_size(images / row.file_name, row.width, row.height)
        except DataError as error:
            dropped[error.reason] += 1
            dropped["region_of_dropped_image"] += len(row.regions)
            continue
        regions = tuple(region for region in row.regions if _same_name(region, names))
        dropped["label_of_other_category"] += len(row.regions) - len(regions)
        extras = {"source": {"dataset": card["name"], "file_name": row.file_name}}
        key = f"{read['rows'] - 1:09d}"
        yield Sample(key, data, ending, row.width, row.height, row.caption, regions, extras)
    categories.extend({"id": label, "name": names[label]} for label in sorted(names))


def _same_name(region: Region, names: dict[int, str]) -> bool:
    label = region.extras.get("category_id")
    return label is None or names.setdefault(label, region.phrase) == region.phrase
