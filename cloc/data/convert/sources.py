"""Where photos lie: in folders, in tars (img2dataset's among them) or in Parquet. They are found by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cloc.data.shards import ShardIndex
from cloc.structures import DataError

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "bytes")
"""Columns of a Parquet file that may hold encoded photos, as bytes or as datasets' {bytes, path}."""

NAME_COLUMNS = ("file_name", "image_path", "path", "key", "id")
"""Columns that name a photo, the first that is there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where some bytes lie.

    Attributes:
        file: a path.
        offset: of the first byte (a tar), 0 for a whole file.
        size: in bytes, -1 for a whole file.
        row: of a Parquet file, -1 for any other.
        column: of a Parquet file, else empty.
    """

    file: str
    offset: int = 0
    size: int = -1
    row: int = -1
    column: str = ""

    def read(self) -> bytes:
        """The bytes.

        Raises:
            DataError: image_missing or image_unreadable.
        """
        if self.row >= 0:
            return _cell(self.file, self.row, self.column)
        try:
            with open(self.file, "rb", buffering=0) as file:
                if self.size < 0:
                    return file.read()
                data = os.pread(file.fileno(), self.size, self.offset)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError) as error:
            raise DataError("image_missing", f"{self.file}: no such file") from error
        except OSError as error:  # a name that is too long is no file either
            reason = "image_missing" if not os.path.exists(self.file) else "image_unreadable"
            raise DataError(reason, f"{self.file}: {error}") from error
        if len(data) < self.size:
            raise DataError("image_unreadable", f"{self.file}: it ends before byte {self.offset + self.size}")
        return data

    def length(self) -> int:
        """How many bytes these are, 0 where that cannot be told beforehand."""
        if self.size >= 0:
            return self.size
        try:
            return os.stat(self.file).st_size if self.row < 0 else 0
        except (OSError, ValueError):
            return 0


class Photos:
    """The photos of one or several places, in the order in which they were given.

    A place is a folder of photos at any depth, a folder of tars, a tar, or a Parquet file or a folder of them with a
    column of photos. For tars and Parquet the names are kept in memory, some 200 bytes a photo; folders are not listed.

    Attributes:
        roots: the places.
        dropped: members of tars that cannot be used, by reason (bad_name: it climbs out of the folder).
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(Path(root) for root in roots)
        self.dropped = Counter[str]()
        self._folders: list[Path] = []
        self._names: dict[str, Place] = {}
        if not self.roots:
            raise ValueError("--images: expected at least one folder, tar or Parquet file, got none")
        for root in self.roots:
            self._open(root)

    def _open(self, root: Path) -> None:
        tars, tables = tars_of(root), tables_of(root)
        if not tars and not tables:
            if not root.is_dir():
                raise ValueError(f"{root}: expected the folder of the photos, found no folder; check --images")
            self._folders.append(root)
        for tar in tars:
            index = ShardIndex.open(tar)
            self.dropped.update(index.dropped)
            for key, members in index.entries:
                for ending, (offset, size) in members.items():
                    self._add(f"{key}.{ending}", Place(str(tar), offset, size))
        for table in tables:
            for name, place in table_photos(table):
                self._add(name, place)

    def _add(self, name: str, place: Place) -> None:
        """By its path, and by its file name where no photo before had the same."""
        name = _normal(name)
        self._names.setdefault(name, place)
        self._names.setdefault(name.rsplit("/", 1)[-1], place)

    def find(self, *names: str) -> Place:
        """The photo with the first of these names that is there; else where the first would be, for the message.

        Raises:
            DataError: bad_file_name, a name climbs out of the folder.
        """
        for name in names:
            refuse_climbing(name)
        for name in names:
            for folder in self._folders:
                inside = name.removeprefix(f"{folder.name}/")
                for path in dict.fromkeys((f"{folder}/{name}", f"{folder}/{inside}")):
                    if os.path.isfile(path):
                        return Place(path)
            normal = _normal(name)
            place = self._names.get(normal) or self._names.get(normal.rsplit("/", 1)[-1])
            if place is not None:
                return place
        return Place(f"{self._folders[0] if self._folders else self.roots[0]}/{names[0]}")

    def __str__(self) -> str:
        return ", ".join(map(str, self.roots))


def refuse_climbing(name: str) -> None:
    """DataError bad_file_name for a name that is absolute or climbs out of its folder."""
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\0" in name or not name.strip():
        raise DataError("bad_file_name", f"expected a file name inside the folder of the photos, got {name!r}")


def tars_of(root: Path) -> list[Path]:
    """The tar that this is, or the tars at the top of this folder, sorted."""
    if root.suffix == ".tar" and root.is_file():
        return [root]
    return sorted(root.glob("*.tar")) if root.is_dir() else []


def tables_of(root: Path) -> list[Path]:
    """The same for Parquet files that hold photos. img2dataset writes lists of addresses beside them, without any."""
    if root.suffix == ".parquet" and root.is_file():
        found = [root]
    else:
        found = sorted(root.glob("*.parquet")) if root.is_dir() else []
    return [file for file in found if image_column(file) is not None]


def image_column(file: Path) -> str | None:
    """The column of a Parquet file that holds photos, None where there is none.

    Raises:
        ValueError: it is no Parquet file.
    """
    schema = _table(str(file)).schema_arrow
    return next((name for name in IMAGE_COLUMNS if name in schema.names and _holds_bytes(schema.field(name))), None)


def _holds_bytes(field: Any) -> bool:
    kind = str(field.type)
    return kind in ("binary", "large_binary") or kind.startswith("struct<bytes: ")


def table_photos(file: Path) -> Iterator[tuple[str, Place]]:
    """(name, place) of each photo of a Parquet file; without a column of names the row's number is its name."""
    column = str(image_column(file))
    names = table_rows(file, (*NAME_COLUMNS, f"{column}.path"))
    count = _table(str(file)).metadata.num_rows
    for row, name in enumerate(names if names is not None else (None for _ in range(count))):
        yield str(name if name is not None else row), Place(str(file), row=row, column=column)


