"""ODVG, the JSON lines of open Grounding DINO and MM-Grounding DINO: detection rows and grounding rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.files import is_text
from cloc.formats.annotated import check_box
from cloc.formats.frames import XYXY, FrameWatch
from cloc.formats.numbers import parse_four, parse_numbers, parse_whole
from cloc.formats.photos import is_absolute, normalise_path
from cloc.formats.rows import keep_kind, read_json_rows, strip_caption
from cloc.structures import DataError, Region


@dataclass(frozen=True)
class OdvgRow:
    """One row: an image, and either its objects or a caption with boxes for its phrases.

    Attributes:
        file_name: of the photo, inside its folder.
        width, height: pixels.
        kind: `detection` or `grounding`.
        caption: without outer blanks; empty in a detection row.
        regions: cut at the image's border; `category_id` (detection) or `span` (grounding, where the row tells one) in
            their extras.
    """

    file_name: str
    width: int
    height: int
    kind: str
    caption: str
    regions: tuple[Region, ...]


def read_odvg(file: Path, dropped: Counter[str]) -> Iterator[OdvgRow]:
    """Read rows `{"filename", "height", "width", "detection": {"instances": [...]}}`, or with `"grounding"`.

    Boxes are xyxy pixels. A phrase with several boxes gives several regions.

    Args:
        file: the JSON lines; read one at a time.
        dropped: gets what is left out: bad_row, bad_file_name (climbs out of the folder), bad_region,
            second_kind_of_row (a grounding part beside a detection part), and the reasons of `Region`;
            box_cut_at_border counts boxes that were kept and cut.

    Raises:
        ValueError: there is no such file, or its boxes are not corners in pixels.
    """
    watch = FrameWatch(file, XYXY)
    for row in read_json_rows(Path(file), dropped):
        name, width, height = row.get("filename"), parse_whole(row.get("width")), parse_whole(row.get("height"))
        if not is_text(name) or width is None or height is None or min(width, height) < 1:
            dropped["bad_row"] += 1
            continue
        inside = normalise_path(name)
        if is_absolute(inside) or ".." in inside.split("/") or "\0" in name:
            dropped["bad_file_name"] += 1
            continue
        kind = next((kind for kind in ("detection", "grounding") if isinstance(row.get(kind), dict)), None)
        dropped["second_kind_of_row"] += all(isinstance(row.get(kind), dict) for kind in ("detection", "grounding"))
        content = row[kind] if kind is not None else {}
        entries = content.get("instances" if kind == "detection" else "regions")
        text = content.get("caption", "")
        if not isinstance(entries, list) or not is_text(text):
            dropped["bad_row"] += 1
            continue
        caption, lead = strip_caption(text)
        regions = tuple(_make_regions(entries, kind == "detection", lead, (width, height), watch, dropped))
        yield OdvgRow(name, width, height, str(kind), caption, regions)
    watch.refuse(dropped)


def _make_regions(
    entries: list[Any],
    detection: bool,
    lead: int,
    size: tuple[int, int],
    watch: FrameWatch,
    dropped: Counter[str],
) -> Iterator[Region]:
    for entry in keep_kind(dict, entries, dropped):
        boxes = entry.get("bbox")
        if not isinstance(boxes, list):
            dropped["bad_region"] += 1
            continue
        phrase, extras = _read_named(entry) if detection else _read_spoken(entry, lead)
        for box in boxes if boxes and isinstance(boxes[0], list) else [boxes]:
            numbers = parse_four(box)
            if numbers is not None:
                watch.see(numbers, *size)
            inside, reason = check_box(numbers, *size, xywh=False)
            if reason is not None:
                dropped[reason] += 1
            if inside is None:
                continue
            try:
                yield Region(tuple(parse_numbers(box)), phrase, extras=extras).inside(*size)
            except DataError as error:
                dropped[error.reason] += 1


def _read_named(entry: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    label = parse_whole(entry.get("label"))
    return entry.get("category"), {"category_id": label} if label is not None else {}


def _read_spoken(entry: Mapping[str, Any], lead: int) -> tuple[Any, dict[str, Any]]:
    """Phrase and span; a phrase of several parts (a list) is joined and has no span."""
    phrase, spans = entry.get("phrase"), entry.get("tokens_positive")
    if isinstance(phrase, list) and all(isinstance(part, str) for part in phrase):
        phrase = " ".join(phrase)
    span = spans[0] if isinstance(spans, list) and len(spans) == 1 else None
    ends = [parse_whole(end) for end in span] if isinstance(span, list) and len(span) == 2 else []
    if len(ends) != 2 or not all(end is not None and end >= lead for end in ends):
        return phrase, {}
    return phrase, {"span": [end - lead for end in ends]}
