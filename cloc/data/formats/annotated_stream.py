"""COCO's, LVIS's, Objects365's and MDETR's JSON, one image at a time; `read_coco` and `read_lvis` are the plain twins.

Benchmarks read whole files, since they need them whole; conversions read files of tens of gigabytes in flat memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.data.formats.annotated import Annotations, Category, image_size, read_categories
from cloc.data.formats.corners import CornerWatch
from cloc.data.formats.grouped import Grouped
from cloc.data.formats.json_stream import stream_json

_KEPT = ("id", "image_id", "category_id", "iscrowd", "bbox", "tokens_positive")
"""Fields of an annotation that are always used; masks are by far the larger part of these files."""


@dataclass(frozen=True)
class StreamedImage:
    """One image with its annotations.

    Attributes:
        entry: of the list `images`, as it came.
        annotations: the annotation fields of `AnnotatedImage`, in the order of the file.
        raw: the entries behind them, by annotation id.
        captions: of a captions file, blanks collapsed.
    """

    entry: Mapping[str, Any]
    annotations: Mapping[str, Any]
    raw: Mapping[int, Mapping[str, Any]]
    captions: tuple[str, ...]


class AnnotatedStream:
    """An annotation file, sorted by image id.

    Attributes:
        file: it.
        categories: by id, in the order of the file.
        rendered: whether the images are rendered scenes.
        images: how many there are.
        dropped: annotations and captions left out so far, by reason; those of unknown images are counted at once.
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
        fields = (*_KEPT, "segmentation") if outlines else _KEPT
        listed: list[Any] = []
        found = set[str]()
        for field, value in stream_json(file, what):
            found.add(field)
            if field == "images":
                self._put_image(value)
            elif field == "annotations" and isinstance(value, Mapping):
                kept = {name: value[name] for name in fields if name in value}
                self._grouped.put("annotation", value.get("image_id"), kept, value.get("id"))
            elif field == "annotations":
                self.dropped["bad_annotation"] += 1
            elif field == "categories":
                listed.append(value)
            elif field == "info" and isinstance(value, Mapping):
                self.rendered = bool(value.get("rendered", False))
        self._refuse_other(found)
        self.categories: dict[int, Category] = read_categories({"categories": listed}, file)
        if captions is not None:
            self._put_captions(captions)
        self.images = self._grouped.images
        self._known = set(self.categories) if categories else {0}
        self._first = self._grouped.repeated("annotation")
        self.dropped["unknown_image"] += self._grouped.unknown("annotation")

    def _put_image(self, entry: Any) -> None:
        place = self._grouped.images
        image_id, _, _ = image_size(entry if isinstance(entry, Mapping) else {}, place, self.file)
        named = not self._named or isinstance(entry.get(self._named), str)
        if not named or not self._grouped.put_image(image_id, entry):
            wanted = f"a new id and a {self._named}" if self._named else "a new id"
            raise ValueError(f"{self.file}: images[{place}]: expected {wanted}, got {entry!r}")

    def _refuse_other(self, found: set[str]) -> None:
        """Empty lists leave no trace, so it is enough that one of the lists has an entry."""
        if not found & {"images", "annotations"}:
            told = ", ".join(sorted(found)) or "nothing"
            raise ValueError(
                f"{self.file}: expected {self._what} with the lists images, annotations, categories; got {told}"
            )
        if "images" not in found:
            raise ValueError(f"{self.file}: expected {self._what} with the lists images, annotations; got no image")

    def _put_captions(self, file: Path) -> None:
        found = False
        for field, value in stream_json(file, "a COCO captions file"):
            if field == "annotations" and isinstance(value, Mapping):
                found = True
                text = " ".join(str(value.get("caption", "")).split())  # some captions hold line ends
                self._grouped.put("caption", value.get("image_id"), {"text": text})
        if not found:
            raise ValueError(f"{file}: expected a COCO captions file with the list annotations, got none in it")
        self.dropped["caption_of_unknown_image"] += self._grouped.unknown("caption")

    def __iter__(self) -> Iterator[StreamedImage]:
        watch = CornerWatch(self.file)
        for entry, found in self._grouped:
            rows = [self._told_apart(place, row) for place, row in found.get("annotation", ())]
            size = {entry["id"]: (entry["width"], entry["height"])}
            watch.see(rows, size)
            annotations = Annotations(rows, size, self._known)
            self.dropped.update(annotations.dropped)
            texts = [row["text"] for _, row in found.get("caption", ())]
            self.dropped["empty_caption"] += texts.count("")
            yield StreamedImage(
                entry,
                annotations.of(entry["id"]),
                {row["id"]: row for row in reversed(rows) if isinstance(row.get("id"), int)},
                tuple(text for text in texts if text),
            )
        watch.refuse()

    def _told_apart(self, place: int, row: dict[str, Any]) -> dict[str, Any]:
        """An id that stood in the file before is no id; where categories mean nothing all are 0."""
        row = row if self._categorised else {**row, "category_id": 0}
        return row if self._first.get(row.get("id"), place) == place else {**row, "id": None}
