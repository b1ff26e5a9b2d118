"""What the readers of row formats have in common: JSON lines one at a time, and captions without outer blanks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloc.files import read_json_lines


def json_rows(file: Path, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
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


def only(kind: type, entries: list[Any], dropped: Counter[str]) -> list[Any]:
    """The entries of a row's list that are objects (or lists). Others are one fault of their row, however many.

    Args:
        kind: dict or list.
        entries: as they came.
        dropped: gets bad_region.
    """
    found = [entry for entry in entries if isinstance(entry, kind)]
    dropped["bad_region"] += len(found) < len(entries)
    return found
