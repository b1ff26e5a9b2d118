"""Where the members of a tar lie: headers are scanned once, members are read by their offsets."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloc.files import is_text

_NAME = re.compile(r"^((?:.*/)?[^./]+)\.([^/]+)$")
_HEADER_BYTES = 1 << 14
"""Of one member: its header, and what further headers and long names stand before it."""
_BROKEN = (tarfile.TarError, ValueError, LookupError, ArithmeticError, TypeError, AttributeError, RecursionError)
"""What the library raises over headers that are none."""

Members = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ShardIndex:
    """Where the members of one shard lie.

    Attributes:
        path: the tar.
        entries: (key, {file ending: (offset, size) in bytes}) in the order of the tar.
        dropped: members left out, by reason: bad_name, duplicate_member, sparse_member, truncated_shard (the shard ends
            too early).
        fault: why nothing in it can be read; empty where something can.
    """

    path: Path
    entries: tuple[tuple[str, Members], ...]
    dropped: Counter[str] = field(default_factory=Counter)
    fault: str = ""

    @classmethod
    def open(cls, path: Path) -> ShardIndex:
        """Scan the headers of a tar. A shard cut short gives what is readable, and is counted in `dropped`.

        Raises:
            ValueError: the file is missing, or is no plain tar at all.
        """
        path = Path(path)
        groups: dict[str, Members] = {}
        dropped, last = Counter[str](), ""
        for name, offset, size in _scan(path, dropped):
            match = _NAME.match(name)
            if match is None or name.startswith("/") or ".." in name.split("/") or not is_text(name):
                dropped["bad_name"] += 1
                continue
            last, ending = match.group(1), match.group(2).lower()
            members = groups.setdefault(last, {})
            if ending in members:
                dropped["duplicate_member"] += 1
                continue
            members["jpg" if ending == "jpeg" else ending] = (offset, size)
        if dropped["truncated_shard"] and len(groups) > 1 and set(groups[last]) != set(next(iter(groups.values()))):
            del groups[last]  # the cut went through this sample
        return cls(path, tuple(groups.items()), +dropped)

    def __len__(self) -> int:
        return len(self.entries)


class _Headers(io.RawIOBase):
    """A tar of which only headers are read: at most `_HEADER_BYTES` from one `allow()` to the next.

    The library reads the long names and further headers that a header announces whole, whatever their size, and one
    inside the other.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._left = _HEADER_BYTES

    def allow(self) -> None:
        """Let the next header be read."""
        self._left = _HEADER_BYTES

    def read(self, size: int = -1) -> bytes:
        """Some bytes from here.

        Raises:
            tarfile.ReadError: more are asked for than headers have.
        """
        if not 0 <= size <= self._left:
            raise tarfile.ReadError("a header of more bytes than headers have")
        self._left -= size
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _scan(path: Path, dropped: Counter[str]) -> list[tuple[str, int, int]]:
    """(name, offset, size) of every whole file in a tar; the first broken header ends it and is counted."""
    if not path.is_file():
        raise ValueError(f"{path}: expected a shard, found no file; check the path, or make the set again")
    length, found, tail = path.stat().st_size, [], b""
    if length:
        with _Headers(path) as file:
            try:
                tar = tarfile.open(fileobj=file, mode="r:")
            except _BROKEN as error:
                problem = f"expected an uncompressed tar, got a file that is none ({error})"
                raise ValueError(f"{path}: {problem}") from error
            with tar:
                for name, offset, size in _list_whole_files(tar, file, length, dropped):
                    found.append((name, offset, size))
                end = tar.offset
        if 0 <= end <= length:
            with path.open("rb") as raw:
                raw.seek(end)
                tail = raw.read(tarfile.BLOCKSIZE)
    if tail != bytes(
        tarfile.BLOCKSIZE
    ):  # a whole tar ends in zeros; the library takes a cut header for the end as well
        dropped["truncated_shard"] += 1
    return found


def _list_whole_files(
    tar: tarfile.TarFile, file: _Headers, length: int, dropped: Counter[str]
) -> Iterator[tuple[str, int, int]]:
    """(name, offset, size) up to the first member that the file of `length` bytes does not hold whole."""
    before = -1
    try:
        while True:
            file.allow()
            member = tar.next()
            # a size below 0 would lead back to a member that has been here
            if member is None or member.size < 0 or not before < member.offset_data <= length - member.size:
                return
            before = member.offset_data
            tar.members.clear()  # else the library keeps every header
            if member.issparse():
                dropped["sparse_member"] += 1  # its bytes do not lie together
            elif member.isfile():
                yield member.name, member.offset_data, member.size
    except _BROKEN:
        return  # the file ends before the next header, or it is none; the caller sees that no zeros end it
