"""Entries sorted by image on disk: annotation files list boxes in any order, and few machines hold them all in memory.

They go through an unnamed SQLite database, which lies in memory while it is small and then in $SQLITE_TMPDIR or the
system's folder for temporary files; it vanishes with the process, however that ends. Entries lie in it as `marshal`
writes them, five times as fast as JSON: nobody but this process ever writes or reads them.
"""

from __future__ import annotations

import itertools
import marshal
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from cloc.formats.numbers import whole

_CACHE_KIB = 16384
_BATCH = 10_000


class Grouped:
    """Images and, for each, its entries.

    Attributes:
        images: how many were put in.
        entries: how many entries of each kind.
    """

    def __init__(self) -> None:
        self._base = sqlite3.connect("")
        self._base.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._base.execute("CREATE TABLE images (id INTEGER PRIMARY KEY, data BLOB)")
        self._base.execute("CREATE TABLE entries (place INTEGER PRIMARY KEY, kind TEXT, image INTEGER, data BLOB)")
        self._waiting: list[tuple[str, int | None, bytes]] = []
        self.images, self.entries = 0, dict[str, int]()

    def put_image(self, image_id: int, data: Mapping[str, Any]) -> bool:
        """Put in one image; False where that id is there already."""
        done = self._base.execute("INSERT OR IGNORE INTO images VALUES (?, ?)", (image_id, marshal.dumps(dict(data))))
        self.images += done.rowcount
        return bool(done.rowcount)

    def image(self, image_id: int) -> dict[str, Any] | None:
        """The image that was put in under an id, None where there is none."""
        found = self._base.execute("SELECT data FROM images WHERE id = ?", (image_id,)).fetchone()
        return marshal.loads(found[0]) if found is not None else None

    def take_image(self, image_id: int) -> None:
        """Take an image out again."""
        self.images -= self._base.execute("DELETE FROM images WHERE id = ?", (image_id,)).rowcount

    def put(self, kind: str, image_id: object, data: Mapping[str, Any]) -> None:
        """Put in one entry of an image that may or may not be there.

        Args:
            kind: such as `annotation` or `caption`.
            image_id: whatever the file says; what says no whole number stands for no image.
            data: plain JSON values; comes out again as it is.
        """
        self.entries[kind] = self.entries.get(kind, 0) + 1
        self._waiting.append((kind, whole(image_id), marshal.dumps(dict(data))))
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self._base.executemany("INSERT INTO entries VALUES (NULL, ?, ?, ?)", self._waiting)
        self._waiting.clear()

    def unknown(self, kind: str) -> int:
        """How many entries of a kind speak of an image that is not there."""
        self._flush()
        asked = (
            "SELECT COUNT(*) FROM entries WHERE kind = ? AND (image IS NULL OR image NOT IN (SELECT id FROM images))"
        )
        return int(self._base.execute(asked, (kind,)).fetchone()[0])

    def __iter__(self) -> Iterator[tuple[dict[str, Any], dict[str, list[tuple[int, dict[str, Any]]]]]]:
        """(image, {kind: its entries as (place in the file, entry)}) by image id; entries in the order of the file."""
        self._flush()
        self._base.execute("CREATE INDEX IF NOT EXISTS by_image ON entries (image, place)")
        asked = "SELECT image, place, kind, data FROM entries WHERE image IS NOT NULL ORDER BY image, place"
        rows = itertools.groupby(self._base.execute(asked), key=lambda row: row[0])
        image, group = next(rows, (None, iter(())))
        for image_id, data in self._base.execute("SELECT id, data FROM images ORDER BY id"):
            while image is not None and image < image_id:
                image, group = next(rows, (None, iter(())))
            found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
            if image == image_id:
                for _, place, kind, entry in group:
                    found.setdefault(kind, []).append((place, marshal.loads(entry)))
            yield marshal.loads(data), found

    def close(self) -> None:
        """Give the disk back."""
        self._base.close()
