"""Objects365 v2 as detection shards: COCO's layout, photos in patches, and names of which some are misspelt."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import make_annotated_drafts
from cloc.convert.job import Conversion, Making
from cloc.formats.annotated_stream import AnnotatedStream
from cloc.formats.photos import hash_input
from cloc.formats.sources import Photos

CONVERTER = 2
"""Raised when equal input gives other shards than before."""


def convert_objects365(
    images: Path, annotations: Path, out: Path, names: Path | None = None, **making: Unpack[Making]
) -> dict[str, Any]:
    """Convert `zhiyuan_objv2_train.json` to shards of kind `detection`: one sample an image, one region an object.

    Layout: COCO's JSON; `file_name` is `images/v1/patch8/objects365_v1_00420917.jpg`, and the published archives unpack
    to `patch8/...` (Objects365's own release; MMDetection's data preparation shows both). Groups (`iscrowd`) are no
    regions: counted as `crowd`, listed as `crowds`.

    Args:
        images: where the photos lie: the folder of `images/`, of the patches, or of the photos; see `Photos`.
        annotations: the JSON.
        out: folder to make.
        names: rows `id,name,corrected name`, such as Detic's `Objects365_names_fix.csv`.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    annotations, photos = Path(annotations), Photos([images])
    inputs = {"annotations": hash_input(annotations), "names": None if names is None else hash_input(Path(names))}
    job = Conversion("objects365", CONVERTER, Path(out), inputs, "detection", **making)

    def opened() -> AnnotatedStream:
        stream = AnnotatedStream(annotations, "Objects365's annotation file")
        if names is not None:
            _correct_names(stream, Path(names))
        return stream

    return job.run_stream(
        f"{photos}, {annotations.name}",
        opened,
        lambda stream, reading: make_annotated_drafts(stream, reading, photos, _list_paths, job.name, detection=True),
    )


def _list_paths(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """`images/v1/patch8/a.jpg` may lie there, in `patch8/a.jpg`, or alone."""
    parts = entry["file_name"].split("/")
    return tuple(dict.fromkeys("/".join(parts[first:]) for first in (0, max(0, len(parts) - 2), len(parts) - 1)))


def _correct_names(stream: AnnotatedStream, file: Path) -> None:
    with file.open(encoding="utf-8", newline="") as rows:
        for line, row in enumerate(csv.reader(rows), 1):
            known = stream.categories.get(int(row[0])) if len(row) == 3 and row[0].isdigit() else None
            if known is None or known.name.strip() != row[1].strip():
                raise ValueError(
                    f"{file}:{line}: expected id, name and corrected name of a category of {stream.file.name}, "
                    f"got {','.join(row)!r}"
                )
            stream.categories[known.id] = replace(known, name=row[2].strip())
