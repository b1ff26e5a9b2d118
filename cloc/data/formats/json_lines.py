"""What the readers of row formats have in common: JSON lines one at a time, and captions without outer blanks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def json_rows(file: Path, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, one at a time; memory does not grow with the file.

    Args:
        file: one object a line; blank lines are passed over.
        dropped: gets bad_row for each line that is no JSON object (such as a last line cut in the middle).

    Raises:
        ValueError: there is no such file.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected a file of JSON lines, found no file; check the path")
    with file.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if b"\\ud" in line.lower():
                    json.dumps(row, ensure_ascii=False).encode()  # half a surrogate pair: no text
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield row
            else:
                dropped["bad_row"] += 1


def strip_caption(caption: str) -> tuple[str, int]:
    """(the caption as a shard keeps it, how far spans into it move to the left)."""
    return caption.strip(), len(caption) - len(caption.lstrip())
