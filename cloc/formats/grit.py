"""GRIT (Kosmos-2), Parquet or JSON lines: captions with boxes for their noun chunks and referring expressions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.files import is_text
from cloc.formats.frames import UNIT, FrameWatch
from cloc.formats.layouts import describe_other_layout
from cloc.formats.numbers import parse_numbers, parse_real, parse_whole
from cloc.formats.rows import keep_kind, open_parquet, read_json_rows, strip_caption
from cloc.structures import DataError, Region

PHRASES = ("noun_chunks", "ref_exps")
"""The two columns of boxes. A referring expression is a noun chunk with all that the sentence says of it."""

_COLUMNS = ("key", "caption", "url", "width", "height")
_BATCH = 1000


@dataclass(frozen=True)
class GritRow:
    """One row.

    Attributes:
        key: the photo's name without its ending.
        caption: without outer blanks.
        width, height: of the photo at its address, pixels; None where the row does not tell. A downloaded photo may
            have been made smaller.
        url: where the photo was, None where the row does not tell.
        entries: (start, end, x0, y0, x1, y1, score): the phrase is caption[start:end], the box is xyxy in [0, 1].
    """

    key: str
    caption: str
    width: int | None
    height: int | None
    url: str | None
    entries: tuple[tuple[float, ...], ...]

    def unit_regions(self, dropped: Counter[str]) -> tuple[Region, ...]:
        """The regions, with boxes in [0, 1] of the photo; what cannot be used is counted by reason."""
        found = []
        for start, end, x0, y0, x1, y1, score in self.entries:
            span = [int(start), int(end)]  # finite: `_entries` passes over others
            if not 0 <= span[0] < span[1] <= len(self.caption):
                dropped["bad_span"] += 1
                continue
            try:
                found.append(Region((x0, y0, x1, y1), self.caption[slice(*span)], score=score, extras={"span": span}))
            except DataError as error:
                dropped[error.reason] += 1
        return tuple(found)


def read_grit(files: Sequence[Path], phrases: Sequence[str], dropped: Counter[str]) -> Iterator[GritRow]:
    """Read rows from `.parquet` or JSON-lines files, one at a time.

    Args:
        files: in the order in which they are read.
        phrases: which of `PHRASES` to take. An entry that both columns hold is taken once, the other time counted.
        dropped: gets what is left out: bad_row, bad_key (no plain file name), bad_region, same_region_twice.

    Raises:
        ValueError: a file is missing, or is a Parquet file of something else.
    """
    for file in map(Path, files):
        watch = FrameWatch(file, UNIT)
        for row in _read_table_rows(file, phrases) if file.suffix == ".parquet" else read_json_rows(file, dropped):
            key, caption = row.get("key"), row.get("caption")
            if not (is_text(key) or parse_whole(key) is not None) or not is_text(caption):
                dropped["bad_row"] += 1
            elif not str(key).replace("-", "").replace("_", "").isalnum():
                dropped["bad_key"] += 1
            else:
                text, lead = strip_caption(caption)
                width, height = _read_size(row)
                url = row["url"] if is_text(row.get("url")) else None
                entries = _entries(row, phrases, lead, dropped)
                for entry in entries:
                    watch.see(entry[2:6], width or math.nan, height or math.nan)
                yield GritRow(str(key), text, width, height, url, entries)
        watch.refuse(dropped)


def _read_size(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    width, height = parse_whole(row.get("width")), parse_whole(row.get("height"))
    return (width, height) if width and height and min(width, height) > 0 else (None, None)


def _read_table_rows(file: Path, phrases: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    with open_parquet(file, "a Parquet file of GRIT") as table:
        there = table.schema_arrow.names
        lacking = [name for name in ("key", "caption", *phrases) if name not in there]
        if lacking:
            raise ValueError(
                f"{file}: expected a Parquet file of GRIT, found no column {', '.join(lacking)}"
                f"{describe_other_layout(file)}"
            )
        wanted = [name for name in (*_COLUMNS, *phrases) if name in there]
        for batch in table.iter_batches(batch_size=_BATCH, columns=wanted):
            yield from batch.to_pylist()


def _entries(
    row: Mapping[str, Any], phrases: Sequence[str], lead: int, dropped: Counter[str]
) -> tuple[tuple[float, ...], ...]:
    found: dict[tuple[float, ...], None] = {}
    for column in phrases:
        entries = row.get(column)
        entries = [] if entries is None else entries
        if not isinstance(entries, list):
            dropped["bad_region"] += 1
            continue
        for entry in keep_kind(list, entries, dropped):
            values = [parse_real(value) for value in entry] if len(entry) == 7 else [None]
            if None in values:
                dropped["bad_region"] += 1
                continue
            values = parse_numbers(entry)
            moved = (values[0] - lead, values[1] - lead, *values[2:])
            dropped["same_region_twice"] += moved in found
            found[moved] = None
    return tuple(found)
