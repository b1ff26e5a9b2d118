"""Where photos lie: in folders, in tars (img2dataset's among them) or in Parquet. They are found by name."""

from __future__ import annotations

import filecmp
import os
import urllib.parse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from cloc.formats.photos import is_absolute, make_photo_key, normalise_path
from cloc.formats.rows import open_parquet
from cloc.formats.tar_index import ShardIndex
from cloc.structures import DataError

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "bytes")
"""Columns of a Parquet file that may hold encoded photos, as bytes or as datasets' {bytes, path}."""

NAME_COLUMNS = ("file_name", "image_path", "path", "key", "id")
"""Columns that name a photo, the first that is there."""


@dataclass(frozen=True, slots=True)
class Location:
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
            return _read_cell(self.file, self.row, self.column)
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
    """The photos of one or several places.

    A place is a folder of photos at any depth (links to folders are followed), a folder of tars, a tar, or a Parquet
    file or a folder of them with a column of photos. One rule for all of them: a photo is found by its whole name; by
    the end of its path (`patch8/a.jpg` of `images/v1/patch8/a.jpg`, or the reverse) where one photo alone has it; by
    its base name only where that stands once among all photos, for one asked name alone, and while no name with a
    folder was found whole. Where several photos fit none is taken. Names are compared as `make_photo_key` writes them.

    For tars and Parquet the names are kept in memory, some 300 bytes a photo; a folder is listed only when a photo does
    not lie where it should.

    Attributes:
        roots: the places.
        dropped: members of tars that cannot be used, by reason (bad_name: it climbs out of the folder).
    """

    def __init__(self, roots: Sequence[Path], addresses: bool = False) -> None:
        """Open the places.

        Args:
            roots: they.
            addresses: `beside` will be asked for.

        Raises:
            ValueError: there is none, or one holds no photos.
        """
        self.roots = tuple(Path(root) for root in roots)
        self.dropped = Counter[str]()
        self._addresses = addresses
        self._beside: dict[Location, Location] = {}
        self._folders: list[Path] = []
        self._listed = False
        self._by_base: dict[str, list[tuple[str, Location]]] = {}
        self._granted: dict[Location, str] = {}
        self._whole_names = False
        if not self.roots:
            raise ValueError("--images: expected at least one folder, tar or Parquet file, got none")
        for root in self.roots:
            self._open(root)

    def _open(self, root: Path) -> None:
        tars, tables = list_tars(root), list_tables(root)
        if not tars and not tables:
            if not root.is_dir():
                raise ValueError(f"{root}: expected the folder of the photos, {_describe_found(root)}")
            self._folders.append(root)
        for tar in tars:
            index = ShardIndex.open(tar)
            self.dropped.update(index.dropped)
            for key, members in index.entries:
                held = [(ending, Location(str(tar), *where)) for ending, where in members.items()]
                for ending, location in held:
                    if ending in _PHOTO_ENDINGS or "." in ending:  # `a.b.jpg` is photo a with the ending b.jpg
                        self._add(f"{tar.stem}/{key}.{ending}", location)
                        if self._addresses and "json" in members:
                            self._beside[location] = Location(str(tar), *members["json"])
        for table in tables:
            for name, location in list_table_photos(table):
                self._add(f"{table.stem}/{name}", location)

    def _add(self, name: str, location: Location) -> None:
        """Under its whole name, which begins with the name of its folder, tar or table."""
        whole = make_photo_key(name).lstrip("/")
        self._by_base.setdefault(whole.rpartition("/")[2], []).append((whole, location))

    def beside(self, photo: Location) -> Location | None:
        """Where img2dataset's JSON of a photo lies, or in a table its address; None where there is none to be known."""
        if photo.row >= 0:
            return replace(photo, column="url") if "url" in _open_table(photo.file).schema_arrow.names else None
        if photo.size >= 0:
            return self._beside.get(photo)
        return Location(f"{os.path.splitext(photo.file)[0]}.json")

    def _list_folders(self) -> None:
        """Names of all photos in the folders, once."""
        self._listed = True
        for folder in (folder for folder in self._folders if folder.is_dir()):
            for path in list_files(folder):
                if path.rpartition(".")[2].lower() in _PHOTO_ENDINGS:
                    self._add(f"{folder.name}/{path}", Location(f"{folder}/{path}"))

    def find(self, *names: str) -> Location:
        """The photo with the first of these names that is there; else where the first would be, for the message.

        Raises:
            DataError: bad_file_name, a name climbs out of the folder; or image_ambiguous, several photos fit.
            ValueError: two names that were asked for can only mean one photo, so for one of them it is another's.
        """
        paths = [normalise_path(name) for name in names]
        for path in paths:
            refuse_climbing(path)
        if not self._listed:
            for path in paths:
                location = self._where_it_says(path)
                if location is not None:
                    return self._given(location, path, whole=True)
            self._list_folders()
        keys = dict.fromkeys(make_photo_key(form) for path in paths for form in (path, _unquote(path)))
        found = [(*self._fitting(key), key) for key in keys]
        level, fits, key = min(found, key=lambda one: one[0])  # of equal ones the first
        if level == _NOWHERE or (level >= _OWN_PATH and self._whole_names):
            return Location(self._first_location(paths[0]))
        if len(fits) > 1 and not all(_have_same_content(fits[0][1], other) for _, other in fits[1:]):
            listed = ", ".join(whole for whole, _ in fits[:3])
            raise DataError(
                "image_ambiguous", f"{key}: {len(fits)} photos have this name ({listed}); name them in full"
            )
        return self._given(fits[0][1], key, level == _WHOLE or (level == _END and "/" in key))

    def _given(self, location: Location, key: str, whole: bool) -> Location:
        """The place, where no other name was given it. Names found whole are remembered only as being such."""
        self._whole_names = self._whole_names or (whole and "/" in key)
        if not whole or self._granted:
            before = self._granted.get(location, key) if whole else self._granted.setdefault(location, key)
            if make_photo_key(before) != make_photo_key(key):
                raise ValueError(
                    f"{self}: expected photos by their whole names, but {before} and {key} could both only be "
                    f"{location.file}; give the folder in which the whole names begin as --images"
                )
        return location

    def _first_location(self, path: str) -> str:
        """Where a photo that is nowhere was looked for first: in the folder that its name tells, else in the first."""
        folder_named = next((folder for folder in self._folders if path.startswith(f"{folder.name}/")), None)
        if folder_named is not None:
            return f"{folder_named}/{path.removeprefix(f'{folder_named.name}/')}"
        return f"{self._folders[0] if self._folders else self.roots[0]}/{path}"

    def _where_it_says(self, path: str) -> Location | None:
        """The file of this very name in one of the folders: no list is needed for it."""
        found: list[str] = []
        for folder in self._folders:
            inside = path.removeprefix(f"{folder.name}/")
            path_found = next(
                (p for p in dict.fromkeys((f"{folder}/{path}", f"{folder}/{inside}")) if os.path.isfile(p)), None
            )
            if path_found is not None:
                if inside != path:  # the name tells the folder
                    return Location(path_found)
                found.append(path_found)
        if not found:
            return None
        if any(not _have_same_bytes(found[0], other) for other in found[1:]):
            raise DataError("image_ambiguous", f"{path}: it lies in several places, as {found[0]} and {found[1]}")
        return Location(found[0])

    def _fitting(self, key: str) -> tuple[int, list[tuple[str, Location]]]:
        """How well a name is met, and the photos that meet it so; all of a base name where nothing else is alike."""
        asked = key.split("/")
        best, fits = (_NOWHERE, 0), list[tuple[str, Location]]()
        candidates = self._by_base.get(asked[-1], [])
        for whole, location in candidates:
            there = whole.split("/")
            alike = _count_alike(asked, there)
            rest = len(there) - alike
            if alike == len(asked):
                rank = (_WHOLE if rest <= 1 else _END, 0)
            elif rest == 0:
                rank = (_END, -alike)
            elif rest == 1 and alike > 1:
                rank = (_OWN_PATH, -alike)
            else:
                rank = (_BASE, 0)
            if rank < best:
                best, fits = rank, []
            if rank == best:
                fits.append((whole, location))
        return best[0], candidates if best[0] == _BASE else fits

    def __str__(self) -> str:
        return ", ".join(map(str, self.roots))


