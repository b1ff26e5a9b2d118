"""LVIS v1 and v0.5 as detection shards: the federated lists of absent and unfinished categories are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloc.data.convert_annotated import write_annotated
from cloc.data.convert_photos import fingerprint, refuse_no_folder
from cloc.data.formats.lvis import read_lvis
from cloc.data.shards import already_made

CONVERTER = 1
"""Raised when equal input gives other shards than before."""


def convert_lvis(
    images: Sequence[Path],
    annotations: Path,
    out: Path,
    name: str = "lvis",
    shard_size: int = 1000,
    licence: str = "as the annotation file says",
    progress: bool = True,
) -> dict[str, Any]:
    """Convert an LVIS file to shards of kind `detection`: one sample an image, one region an object, no captions.

    The phrase of a region is its category's name with blanks for underscores; its `category_id` is that of the file
    (v0.5 and v1 number differently). KEY.json keeps `neg_category_ids` and `not_exhaustive_category_ids`; the card
    lists the categories with definition and frequency.

    Args:
        images: folders of the photos, COCO's train2017 and val2017.
        annotations: `lvis_v1_*.json`.
        out: folder to make; one that is there and was made from the same file is left alone.
        name: of the set, for its card.
        shard_size: samples a shard.
        licence: text for the card.
        progress: show a bar.

    Returns:
        The card; `dropped` counts by reason what was left out (photos as `image_...`).

    Raises:
        ValueError: an input is missing, no photo is there, or `out` holds something else.
    """
    images, annotations, out = [Path(folder) for folder in images], Path(annotations), Path(out)
    for folder in images:
        refuse_no_folder(folder)
    made = {
        "by": "cloc.data.convert lvis",
        "converter": CONVERTER,
        "annotations": fingerprint(annotations),
        "name": name,
        "shard_size": shard_size,
    }
    there = already_made(out, made)
    if there is not None:
        return there
    annotated = read_lvis(annotations, images, name)
    folders = ", ".join(map(str, images))
    return write_annotated(annotated, folders, out, made, "detection", shard_size, licence, progress)
