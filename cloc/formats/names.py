"""Names of photos as annotation files write them, brought to one form: two tools seldom write the same name alike."""

from __future__ import annotations

import posixpath
import re
import unicodedata

_DRIVE = re.compile(r"^[A-Za-z]:/")


def normal_path(name: str) -> str:
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


def without_root(name: str) -> str:
    """A normal path without what tells of another machine: its root or drive, and the `..` with which it begins.

    For files that are known to hold such names; what is left is looked for by the end of the path.
    """
    path = posixpath.normpath(_DRIVE.sub("", normal_path(name))).lstrip("/")
    while path.startswith("../"):
        path = path[3:]
    return path


def photo_key(name: str) -> str:
    """What two names of one photo have alike: composed letters (NFC), and the ending in small letters, jpg for jpeg."""
    path = normal_path(name)
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    stem, dot, ending = path.rpartition(".")
    if not dot or "/" in ending:
        return path
    ending = ending.lower()
    return f"{stem}.{'jpg' if ending == 'jpeg' else ending}"