class PhotoFolders(Photos):
    """Photos that lie as files in folders, found by the rule of `Photos`. Neither folders nor photos need be there."""

    def _open(self, root: Path) -> None:
        self._folders.append(root)

    def path(self, *names: str, where: str) -> Path:
        """The photo with the first of these names that is there; else where the first was looked for.

        Args:
            *names: as the entry tells them.
            where: the entry, for messages.

        Raises:
            ValueError: a name climbs out of the folder, or several photos fit it.
        """
        try:
            return Path(self.find(*names).file)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


_WHOLE, _END, _OWN_PATH, _BASE, _NOWHERE = range(5)
"""How a name may be met: by the photo's whole name (with or without that of its tar or folder), by the end of it, by a
photo whose own path is the end of the name, by the base name alone."""

_PHOTO_ENDINGS = frozenset(("jpg", "jpeg", "png", "webp"))


def _count_alike(asked: list[str], there: list[str]) -> int:
    """How many parts two paths have alike from their ends."""
    count = 0
    for one, two in zip(reversed(asked), reversed(there), strict=False):
        if one != two:
            break
        count += 1
    return count


def _unquote(path: str) -> str:
    return normalise_path(urllib.parse.unquote(path)) if "%" in path else path


def _have_same_bytes(one: str, two: str) -> bool:
    return os.path.samefile(one, two) or filecmp.cmp(one, two, shallow=False)


def _have_same_content(one: Location, two: Location) -> bool:
    if one.row < 0 and two.row < 0 and one.length() != two.length():
        return False
    try:
        return one.read() == two.read()
    except DataError:
        return False


def _describe_found(root: Path) -> str:
    if root.suffix == ".zip" and root.is_file():
        return "found a zip; unpack it, or pack it anew as a tar (`bsdtar -cf photos.tar @photos.zip`)"
    if root.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")) and root.is_file():
        return "found a compressed tar, in which no photo can be reached by itself; unpack it (`gunzip`, `unxz`)"
    if root.is_file():
        return "found a file that is no tar and no Parquet; check --images"
    return "found no folder; check --images"


