"""FineHARD (FG-CLIP) as shards: a long and a short caption, regions with short and long texts and hard negatives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from cloc.convert.annotated import find_photo
from cloc.convert.drafts import Draft, make_region
from cloc.convert.job import Conversion, Making, Reading
from cloc.files import is_text, parse_json
from cloc.formats.frames import UNIT, FrameWatch
from cloc.formats.numbers import parse_flag, parse_four, parse_numbers, parse_real
from cloc.formats.photos import hash_input
from cloc.formats.rows import keep_kind, stream_rows
from cloc.formats.sources import Photos
from cloc.structures import Region

CONVERTER = 1
"""Raised when equal input gives other shards than before."""

PHRASES = {"short": ("short_expr",), "long": ("long_expr",), "both": ("short_expr", "long_expr")}
"""Which of a box's texts become phrases; with `both` a box gives two regions."""


def convert_finehard(
    images: Path, rows: Sequence[Path], out: Path, phrases: str = "short", **making: Unpack[Making]
) -> dict[str, Any]:
    """Convert FineHARD to shards of kind `regions`. The caption is the long one; `captions` holds both.

    Layout (360CVGroup/FG-CLIP, `fgclip/train/train_fgclip.py` and `data/data.md`): lists of `{f_path, caption,
    short_caption, bbox_info: [{bbox: [x0, y0, x1, y1, score], short_expr, long_expr, flag_short_neg,
    short_expr_negs: {...}}]}`, boxes in [0, 1] of the photo. A region keeps its hard negatives as `negatives`.

    Args:
        images: folder of `coyo_image_0/...`; see `Photos`.
        rows: `jsonfiles/*.json`, JSON lines or Parquet.
        out: folder to make.
        phrases: one of `PHRASES`.
        **making: see `Making`.

    Returns and raises as `Conversion.run`.
    """
    files = [Path(file) for file in rows]
    if phrases not in PHRASES:
        raise ValueError(f"--phrases: expected one of {', '.join(PHRASES)}, got {phrases!r}")
    photos = Photos([images])
    inputs = {"rows": [hash_input(file) for file in files], "phrases": phrases}
    job = Conversion("finehard", CONVERTER, Path(out), inputs, "regions", **making)
    return job.run(files[0], lambda reading: _make_drafts(files, PHRASES[phrases], photos, job.name, reading))


def _make_drafts(
    files: Sequence[Path], columns: Sequence[str], photos: Photos, name: str, reading: Reading
) -> Iterator[Draft]:
    reading.read.update(rows=0, boxes=0)
    for file in files:
        watch = FrameWatch(file, UNIT)
        for row in stream_rows(file, "rows of FineHARD", reading.dropped):
            number = reading.read["rows"]
            boxes = _parse_boxes(row.get("bbox_info"))
            reading.read.update(rows=1, boxes=len(boxes))
            texts = [
                " ".join(text.split()) for text in (row.get("caption"), row.get("short_caption")) if _is_said(text)
            ]
            path = row.get("f_path")
            if not is_text(path) or not texts:
                reading.dropped["bad_row"] += 1
                continue
            regions = tuple(
                region
                for box in keep_kind(dict, boxes, reading.dropped)
                for region in _make_regions(box, columns, watch, reading)
            )
            inside = path[path.find("coyo_image_") :] if "coyo_image_" in path else path
            location = find_photo(photos, (path, inside), reading, len(regions))
            if location is not None:
                extras = {"captions": texts, "source": {"dataset": name, "file_name": path}}
                yield Draft(f"{number:09d}", location, path, texts[0], regions, extras, None, "unit")
        watch.refuse(reading.dropped)
    reading.dropped.update(photos.dropped)


def _is_said(text: object) -> bool:
    return is_text(text) and bool(text.strip())


def _parse_boxes(value: Any) -> list[Any]:
    """A list; in tables it may stand as JSON text."""
    if isinstance(value, str):
        try:
            value = parse_json(value, "bbox_info")
        except ValueError:
            return [None]
    return value if isinstance(value, list) else []


def _make_regions(box: Any, columns: Sequence[str], watch: FrameWatch, reading: Reading) -> Iterator[Region]:
    corners = box.get("bbox")
    if not isinstance(corners, list) or len(corners) not in (4, 5):
        reading.dropped["bad_region"] += 1
        return
    numbers = parse_four(corners[:4])
    if numbers is not None:
        watch.see(numbers)
    negatives = box.get("short_expr_negs")
    values = list(negatives.values()) if isinstance(negatives, Mapping) else negatives
    listed = values if isinstance(values, list) else []
    hard = [text for text in listed if _is_said(text)] if parse_flag(box.get("flag_short_neg")) else []
    score = corners[4] if len(corners) == 5 and parse_real(corners[4]) is not None else None
    score = parse_real(score) if isinstance(score, str) else score
    for column in columns:
        extras: dict[str, Any] = {"negatives": hard} if hard and column == "short_expr" else {}
        region = make_region(
            corners[:4] if numbers is None else parse_numbers(corners[:4]),
            box.get(column),
            reading.dropped,
            score=score,
            extras=extras,
        )
        if region is not None:
            yield region
