"""JSON lines of an evaluation file, every line needed: a broken one is an error, not a smaller denominator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloc.files import read_json_lines
from cloc.formats.numbers import whole

Entry = dict[str, Any]


def read_lines(file: Path, what: str, fields: Mapping[str, type | tuple[type, ...]]) -> list[Entry]:
    """The objects of a file.

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
            converted = {name: whole(entry[name]) for name in whole_numbers if name in entry}
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
