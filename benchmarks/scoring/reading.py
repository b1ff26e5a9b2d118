"""Opens JSON and JSON lines, and takes columns of numbers out of them; numbers as texts are read as the numbers."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloc.files import parse_json
from cloc.formats.numbers import parse_flag, parse_four, parse_real, parse_whole

Entry = dict[str, Any]
LARGE = 64 << 20
"""Bytes from which on a list is read in parts."""
PART = 8 << 20
_BETWEEN = re.compile(rb"\}\s*,\s*\{")


def read_any(path: Path, what: str) -> Any:
    """A JSON value, or a list of objects where the file holds one a line.

    Raises:
        ValueError: the file is missing or is neither.
    """
    if not path.is_file():
        raise ValueError(f"{what}: expected a file, found none at {path}")
    raw = path.read_bytes()
    try:
        return parse_json(raw, str(path))
    except ValueError as no_document:
        lines = [line for line in raw.removeprefix(codecs.BOM_UTF8).split(b"\n") if line.strip()]
        if not lines:
            return []
        if len(lines) == 1:
            raise ValueError(f"{what}: expected JSON or JSON lines, got neither ({no_document})") from None
        try:
            return [parse_json(line, f"{path}:{number}") for number, line in enumerate(lines, 1)]
        except ValueError as error:
            raise ValueError(f"{what}: expected JSON or JSON lines, got neither ({no_document}; {error})") from None


def read_parts(path: Path, what: str) -> Iterator[Any]:
    """The list in a JSON file some megabytes at a time: a dict a box would not fit where its arrays do.

    The list is cut between objects (`},` and `{` with white space between). Where a piece is no list, because such a
    place lies inside an entry, or the file is of another layout, the file is read whole.

    Raises:
        ValueError: the file is missing or is no JSON.
    """
    if not path.is_file() or path.stat().st_size < LARGE:
        yield read_any(path, what)
        return
    raw, start, last = path.read_bytes().strip(), 1, False
    if raw[:1] != b"[":
        yield read_any(path, what)
        return
    while not last:
        cut = _BETWEEN.search(raw, start + PART)
        last = cut is None
        piece = raw[start:-1] if cut is None else raw[start : cut.start() + 1]
        try:
            part = parse_json(b"[" + piece + b"]", str(path))
        except ValueError:
            if start > 1:
                raise ValueError(
                    f"{what}: expected a list of plain objects, got something else after byte {start}"
                ) from None
            yield read_any(path, what)
            return
        yield part
        start = len(raw) if cut is None else cut.end() - 1


def list_entries(content: Any, what: str) -> list[Entry]:
    """The content as a list of objects; a file of one line reads as one object.

    Raises:
        ValueError: it is no such list.
    """
    entries = [content] if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError(f"{what}: expected a list of objects or one object a line, got {type(content).__name__}")
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{what}[{place}]: expected an object, got {entry!r}")
    return entries


def read_integers(entries: Sequence[Entry], name: str, what: str, first: int = 0) -> NDArray[np.int64]:
    """(K,) whole numbers of one field; `first` is the place of the first entry in its file, for messages.

    Raises:
        ValueError: one is missing or no whole number.
    """
    values = [entry.get(name) for entry in entries]
    parsed = [parse_whole(value) for value in values]
    if None in parsed:
        place = parsed.index(None)
        raise ValueError(f"{what}[{place + first}]: expected a whole number {name}, got {values[place]!r:.80}")
    return np.array(parsed, dtype=np.int64)


def read_numbers(entries: Sequence[Entry], name: str, what: str, first: int = 0) -> NDArray[np.float64]:
    """(K,) finite numbers of one field; `first` as above.

    Raises:
        ValueError: one is missing, no number, NaN or infinite.
    """
    values = [entry.get(name) for entry in entries]
    parsed = [value if type(value) is float else _number(value) for value in values]
    if None in parsed:
        place = parsed.index(None)
        raise ValueError(f"{what}[{place + first}]: expected a number {name}, got {values[place]!r:.80}")
    return _finite(np.array(parsed, dtype=np.float64), name, what, first)


def _number(value: object) -> float | None:
    """The number that a value says, also one that is not finite; None where it says none."""
    if isinstance(value, str) and value.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(value)
    return parse_real(value)


def read_boxes(entries: Sequence[Entry], name: str, what: str, first: int = 0) -> NDArray[np.float64]:
    """(K, 4) finite numbers of one field; `first` as above.

    Raises:
        ValueError: one is missing, not four numbers, NaN or infinite.
    """
    values = [entry.get(name) for entry in entries]
    parsed = [parse_four(value) for value in values]
    if None in parsed:
        place = parsed.index(None)
        raise ValueError(f"{what}[{place + first}]: expected four numbers {name}, got {values[place]!r:.120}")
    return _finite(np.array(parsed, dtype=np.float64).reshape(-1, 4), name, what, first)


def read_flags(entries: Sequence[Entry], name: str) -> NDArray[np.bool_]:
    """(K,) whether a flag is set: 0, "0", "false" and none are not."""
    return np.array([parse_flag(entry.get(name, 0)) for entry in entries], dtype=bool)


def count_repeated(*columns: NDArray) -> int:
    """How many rows of some columns of one length stand there again, equal in every number."""
    wide = np.column_stack([np.asarray(column, dtype=np.float64) for column in columns])
    weights = np.random.default_rng(0).uniform(1, 2, wide.shape[1])  # equal rows have equal sums, others hardly ever
    return len(wide) - len(np.unique(wide @ weights))


def require_different(ids: NDArray[np.int64], name: str, what: str) -> None:
    """Check that no id occurs twice.

    Raises:
        ValueError: one does.
    """
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1]
        raise ValueError(
            f"{what}: expected each {name} once, got {twice[0]} {counts[counts > 1][0]} times "
            f"({len(twice):,} such); was the file written twice?"
        )


def _finite(values: NDArray[np.float64], name: str, what: str, first: int) -> NDArray[np.float64]:
    rows = np.flatnonzero(~np.isfinite(values if values.ndim == 1 else values.sum(axis=1)))
    if rows.size:
        raise ValueError(
            f"{what}[{rows[0] + first}]: expected a finite {name}, got {values[rows[0]].tolist()} "
            f"({rows.size:,} such); predict these again or leave them out"
        )
    return values