def list_files(folder: Path) -> list[str]:
    """Every file below a folder, as sorted paths inside it with `/`; links to folders are followed, each once."""
    found, visited = list[str](), set[tuple[int, int]]()
    waiting = [(str(folder), "")]
    while waiting:
        folder_path, inside = waiting.pop()
        status = os.stat(folder_path)
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        with os.scandir(folder_path) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append((entry.path, f"{inside}{entry.name}/"))
                elif entry.is_file():
                    found.append(f"{inside}{entry.name}")
    return sorted(found)


def refuse_climbing(name: str) -> None:
    """DataError bad_file_name for a name that is absolute or climbs out of its folder."""
    inside = normalise_path(name)
    if is_absolute(inside) or ".." in inside.split("/") or "\0" in name or not name.strip():
        raise DataError("bad_file_name", f"expected a file name inside the folder of the photos, got {name!r}")


def list_tars(root: Path) -> list[Path]:
    """The tar that this is, or the tars at the top of this folder, sorted."""
    if root.suffix == ".tar" and root.is_file():
        return [root]
    return sorted(root.glob("*.tar")) if root.is_dir() else []


def list_tables(root: Path) -> list[Path]:
    """The same for Parquet files that hold photos. img2dataset writes lists of addresses beside them, without any."""
    if root.suffix == ".parquet" and root.is_file():
        found = [root]
    else:
        found = sorted(root.glob("*.parquet")) if root.is_dir() else []
    return [file for file in found if find_image_column(file) is not None]


def find_image_column(file: Path) -> str | None:
    """The column of a Parquet file that holds photos, None where there is none.

    Raises:
        ValueError: it is no Parquet file.
    """
    schema = _open_table(str(file)).schema_arrow
    return next((name for name in IMAGE_COLUMNS if name in schema.names and _holds_bytes(schema.field(name))), None)


def _holds_bytes(field: Any) -> bool:
    """Whether a column holds encoded photos: bytes, or a struct with `bytes`, whatever the order of its fields."""
    import pyarrow

    kind = field.type
    if pyarrow.types.is_struct(kind):
        fields = kind.get_all_field_indices("bytes")
        kind = kind.field(fields[0]).type if len(fields) == 1 else kind
    tests = (pyarrow.types.is_binary, pyarrow.types.is_large_binary, pyarrow.types.is_binary_view)
    return any(test(kind) for test in tests)


def list_table_photos(file: Path) -> Iterator[tuple[str, Location]]:
    """(name, place) of each photo of a Parquet file; without a column of names the row's number is its name."""
    column = str(find_image_column(file))
    names = read_table_rows(file, (*NAME_COLUMNS, f"{column}.path"))
    count = _open_table(str(file)).metadata.num_rows
    for row, name in enumerate(names if names is not None else (None for _ in range(count))):
        yield str(name if name is not None else row), Location(str(file), row=row, column=column)


def read_table_rows(file: Path, columns: Sequence[str]) -> Iterator[Any] | None:
    """The values of the first of these columns that a Parquet file has, row by row; None where it has none of them.

    Args:
        file: the Parquet file.
        columns: names; `a.b` is the field b of the struct a.
    """
    schema = _open_table(str(file)).schema_arrow
    there = {name for name in schema.names}
    for name in schema.names:
        kind = schema.field(name).type
        if str(kind).startswith("struct<"):
            there |= {f"{name}.{kind.field(i).name}" for i in range(kind.num_fields)}
    found = next((name for name in columns if name in there), None)
    return None if found is None else _read_values(file, found)


def _read_values(file: Path, name: str) -> Iterator[Any]:
    outer, _, inner = name.partition(".")
    for batch in _open_table(str(file)).iter_batches(batch_size=4096, columns=[name]):
        for value in batch.column(outer).to_pylist():
            yield (value or {}).get(inner) if inner else value


@lru_cache(maxsize=4)
def _open_table(file: str) -> Any:
    return open_parquet(Path(file), "a Parquet file")


@lru_cache(maxsize=4)
def _read_group(file: str, group: int, column: str) -> Any:
    return _open_table(file).read_row_group(group, columns=[column]).column(0)


def _read_value(file: str, row: int, column: str) -> Any:
    metadata, first = _open_table(file).metadata, 0
    for group in range(metadata.num_row_groups):
        length = metadata.row_group(group).num_rows
        if row < first + length:
            return _read_group(file, group, column)[row - first].as_py()
        first += length
    raise DataError("image_missing", f"{file}: expected row {row}, it has {first}")


def _read_cell(file: str, row: int, column: str) -> bytes:
    try:
        value = _read_value(file, row, column)
    except (ValueError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("image_unreadable", f"{file}: row {row} cannot be read ({error})") from error
    data = value.get("bytes") if isinstance(value, dict) else value.encode() if isinstance(value, str) else value
    if not isinstance(data, bytes):
        raise DataError("image_missing", f"{file}: row {row} holds no photo")
    return data
