"""COCO's, LVIS's, Objects365's and MDETR's JSON, one image at a time; `read_coco` and `read_lvis` are the plain twins.

Benchmarks read whole files, since they need them whole; conversions read files of tens of gigabytes in flat memory.
"""

from __future__ import annotations

import itertools
import marshal
import sqlite3
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cloc.files import is_text
from cloc.formats.annotated import Annotations, Category, find_caption, is_rendered, read_categories, read_image_size
from cloc.formats.frames import FrameWatch
from cloc.formats.json_stream import stream_json
from cloc.formats.layouts import describe_other_layout
from cloc.formats.numbers import parse_whole
from cloc.formats.photos import normalise_path

_KEPT = ("id", "image_id", "category_id", "iscrowd", "bbox", "tokens_positive")
"""Fields of an annotation that are always used; masks are by far the larger part of these files."""
_KEPT_OF_IMAGE = (
    "file_name",
    "coco_url",
    "caption",
    "dataset_name",
    "original_img_id",
    "neg_category_ids",
    "not_exhaustive_category_ids",
)
"""Fields of an image that are used beside its id and size."""


@dataclass(frozen=True)
class StreamedImage:
    """One image with its annotations.

    Attributes:
        entry: of the list `images`: id, width and height as whole numbers, what else is used as it came.
        annotations: the annotation fields of `AnnotatedImage`, in the order of the file.
        raw: the entries behind them, in the same order.
        captions: of a captions file, blanks collapsed.
    """

    entry: Mapping[str, Any]
    annotations: Mapping[str, Any]
    raw: tuple[Mapping[str, Any], ...]
    captions: tuple[str, ...]


