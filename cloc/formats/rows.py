"""Rows of a file that comes as a JSON list, as JSON lines or as Parquet, one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloc.formats.json_lines import json_rows
from cloc.formats.json_stream import stream_json


def rows_of(file: Path, what: str, dropped: Counter[str]) -> Iterator[dict[str, Any]]:
    """The rows of a `.json` (a list), `.jsonl` or `.parquet` file.

    Args:
        file: which.
        what: what it should be, for messages.
        dropped: gets bad_row for whatever is no object.

    Raises:
        ValueError: there is no such file, or it is not what its ending says.
    """
    if file.suffix == ".jsonl":
        yield from json_rows(file, dropped)
    elif file.suffix == ".parquet":
        yield from _table_rows(file, what)
    else:
        for field, row in stream_json(file, what, dropped):
            if field == "" and isinstance(row, dict):
                yield row
            else:
                dropped["bad_row"] += 1


def _table_rows(file: Path, what: str) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as parquet

    if not file.is_file():
        raise ValueError(f"{file}: expected {what}, found no file; check the path")
    try:
        table = parquet.ParquetFile(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: expected {what} as Parquet, got none ({error}); download it again") from error
    with table:
        for batch in table.iter_batches(batch_size=1000):
            yield from batch.to_pylist()
