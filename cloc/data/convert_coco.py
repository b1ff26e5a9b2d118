"""COCO's instances and captions as shards: one sample an image, one region an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cloc.data.convert_annotated import write_annotated
from cloc.data.convert_photos import fingerprint, refuse_no_folder
from cloc.data.formats.coco import read_coco
from cloc.data.shards import already_made

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_coco(
    images: Path,
    instances: Path,
    out: Path,
    captions: Path | None = None,
    name: str = "coco",
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert COCO instances (and captions) to shards: one sample an image, one region an object.

    The phrase of a region is its category's name. Crowd boxes stand for no single object: they are left out and counted
    as `crowd`. The caption is the first one; all are kept in `captions`. Images without one get an empty caption.

    Args:
        images: folder of the photos.
        instances: `instances_*.json`.
        out: folder to make; one that is there and was made from the same files is left alone.
        captions: `captions_*.json`.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an input is missing, no photo is there, or `out` holds something else.
    """
    images, instances, out = Path(images), Path(instances), Path(out)
    captions = None if captions is None else Path(captions)
    refuse_no_folder(images)
    made = {
        "by": "cloc.data.convert coco",
        "converter": CONVERTER,
        "instances": fingerprint(instances),
        "captions": None if captions is None else fingerprint(captions),
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    annotated = read_coco(instances, images, captions, name)
    return write_annotated(annotated, str(images), out, made, "regions", shard_size, licence, progress)
