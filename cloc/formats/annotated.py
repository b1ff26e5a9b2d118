"""What the readers of COCO, LVIS and RefCOCO have in common: annotated images, and how entries become them.

Letter: K annotations of one image.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloc.boxes import FloatArray, as_boxes, cut_at_border
from cloc.files import is_text, read_json
from cloc.formats.frames import FrameWatch
from cloc.formats.numbers import parse_flag, parse_four, parse_whole

_LARGEST_FILE = 1 << 33
"""Bytes of an annotation file that is read whole; LVIS's train is one gigabyte."""


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
        file_name: as in its file, where that tells one.
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
    file_name: str = ""


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
    content = read_json(path, what, "download it again", _LARGEST_FILE, replace_halves=True)
    absent = [name for name in lists if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if absent:
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{path}: expected {what} with the lists {', '.join(lists)}; got {found or 'nothing'}")
    return content


def read_categories(content: Mapping[str, Any], file: Path, dropped: Counter[str] | None = None) -> dict[int, Category]:
    """The `categories` of COCO and LVIS files by id.

    Args:
        content: with the list `categories`.
        file: for messages.
        dropped: gets what cannot be used, by reason: bad_category (no id, or no name that is a text) and
            duplicate_category_id (an id with two names, which then stands for neither).

    Raises:
        ValueError: there is such an entry and nobody counts.
    """
    categories: dict[int, Category] = {}
    twice = set[int]()
    for index, entry in enumerate(content["categories"]):
        entry = entry if isinstance(entry, Mapping) else {"name": entry}
        number, name = parse_whole(entry.get("id")), entry.get("name")
        if number is None or not is_text(name) or not name.strip():
            if dropped is None:
                raise ValueError(f"{file}: categories[{index}]: expected an id and a name, got {dict(entry)!r:.200}")
            dropped["bad_category"] += 1
            continue
        if number in categories or number in twice:
            if dropped is None:
                raise ValueError(f"{file}: categories[{index}]: expected different ids, got {number} twice")
            if number in twice or categories[number].name != name:
                dropped["duplicate_category_id"] += 1 + (number not in twice)
                twice.add(number)
                categories.pop(number, None)
            continue
        synonyms = entry.get("synonyms")
        categories[number] = Category(
            id=number,
            name=name,
            definition=entry["def"] if is_text(entry.get("def")) else "",
            frequency=entry["frequency"] if is_text(entry.get("frequency")) else None,
            synonyms=tuple(text for text in synonyms if is_text(text)) if isinstance(synonyms, (list, tuple)) else (),
            caption_only=parse_flag(entry.get("caption_only", False)),
            supercategory=entry["supercategory"] if is_text(entry.get("supercategory")) else "",
        )
    return categories


def read_image_size(entry: object, index: int, file: Path) -> tuple[int, int, int]:
    """(id, width, height) of an entry of `images`.

    Raises:
        ValueError: one of them is missing or no positive whole number.
    """
    values = [entry.get(name) if isinstance(entry, Mapping) else None for name in ("id", "width", "height")]
    number, width, height = (parse_whole(value) for value in values)
    if number is None or width is None or height is None or width < 1 or height < 1:
        values = ", ".join(f"{value!r:.60}" for value in values)
        raise ValueError(f"{file}: images[{index}]: expected whole numbers id, width and height, got ({values})")
    return number, width, height


def find_caption(entry: Mapping[str, Any]) -> str:
    """The caption of an entry of a captions file, blanks collapsed (some hold line ends); empty where it has none."""
    text = entry.get("caption")
    return " ".join(text.split()) if is_text(text) else ""


def is_rendered(content: Mapping[str, Any]) -> bool:
    """Whether a file says that its images are rendered scenes."""
    info = content.get("info")
    return isinstance(info, Mapping) and parse_flag(info.get("rendered", False))


def find_category_ids(entry: Mapping[str, Any], name: str) -> frozenset[int]:
    """The whole numbers in a list of an image, such as `neg_category_ids`; empty where it has none."""
    listed = entry.get(name)
    found = (parse_whole(value) for value in listed) if isinstance(listed, (list, tuple)) else ()
    return frozenset(number for number in found if number is not None)


class Annotations:
    """The `annotations` of a COCO or LVIS file, checked and sorted by image.

    What an annotation is follows from its image and its place in the file. An id is not needed: one without (or whose
    id another box of its image has already) is known as -1, -2, ... by its place from 1.

    Attributes:
        dropped: entries left out, by reason: bad_annotation (no object), unknown_image, unknown_category, duplicate_id
            (the same box under the same id once more), bad_box, nan_box, empty_box, box_outside, box_of_0_to_1; and
            box_cut_at_border for those that were cut.
    """

    def __init__(
        self,
        entries: Iterable[Any],
        sizes: Mapping[int, tuple[int, int]],
        known: Iterable[int],
        watch: FrameWatch | None = None,
        positions: Iterable[int] | None = None,
        keep_entries: bool = False,
    ) -> None:
        """Check the entries.

        Args:
            entries: as they stand in the file.
            sizes: (width, height) of the images in pixels.
            known: ids of the categories.
            watch: is shown every box.
            positions: of the entries in their file from 1, where they are not all of it.
            keep_entries: `of` gives them too.
        """
        self.dropped = Counter[str]()
        self._rows: dict[int, list[tuple[int, int, bool, tuple[float, ...], Any]]] = defaultdict(list)
        known = known if isinstance(known, (set, frozenset, Mapping)) else set(known)
        contents: dict[tuple[int, int], tuple[Any, ...]] = {}
        given = iter(positions) if positions is not None else None
        position = 0
        for entry in entries:
            if not isinstance(entry, Mapping):
                self.dropped["bad_annotation"] += 1
                continue
            position = next(given) if given is not None else position + 1
            image_id, category = entry.get("image_id"), entry.get("category_id")
            if type(image_id) is not int:
                image_id = parse_whole(image_id)
            if type(category) is not int:
                category = parse_whole(category)
            if image_id not in sizes:
                self.dropped["unknown_image"] += 1
                continue
            if category not in known:
                self.dropped["unknown_category"] += 1
                continue
            width, height = sizes[image_id]
            numbers = parse_four(entry.get("bbox"))
            if watch is not None and numbers is not None:
                watch.see(numbers, width, height)
            box, reason = check_box(numbers, width, height)
            if reason is not None:
                self.dropped[reason] += 1
            if box is None:
                continue
            own, crowd = parse_whole(entry.get("id")), parse_flag(entry.get("iscrowd", 0))
            content = (category, crowd, box)
            before = contents.setdefault((image_id, own), content) if own is not None else None
            if before is content:
                self._rows[image_id].append((own, category, crowd, box, entry if keep_entries else None))
            elif before == content:
                self.dropped["duplicate_id"] += 1
            else:
                self._rows[image_id].append((-position, category, crowd, box, entry if keep_entries else None))

    def of(self, image_id: int) -> dict[str, Any]:
        """The annotation fields of `AnnotatedImage` for one image."""
        rows = self._rows.get(image_id, [])
        return {
            "boxes_xyxy": as_boxes([row[3] for row in rows]),
            "category_ids": np.array([row[1] for row in rows], dtype=np.int64),
            "annotation_ids": np.array([row[0] for row in rows], dtype=np.int64),
            "crowd": np.array([row[2] for row in rows], dtype=bool),
        }

    def entries_of(self, image_id: int) -> tuple[Any, ...]:
        """The entries behind `of`, in its order, where they were kept."""
        return tuple(row[4] for row in self._rows.get(image_id, ()))


def read_annotated(
    file: Path, what: str, name: str, fields: Callable[[Mapping[str, Any], str], dict[str, Any]], named: bool
) -> AnnotatedSet:
    """Read a file of COCO's layout whole: `images`, `annotations`, `categories`.

    Args:
        file: the annotation file.
        what: what it should be, for messages.
        name: of the data set.
        fields: of `AnnotatedImage`, from an entry of `images` and where it stands: `path`, and what the layout adds.
        named: every image must have a `file_name`.

    Raises:
        ValueError: the file is missing or is no such file.
    """
    content = load_json(file, what, ("images", "annotations", "categories"))
    categories = read_categories(content, file)
    sizes: dict[int, tuple[int, int]] = {}
    entries: dict[int, Mapping[str, Any]] = {}
    for index, entry in enumerate(content["images"]):
        image_id, width, height = read_image_size(entry, index, file)
        if named and (image_id in sizes or not is_text(entry.get("file_name"))):
            raise ValueError(f"{file}: images[{index}]: expected a new id and a file_name, got {entry!r:.200}")
        if image_id in sizes:
            raise ValueError(f"{file}: images[{index}]: expected a new id, got {image_id} again")
        sizes[image_id], entries[image_id] = (width, height), entry
    watch = FrameWatch(file)
    annotations = Annotations(content["annotations"], sizes, categories, watch)
    watch.refuse(annotations.dropped)
    images = tuple(
        AnnotatedImage(
            image_id=image_id,
            width=sizes[image_id][0],
            height=sizes[image_id][1],
            file_name=entry["file_name"] if is_text(entry.get("file_name")) else "",
            **fields(entry, f"{file}: images[{index}]"),
            **annotations.of(image_id),
        )
        for index, (image_id, entry) in enumerate(entries.items())
    )
    return AnnotatedSet(name, images, categories, is_rendered(content), file, annotations.dropped)


_SMALLEST_SIDE = 8
"""Pixels of an image from which on boxes inside its first pixel are shares of it and not boxes."""


def check_box(box: object, width: int, height: int, xywh: bool = True) -> tuple[tuple[float, ...] | None, str | None]:
    """(xyxy pixels cut at the border, or None where it cannot be used; reason or None).

    Args:
        box: four numbers in pixels: (x, y, width, height), or (x0, y0, x1, y1) with `xywh=False`.
        width: of the image in pixels.
        height: of the image in pixels.
        xywh: which of the two.
    """
    numbers = box if type(box) is tuple and {*map(type, box)} == {float} and len(box) == 4 else parse_four(box)
    if numbers is None:
        return None, "bad_box"
    x0, y0, x1, y1 = numbers
    if not (abs(x0) < math.inf and abs(y0) < math.inf and abs(x1) < math.inf and abs(y1) < math.inf):
        return None, "nan_box"
    if xywh:
        x1, y1 = x0 + x1, y0 + y1
    if x1 <= x0 or y1 <= y0:
        return None, "empty_box"
    cut = cut_at_border((x0, y0, x1, y1), width, height)
    if cut is None:
        return None, "box_outside"
    if x1 <= 1.0 and y1 <= 1.0 and min(width, height) >= _SMALLEST_SIDE and any(v % 1 for v in numbers):
        return None, "box_of_0_to_1"
    return cut, None if cut == (x0, y0, x1, y1) else "box_cut_at_border"
