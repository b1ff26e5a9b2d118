"""ODVG rows as shards: one sample a row, so an image with five captions gives five samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft
from cloc.convert.job import Conversion, Making, Reading
from cloc.formats.odvg import read_odvg
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos
from cloc.structures import Region

CONVERTER = 2
"""Raised when equal input gives other shards than before."""


def convert_odvg(images: Path, annotations: Path, out: Path, **making: Unpack[Making]) -> dict[str, Any]:
    """Convert ODVG JSON lines to shards; the kind (`detection` or `grounding`) is that of the first usable row.

    Keys are running numbers, for one photo may stand in several rows. Rows of the other kind are counted as
    `row_of_other_kind`, objects whose label had another name before as `label_of_other_category`.

    Args:
        images: where the photos lie, see `Photos`.
        annotations: the JSON lines.
        out: folder to make.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    annotations, photos = Path(annotations), Photos([images])
    inputs = {"annotations": hash_input(annotations)}
    kind = next((row.kind for row in read_odvg(annotations, Counter())), "grounding")
    job = Conversion("odvg", CONVERTER, Path(out), inputs, kind, **making)
    return job.run(annotations, lambda reading: _make_drafts(annotations, photos, job.name, kind, reading))


def _make_drafts(annotations: Path, photos: Photos, name: str, kind: str, reading: Reading) -> Iterator[Draft]:
    """The drafts in the order of the rows; counts and, at the end, the categories go into the card."""
    dropped, read, names = reading.dropped, reading.read, dict[int, str]()
    read.update(rows=0, regions=0)
    categories = reading.card.setdefault("categories", []) if kind == "detection" else []
    for row in read_odvg(annotations, dropped):
        number = read["rows"]
        read.update(rows=1, regions=len(row.regions))
        if row.kind != kind:
            dropped["row_of_other_kind"] += 1
            continue
        regions = tuple(region for region in row.regions if _has_same_name(region, names))
        dropped["label_of_other_category"] += len(row.regions) - len(regions)
        location = find_photo(photos, (row.file_name,), reading, len(regions))
        if location is not None:
            extras = {"source": {"dataset": name, "file_name": row.file_name}}
            size = (row.width, row.height)
            yield Draft(f"{number:09d}", location, row.file_name, row.caption, regions, extras, size)
    categories.extend({"id": label, "name": names[label]} for label in sorted(names))


def _has_same_name(region: Region, names: dict[int, str]) -> bool:
    label = region.extras.get("category_id")
    return label is None or names.setdefault(label, region.phrase) == region.phrase
