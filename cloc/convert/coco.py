"""COCO's instances and captions as shards: one sample an image, one region an object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import make_annotated_drafts
from cloc.convert.job import Conversion, Making
from cloc.formats.annotated_stream import AnnotatedStream
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos

CONVERTER = 3
"""Raised when equal input gives other shards than before."""


def convert_coco(
    images: Path,
    instances: Path,
    out: Path,
    captions: Path | None = None,
    limit: int | None = None,
    masks: bool = False,
    **making: Unpack[Making],
) -> dict[str, Any]:
    """Convert COCO instances (and captions) to shards: one sample an image, one region an object.

    The phrase of a region is its category's name. Crowd boxes stand for no single object: they are no regions, are
    counted as `crowd` and listed as `crowds`. The caption is the first one; all are kept in `captions`. Images without
    one get an empty caption.

    Args:
        images: where the photos lie, see `Photos`.
        instances: `instances_*.json`.
        out: folder to make.
        captions: `captions_*.json`.
        limit: only the first so many images, in the order of the file; None for all.
        masks: write the objects' masks into the regions, as COCO's compressed RLE.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    instances, captions = Path(instances), None if captions is None else Path(captions)
    photos = Photos([images])
    inputs = {
        "instances": hash_input(instances),
        "captions": None if captions is None else hash_input(captions),
    }
    if limit is not None:
        inputs["limit"] = limit
    if masks:
        inputs["masks"] = True
    job = Conversion("coco", CONVERTER, Path(out), inputs, "regions", **making)
    return job.run_stream(
        f"{photos}, {instances.name}",
        lambda: AnnotatedStream(instances, "a COCO instances file", captions, outlines=masks),
        lambda stream, reading: make_annotated_drafts(
            stream, reading, photos, lambda entry: (entry["file_name"],), job.name, masks=masks
        ),
        limit,
    )
