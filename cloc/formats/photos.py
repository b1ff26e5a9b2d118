"""Photos as annotation files name them, their headers, and the hash of an input file.

Two tools seldom write the same name alike: `normalise_path` and `make_photo_key` bring names to one form.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import struct
import unicodedata
from pathlib import Path

from cloc.images import MAX_PIXELS, ImageError, displayed_size, read_header
from cloc.structures import DataError

_FRAME = struct.Struct(">BHHB")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame; the three are tables of their own."""
_SCAN, _APP2 = 0xDA, 0xE2

_REASONS = {
    "unreadable": "image_unreadable",
    "other_format": "image_of_other_format",
    "too_large": "image_too_large",
}


def hash_input(file: Path) -> dict[str, str]:
    """Name and hash of an input file, for the card's `made`.

    Raises:
        ValueError: there is no such file.
    """
    if not file.is_file():
        raise ValueError(f"{file}: expected an annotation file, found no file; check the path")
    with file.open("rb") as opened:
        return {"file": file.name, "sha256": hashlib.file_digest(opened, "sha256").hexdigest()}


def refuse_no_folder(images: Path) -> None:
    """ValueError where the folder of the photos is not there."""
    if not images.is_dir():
        raise ValueError(f"{images}: expected the folder of the photos, found no folder; check --images")


def read_photo_header(data: bytes, where: str) -> tuple[str, tuple[int, int]]:
    """(file ending, (width, height) in pixels) of an encoded photo. Only the header is looked at.

    Raises:
        DataError: image_unreadable, image_of_other_format, or image_too_large: it claims more than `MAX_PIXELS`, which
            no loader of ours would decode.
    """
    size = _read_jpeg_size(data)
    if size is None:
        ending, size = _open(data, where)
    else:
        ending = "jpg"
    if size[0] * size[1] > MAX_PIXELS:
        raise DataError("image_too_large", f"{where}: it claims {size[0]} x {size[1]} pixels, at most {MAX_PIXELS:,}")
    return ending, size


def read_shown_size(data: bytes, where: str) -> tuple[int, int]:
    """(width, height) of an encoded photo as viewers show it, turned as its EXIF says.

    Raises:
        DataError: as `read_photo_header`.
    """
    try:
        return displayed_size(data)
    except ImageError as error:
        raise DataError(_REASONS[error.reason], f"{where}: {error}") from error


def _open(data: bytes, where: str) -> tuple[str, tuple[int, int]]:
    """The same by Pillow, for whatever `_read_jpeg_size` does not know."""
    try:
        return read_header(data)
    except ImageError as error:
        raise DataError(_REASONS[error.reason], f"{where}: {error}") from error


def _read_jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a usual JPEG from its markers, ten times as fast as Pillow; None for anything else.

    Usual: 8 bits, 1, 3 or 4 channels, whole markers up to the first scan, and no list of further pictures (MPO).
    Source: ITU-T T.81, B.1 and B.2.2.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, size = 2, None
    while at + 4 <= len(data):
        mark, kind = data[at], data[at + 1]
        if mark != 0xFF or not 0xC0 <= kind <= 0xFE or 0xD0 <= kind <= 0xD8:
            return None
        if kind == _SCAN:
            return size
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _FRAMES:
            bits, height, width, channels = _FRAME.unpack_from(data.ljust(at + 10), at + 4)
            if size is not None or bits != 8 or channels not in (1, 3, 4) or not width or not height:
                return None
            size = width, height
        elif kind == _APP2 and data[at + 4 : at + 8] == b"MPF\0":
            return None
        at += 2 + length
    return None


_DRIVE = re.compile(r"^[A-Za-z]:/")


def normalise_path(name: str) -> str:
    r"""A path with `/` between its parts, without `.` parts and empty ones; letters stay as they are.

    `.\sub\1.jpg` and `sub//1.jpg` are `sub/1.jpg`. A path that begins with `/` (or with a drive, `C:`) keeps doing so,
    and `..` stays: whether a name may leave its folder is asked by whoever opens it.
    """
    if "\\" not in name and "//" not in name and "./" not in name:  # nearly always
        return name
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def is_absolute(path: str) -> bool:
    """Whether a normal path begins at a root or a drive."""
    return path.startswith("/") or _DRIVE.match(path) is not None


def strip_root(name: str) -> str:
    """A normal path without what tells of another machine: its root or drive, and the `..` with which it begins.

    For files that are known to hold such names; what is left is looked for by the end of the path.
    """
    path = posixpath.normpath(_DRIVE.sub("", normalise_path(name))).lstrip("/")
    while path.startswith("../"):
        path = path[3:]
    return path


def make_photo_key(name: str) -> str:
    """What two names of one photo have alike: composed letters (NFC), and the ending in small letters, jpg for jpeg."""
    path = normalise_path(name)
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    stem, dot, ending = path.rpartition(".")
    if not dot or "/" in ending:
        return path
    ending = ending.lower()
    return f"{stem}.{'jpg' if ending == 'jpeg' else ending}"
