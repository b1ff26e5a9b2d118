"""What the readers of COCO, LVIS and RefCOCO have in common: annotated images, and how entries become them.

Letter: K annotations of one image.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloc.boxes import FloatArray, as_boxes


@dataclass(frozen=True)
class Category:
    """One category.

    Attributes:
        id: as in its file.
        name: as in its file (LVIS writes underscores).
        definition: one sentence, empty where the layout has none.
        frequency: LVIS's `r`, `c` or `f`, else None.
        synonyms: other names.
        caption_only: rendered scenes only: it never has a box in training.
        supercategory: what it is a kind of, empty where the file does not say; seldom a category itself.
    """

    id: int
    name: str
    definition: str = ""
    frequency: str | None = None
    synonyms: tuple[str, ...] = ()
    caption_only: bool = False
    supercategory: str = ""


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """One image and its annotations, in the order of the file.

    Attributes:
        image_id: as in its file.
        path: where the photo is looked for; it need not be there.
        width, height: pixels.
        boxes_xyxy: (K, 4) float64 pixels, finite, with an area, cut at the image's border.
        category_ids, annotation_ids: (K,) int64.
        crowd: (K,) bool, True where the box stands for a group.
        captions: of the whole image.
        neg_category_ids: LVIS: categories checked to be absent.
        not_exhaustive_category_ids: LVIS: categories of which some instances carry no box.
    """

    image_id: int
    path: Path
    width: int
    height: int
    boxes_xyxy: FloatArray
    category_ids: NDArray[np.int64]
    annotation_ids: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    captions: tuple[str, ...] = ()
    neg_category_ids: frozenset[int] = frozenset()
    not_exhaustive_category_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class AnnotatedSet:
    """A whole annotation file.

    Attributes:
        name: of the data set, as results call it.
        images: in the order of the file.
        categories: by id, in the order of the file.
        rendered: whether the images are rendered scenes.
        file: the annotation file.
        dropped: annotations left out, by reason; `box_cut_at_border` counts boxes that were kept and cut.
    """

    name: str
    images: tuple[AnnotatedImage, ...]
    categories: dict[int, Category]
    rendered: bool
    file: Path
    dropped: Counter[str] = field(default_factory=Counter)


def load_json(path: Path, what: str, lists: Sequence[str] = ()) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        what: what it should be, for messages.
        lists: top-level fields that must be there as lists.

    Raises:
        ValueError: the file is missing, is no JSON, or lacks one of `lists`.
    """
    if not path.is_file():
        raise ValueError(f"{path}: expected {what}, found no file; check the path or the data root")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected {what}, got a file that is no JSON ({error}); download it again") from error
    absent = [name for name in lists if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if absent:
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected {what} with the lists {', '.join(lists)}; got {found or 'nothing'}")
    return content


def read_categories(content: Mapping[str, Any], file: Path) -> dict[int, Category]:
    """The `categories` of COCO and LVIS files by id.

    Raises:
        ValueError: an entry has no id or name, or two have the same id.
    """
    categories: dict[int, Category] = {}
    for place, entry in enumerate(content["categories"]):
        if not isinstance(entry.get("id"), int) or not isinstance(entry.get("name"), str):
            raise ValueError(f"{file}: categories[{place}]: expected an id and a name, got {entry!r}")
        if entry["id"] in categories:
            raise ValueError(f"{file}: categories[{place}]: expected different ids, got {entry['id']} twice")
        categories[entry["id"]] = Category(
            id=entry["id"],
            name=entry["name"],
            definition=entry.get("def", ""),
            frequency=entry.get("frequency"),
            synonyms=tuple(entry.get("synonyms", ())),
            caption_only=bool(entry.get("caption_only", False)),
            supercategory=str(entry.get("supercategory") or ""),
        )
    return categories


def image_size(entry: Mapping[str, Any], place: int, file: Path) -> tuple[int, int, int]:
    """(id, width, height) of an entry of `images`.

    Raises:
        ValueError: one of them is missing or no positive whole number.
    """
    values = tuple(entry.get(name) for name in ("id", "width", "height"))
    if not all(isinstance(value, int) for value in values) or min(values[1:]) < 1:
        raise ValueError(f"{file}: images[{place}]: expected whole numbers id, width and height, got {values!r}")
    return values


class Annotations:
    """The `annotations` of a COCO or LVIS file, checked and sorted by image.

    Attributes:
        dropped: entries left out, by reason: unknown_image, unknown_category, duplicate_id (another entry before had
            it, or it is no number), bad_box, nan_box, empty_box, box_outside; and box_cut_at_border for those that
            were cut.
    """

    def __init__(
        self, entries: Iterable[Mapping[str, Any]], sizes: Mapping[int, tuple[int, int]], known: Iterable[int]
    ) -> None:
        self.dropped = Counter[str]()
        self._rows: dict[int, list[tuple[int, int, bool, tuple[float, ...]]]] = defaultdict(list)
        known = known if isinstance(known, (set, frozenset, Mapping)) else set(known)
        seen = set[int]()
        for entry in entries:
            image_id, annotation_id = entry.get("image_id"), entry.get("id")
            again = not isinstance(annotation_id, int) or annotation_id in seen
            if not again:
                seen.add(annotation_id)
            if image_id not in sizes:
                self.dropped["unknown_image"] += 1
            elif entry.get("category_id") not in known:
                self.dropped["unknown_category"] += 1
            elif again:
                self.dropped["duplicate_id"] += 1
            elif (box := self._checked(entry.get("bbox"), *sizes[image_id])) is not None:
                crowd = bool(entry.get("iscrowd", 0))
                self._rows[image_id].append((annotation_id, entry["category_id"], crowd, box))

    def _checked(self, box_xywh: object, width: int, height: int) -> tuple[float, ...] | None:
        """The box as xyxy pixels inside its image, None (counted) where nothing of it can be used."""
        box, reason = checked_box(box_xywh, width, height)
        if reason is not None:
            self.dropped[reason] += 1
        return box

    def of(self, image_id: int) -> dict[str, Any]:
        """The annotation fields of `AnnotatedImage` for one image."""
        rows = self._rows.get(image_id, [])
        return {
            "boxes_xyxy": as_boxes([row[3] for row in rows]),
            "category_ids": np.array([row[1] for row in rows], dtype=np.int64),
            "annotation_ids": np.array([row[0] for row in rows], dtype=np.int64),
            "crowd": np.array([row[2] for row in rows], dtype=bool),
        }


_PLAIN_NUMBERS = {int, float, bool}


def checked_box(box: object, width: int, height: int, xywh: bool = True) -> tuple[tuple[float, ...] | None, str | None]:
    """(xyxy pixels cut at the border, or None where it cannot be used; reason or None).

    Args:
        box: four numbers in pixels: (x, y, width, height), or (x0, y0, x1, y1) with `xywh=False`.
        width: of the image in pixels.
        height: of the image in pixels.
        xywh: which of the two.
    """
    # written out: this runs for every box of every file, and a generator takes five times as long
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        return None, "bad_box"
    if not ({*map(type, box)} <= _PLAIN_NUMBERS or all(isinstance(value, (int, float)) for value in box)):
        return None, "bad_box"
    x0, y0, x1, y1 = box
    # isfinite refuses huge integers with an error of its own
    if not (abs(x0) < math.inf and abs(y0) < math.inf and abs(x1) < math.inf and abs(y1) < math.inf):
        return None, "nan_box"
    x0, y0, x1, y1 = float(x0), float(y0), float(x1), float(y1)
    if xywh:
        x1, y1 = x0 + x1, y0 + y1
    if x1 <= x0 or y1 <= y0:
        return None, "empty_box"
    cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        return None, "box_outside"
    return cut, None if cut == (x0, y0, x1, y1) else "box_cut_at_border"