def table_rows(file: Path, columns: Sequence[str]) -> Iterator[Any] | None:
    """The values of the first of these columns that a Parquet file has, row by row; None where it has none of them.

    Args:
        file: the Parquet file.
        columns: names; `a.b` is the field b of the struct a.
    """
    schema = _table(str(file)).schema_arrow
    there = {name for name in schema.names}
    for name in schema.names:
        kind = schema.field(name).type
        there |= {f"{name}.{kind.field(i).name}" for i in range(kind.num_fields)} if "struct" in str(kind) else set()
    found = next((name for name in columns if name in there), None)
    return None if found is None else _values(file, found)


def _values(file: Path, name: str) -> Iterator[Any]:
    outer, _, inner = name.partition(".")
    for batch in _table(str(file)).iter_batches(batch_size=4096, columns=[name]):
        for value in batch.column(outer).to_pylist():
            yield (value or {}).get(inner) if inner else value


def _normal(name: str) -> str:
    """Tars are indexed with the ending in small letters, and `jpg` for `jpeg`."""
    stem, dot, ending = name.rpartition(".")
    ending = ending.lower()
    return f"{stem}{dot}{'jpg' if ending == 'jpeg' else ending}" if dot else name


@lru_cache(maxsize=4)
def _table(file: str) -> Any:
    import pyarrow.parquet as parquet

    try:
        return parquet.ParquetFile(file)
    except (ValueError, OSError) as error:
        raise ValueError(f"{file}: expected a Parquet file, got none ({error}); download it again") from error


@lru_cache(maxsize=2)
def _group(file: str, group: int, column: str) -> Any:
    return _table(file).read_row_group(group, columns=[column]).column(0)


def _cell(file: str, row: int, column: str) -> bytes:
    metadata, first = _table(file).metadata, 0
    for group in range(metadata.num_row_groups):
        length = metadata.row_group(group).num_rows
        if row < first + length:
            value = _group(file, group, column)[row - first].as_py()
            data = value.get("bytes") if isinstance(value, dict) else value
            if not isinstance(data, bytes):
                raise DataError("image_missing", f"{file}: row {row} holds no photo")
            return data
        first += length
    raise DataError("image_missing", f"{file}: expected row {row}, it has {first}")