class AnnotatedStream:
    """An annotation file, sorted by image id.

    Attributes:
        file: it.
        categories: by id, in the order of the file.
        rendered: whether the images are rendered scenes.
        images: how many there are.
        dropped: what was left out so far, by reason: entries of `images` (bad_image_entry; duplicate_image_id: an id
            that stands for two photos is neither's), of `categories`, annotations and captions; those of unknown images
            are counted at once. file_name_again counts images that stay, though another one names the same photo.
    """

    def __init__(
        self,
        file: Path,
        what: str,
        captions: Path | None = None,
        named: str = "file_name",
        categories: bool = True,
        outlines: bool = False,
    ) -> None:
        """Read the files once, from beginning to end.

        Args:
            file: the annotation file.
            what: what it should be, for messages.
            captions: COCO's captions file.
            named: a field that each image must have as a text; empty where there is none such.
            categories: whether annotations have one; without it (MDETR's phrases) any will do.
            outlines: keep `segmentation` in `raw` as well.

        Raises:
            ValueError: a file is missing or is no such file.
        """
        self.file, self.dropped, self.rendered = file, Counter[str](), False
        self._grouped, self._what, self._named, self._categorised = Grouped(), what, named, categories
        self._ambiguous, self._place = set[int](), 0
        self._names = array("q")
        self._first_fault: ValueError | None = None
        fields = (*_KEPT, "segmentation") if outlines else _KEPT
        listed: list[Any] = []
        found, fields_seen = set[str](), set[str]()
        boxed = False
        for field, value in stream_json(file, what, self.dropped):
            found.add(field)
            if field == "images":
                self._put_image(value)
            elif field == "annotations" and isinstance(value, Mapping):
                kept = {name: value[name] for name in fields if name in value}
                boxed = boxed or "bbox" in kept
                if not boxed:
                    fields_seen.update(value)
                self._grouped.put("annotation", value.get("image_id"), kept)
            elif field == "annotations":
                self.dropped["bad_annotation"] += 1
            elif field == "categories":
                listed.append(value)
            elif field == "info":
                self.rendered = is_rendered({"info": value})
        self._refuse_other(found, fields_seen if not boxed else set())
        self.categories: dict[int, Category] = read_categories({"categories": listed}, file, self.dropped)
        if captions is not None:
            self._put_captions(captions)
        self.images = self._grouped.images
        self.dropped["file_name_again"] += len(self._names) - len(np.unique(self._names))
        del self._names
        self._known = set(self.categories) if categories else {0}
        self.dropped["unknown_image"] += self._grouped.unknown("annotation")

    def _put_image(self, entry: Any) -> None:
        """One fault among many images is counted; where there is no image without one, the first is told."""
        index, self._place = self._place, self._place + 1
        try:
            number, width, height = read_image_size(entry, index, self.file)
            if self._named and not is_text(entry.get(self._named)):
                raise ValueError(
                    f"{self.file}: images[{index}]: expected a new id and a {self._named}, got {entry!r:.200}"
                )
        except ValueError as error:
            self._first_fault = self._first_fault or error
            self.dropped["bad_image_entry"] += 1
            return
        kept = {name: entry[name] for name in _KEPT_OF_IMAGE if name in entry}
        kept |= {"id": number, "width": width, "height": height}
        if number in self._ambiguous:
            self.dropped["duplicate_image_id"] += 1
        elif self._grouped.put_image(number, kept):
            if self._categorised and is_text(entry.get("file_name")):
                self._names.append(hash(normalise_path(entry["file_name"])))
        else:
            self.dropped["duplicate_image_id"] += 1
            if self._grouped.image(number) != kept:  # its annotations may be of either photo
                self._grouped.take_image(number)
                self._ambiguous.add(number)
                self.dropped["duplicate_image_id"] += 1

    def _refuse_other(self, found: set[str], unboxed: set[str]) -> None:
        """Empty lists leave no trace, so it is enough that one of the lists has an entry.

        Args:
            found: fields at the top level.
            unboxed: fields of annotations, where none of them has a box.
        """
        if not found & {"images", "annotations"}:
            names = ", ".join(sorted(found - {""})) or ("a list" if found else "nothing")
            raise ValueError(
                f"{self.file}: expected {self._what} with the lists images, annotations, categories; got {names}"
                f"{describe_other_layout(self.file)}"
            )
        if "images" not in found:
            raise ValueError(
                f"{self.file}: expected {self._what} with the lists images, annotations; got no image"
                f"{describe_other_layout(self.file)}"
            )
        if not self._grouped.images:
            raise self._first_fault or ValueError(
                f"{self.file}: expected {self._what}; each of its images shares its id with another photo"
            )
        if unboxed:
            raise ValueError(
                f"{self.file}: expected {self._what} with a bbox in its annotations, found none in any; they have "
                f"{', '.join(sorted(unboxed)[:8])}{describe_other_layout(self.file)}"
            )

    def _put_captions(self, file: Path) -> None:
        found = captions = False
        for field, value in stream_json(file, "a COCO captions file", self.dropped):
            if field == "annotations" and isinstance(value, Mapping):
                found, captions = True, captions or "caption" in value
                self._grouped.put("caption", value.get("image_id"), {"text": find_caption(value)})
        if not found:
            raise ValueError(f"{file}: expected a COCO captions file with the list annotations, got none in it")
        if not captions:
            raise ValueError(
                f"{file}: expected a COCO captions file, found no caption in its annotations"
                f"{describe_other_layout(file)}"
            )
        self.dropped["caption_of_unknown_image"] += self._grouped.unknown("caption")

    def __iter__(self) -> Iterator[StreamedImage]:
        watch = FrameWatch(self.file)
        for entry, found in self._grouped:
            listed = found.get("annotation", ())
            rows = [row if self._categorised else {**row, "category_id": 0} for _, row in listed]
            number = entry["id"]
            sizes = {number: (entry["width"], entry["height"])}
            positions = (position for position, _ in listed)
            annotations = Annotations(rows, sizes, self._known, watch, positions, keep_entries=True)
            self.dropped.update(annotations.dropped)
            texts = [row["text"] for _, row in found.get("caption", ())]
            self.dropped["empty_caption"] += texts.count("")
            yield StreamedImage(
                entry, annotations.of(number), annotations.entries_of(number), tuple(text for text in texts if text)
            )
        watch.refuse(self.dropped)


_CACHE_KIB = 16384
_BATCH = 10_000


class Grouped:
    """Images and, for each, its entries, sorted on disk: files list boxes in any order, and few machines hold them all.

    They go through an unnamed SQLite database, which lies in memory while it is small and then in $SQLITE_TMPDIR or the
    system's folder for temporary files; it vanishes with the process, however that ends. Entries lie in it as `marshal`
    writes them, five times as fast as JSON: nobody but this process ever writes or reads them.

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
        self._waiting.append((kind, parse_whole(image_id), marshal.dumps(dict(data))))
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
                for _, position, kind, entry in group:
                    found.setdefault(kind, []).append((position, marshal.loads(entry)))
            yield marshal.loads(data), found

    def close(self) -> None:
        """Give the disk back."""
        self._base.close()
