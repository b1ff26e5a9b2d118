"""LVIS v1 and v0.5 as detection shards: the federated lists of absent and unfinished categories are kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import make_annotated_drafts
from cloc.convert.drafts import Draft
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.annotated_stream import AnnotatedStream
from cloc.formats.lvis import find_lvis_photo_names
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos

CONVERTER = 3
"""Raised when equal input gives other shards than before."""


def convert_lvis(images: Sequence[Path], annotations: Path, out: Path, **making: Unpack[Making]) -> dict[str, Any]:
    """Convert an LVIS file to shards of kind `detection`: one sample an image, one region an object, no captions.

    The phrase of a region is its category's name with blanks for underscores; its `category_id` is that of the file
    (v0.5 and v1 number differently). KEY.json keeps `neg_category_ids` and `not_exhaustive_category_ids`; the card
    lists the categories with definition, synonyms and frequency, and says that the set is `federated`: only the listed
    categories are known to be absent.

    Args:
        images: where the photos lie, COCO's train2017 and val2017; see `Photos`.
        annotations: `lvis_v1_*.json`.
        out: folder to make.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    annotations, photos = Path(annotations), Photos(images)
    inputs = {"annotations": hash_input(annotations)}
    job = Conversion("lvis", CONVERTER, Path(out), inputs, "detection", **making)

    def drafts(stream: AnnotatedStream, reading: Reading) -> Iterator[Draft]:
        reading.card["federated"] = True
        return make_annotated_drafts(stream, reading, photos, find_lvis_photo_names, job.name, detection=True)

    return job.run_stream(
        f"{photos}, {annotations.name}",
        lambda: AnnotatedStream(annotations, "an LVIS annotation file", named=""),
        drafts,
    )
