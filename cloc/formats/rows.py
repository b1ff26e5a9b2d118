"""Rows of a file that comes as a JSON list, as JSON lines or as Parquet, one at a time, and the captions in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloc.files import read_json_lines
from cloc.formats.json_stream import stream_json
from cloc.formats.numbers import parse_whole


def stream_rows(file: Path, what: str, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows of a `.json` (a list), `.jsonl` or `.parquet` file.

    Args:
        file: which.
        what: what it should be, for messages.
        dropped: gets bad_row for whatever is no object.

    Raises:
        ValueError: there is no such file, or it is not what its ending says.
    """
    if file.suffix == ".jsonl":
        yield from read_json_rows(file, dropped)
    elif file.suffix == ".parquet":
        with open_parquet(file, f"{what} as Parquet") as table:
            for batch in table.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    else:
        for field, row in stream_json(file, what, dropped):
            if field == "" and isinstance(row, dict):
                yield row
            else:
                dropped["bad_row"] += 1


def open_parquet(file: Path, what: str) -> Any:
    """Pyarrow's reader of a Parquet file.

    Raises:
        ValueError: there is no such file, or it is no Parquet.
    """
    import pyarrow.parquet as parquet

    if not file.is_file():
        raise ValueError(f"{file}: expected {what}, found no file; check the path")
    try:
        return parquet.ParquetFile(file)
    except (ValueError, OSError) as error:  # pyarrow's own errors are ones of these
        raise ValueError(f"{file}: expected {what}, got none ({error}); download it again") from error


def read_json_rows(file: Path, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, one at a time; memory does not grow with the file.

    Args:
        file: one object a line; blank lines are passed over.
        dropped: gets bad_row for each line that is no JSON object (such as a last line cut in the middle), or breaks
            the bounds of `cloc.files`.

    Raises:
        ValueError: there is no such file.
    """
    for _, row in read_json_lines(file, "JSON lines", dropped):
        if isinstance(row, dict):
            yield row
        else:
            dropped["bad_row"] += 1


def strip_caption(caption: str) -> tuple[str, int]:
    """(the caption as a shard keeps it, how far spans into it move to the left)."""
    return caption.strip(), len(caption) - len(caption.lstrip())


def keep_kind(kind: type, entries: list[Any], dropped: Counter[str]) -> list[Any]:
    """The entries of a row's list that are objects (or lists). Others are one fault of their row, however many.

    Args:
        kind: dict or list.
        entries: as they came.
        dropped: gets bad_region.
    """
    found = [entry for entry in entries if isinstance(entry, kind)]
    dropped["bad_region"] += len(found) < len(entries)
    return found


def join_phrase(caption: str, pieces: object, lead: int = 0) -> tuple[str | None, list[int] | None]:
    """(phrase, its [start, end) in the caption) of the pieces that a box belongs to.

    Pieces with nothing but blanks between them are one. Where they are apart they are joined by a blank and there is no
    one span: None.

    Args:
        caption: without outer blanks.
        pieces: a list of [start, end) in the caption as it was before.
        lead: how many blanks were taken from its beginning.

    Returns:
        (None, None) where a piece is none, or lies outside the caption.
    """
    if not isinstance(pieces, list) or not pieces:
        return None, None
    spans: list[list[int]] = []
    for piece in pieces:
        is_span = isinstance(piece, list) and len(piece) == 2 and all(isinstance(end, int) for end in piece)
        if not is_span or not lead <= piece[0] < piece[1] <= len(caption) + lead:
            return None, None
        spans.append([piece[0] - lead, piece[1] - lead])
    joined: list[list[int]] = []
    for start, end in sorted(spans):
        if joined and not caption[joined[-1][1] : start].strip():
            joined[-1][1] = max(end, joined[-1][1])
        else:
            joined.append([start, end])
    phrase = " ".join(caption[start:end] for start, end in joined)
    return phrase, joined[0] if len(joined) == 1 else None


def read_lines(file: Path, what: str, fields: Mapping[str, type | tuple[type, ...]]) -> list[dict[str, Any]]:
    """The objects of an evaluation file, every line needed: a broken one is an error, not a smaller denominator.

    Args:
        file: one object a line; blank lines are passed over.
        what: what the file should be, for messages.
        fields: those that each object must have, and their types. Whole numbers may be written as texts or with a
            decimal point.

    Raises:
        ValueError: the file is missing or empty, or a line is no such object.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected {what}, found no file; check the path or the data root")
    entries = []
    whole_numbers = [name for name, kind in fields.items() if kind is int]
    for number, entry in read_json_lines(file, what):
        if isinstance(entry, dict):
            converted = {name: parse_whole(entry[name]) for name in whole_numbers if name in entry}
            entry |= {name: value for name, value in converted.items() if value is not None}
        lacking = [n for n, kind in fields.items() if not isinstance(entry, dict) or not isinstance(entry.get(n), kind)]
        if lacking:
            raise ValueError(
                f"{file}:{number}: expected a line of {what} with {', '.join(lacking)}, got {str(entry)[:80]}"
            )
        entries.append(entry)
    if not entries:
        raise ValueError(f"{file}: expected {what}, got an empty file; download it again")
    return entries
