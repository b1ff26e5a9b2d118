"""Boxes that somebody wants vectors of, matched to the images that they belong to.

Where a file tells an image's size, it decides the frame (see `cloc.images`); boxes without a size are in the frame that
viewers show.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.boxes import FloatArray, as_boxes, lie_on_image
from cloc.files import read_json_lines
from cloc.formats.coco import read_coco

_LINE = '{"image": "a.jpg", "boxes": [[x0, y0, x1, y1], ...]}'


@dataclass(frozen=True, slots=True)
class PromptBoxes:
    """Boxes of one image.

    Attributes:
        boxes_xyxy: (M, 4) in pixels of the image.
        size: (width, height) in pixels where the file tells it; the image must have it.
        annotation_ids, categories: of each box where the file tells them, else empty; None for one without an id.
    """

    boxes_xyxy: FloatArray
    size: tuple[int, int] | None = None
    annotation_ids: tuple[int | None, ...] = ()
    categories: tuple[str, ...] = ()

    def check(self, image: str, width: int, height: int) -> None:
        """Refuse boxes of another image.

        Raises:
            ValueError: the file tells another size, or a box leaves the image by more than a pixel or has no area.
        """
        if self.size not in (None, (width, height)):
            expected = f"{self.size[0]} x {self.size[1]}" if self.size else ""
            raise ValueError(f"boxes of {image}: for an image of {expected}, this one has {width} x {height} pixels")
        fits = lie_on_image(self.boxes_xyxy, width, height)
        if not fits.all():
            place = int(fits.argmin())
            box = [round(float(value), 1) for value in self.boxes_xyxy[place]]
            turned = (
                f"; they would fit {height} x {width}: boxes without a size are in the frame that viewers show, give "
                "the width and height that they were drawn on"
            )
            raise ValueError(
                f"boxes of {image}: box {place} {box} lies outside its {width} x {height} pixels or has no area; "
                "expected x0, y0, x1, y1 in pixels of this image, x0 < x1 and y0 < y1"
                + (turned if self.size is None and lie_on_image(self.boxes_xyxy, height, width).all() else "")
            )


def read_prompt_boxes(file: Path) -> tuple[dict[str, PromptBoxes], Counter[str]]:
    """Boxes by image name, and how many a COCO file's reader left out or cut, by reason.

    Args:
        file: JSON lines `{"image": "a.jpg", "boxes": [[x0, y0, x1, y1], ...]}` in pixels, with `width` and `height` if
            known, and `annotation_ids` (whole numbers) and `categories` (texts) of the boxes if wished; or a COCO
            instances file (`.json`), which has all of them.

    Raises:
        ValueError: it is neither; the line is named.
    """
    if not file.is_file():
        raise ValueError(f"--boxes {file}: no such file")
    found: dict[str, PromptBoxes] = {}
    if file.suffix == ".json":
        annotated = read_coco(file, None)
        names = {number: category.name for number, category in annotated.categories.items()}
        for image in annotated.images:
            if (name := str(image.path)) in found:
                raise ValueError(
                    f"--boxes {file}: two of its images have the file_name {name}; name each with its folder, or join "
                    "their annotations under one image"
                )
            ids = (number if number >= 0 else None for number in image.annotation_ids.tolist())  # no made-up ids
            kinds = image.category_ids.tolist()
            size = image.width, image.height
            found[name] = PromptBoxes(image.boxes_xyxy, size, tuple(ids), tuple(names[kind] for kind in kinds))
        return found, annotated.dropped
    for number, entry in read_json_lines(file, f"--boxes, {_LINE}"):
        name, boxes = _read_line(entry, f"{file}:{number}")
        if name in found:
            raise ValueError(f"{file}:{number}: {name} has a line already; give all boxes of an image in one line")
        found[name] = boxes
    return found, Counter()


def _read_line(entry: Any, where: str) -> tuple[str, PromptBoxes]:
    try:
        size = (entry["width"], entry["height"]) if "width" in entry and "height" in entry else None
        if size is not None and not all(type(side) is int and side > 0 for side in size):
            raise ValueError(f"width and height are {size[0]!r} and {size[1]!r}")
        if not isinstance(entry["image"], str):
            raise ValueError(f"image is {entry['image']!r}")
        boxes = as_boxes(entry["boxes"])
        return entry["image"], PromptBoxes(
            boxes, size, _each(entry, "annotation_ids", int, len(boxes)), _each(entry, "categories", str, len(boxes))
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{where}: expected {_LINE}, got {str(entry)[:80]} ({type(error).__name__}: {error})"
        ) from error


def _each(entry: dict[str, Any], name: str, kind: type, count: int) -> tuple[Any, ...]:
    values = entry.get(name, [])
    if not isinstance(values, list) or len(values) not in (0, count) or not all(type(v) is kind for v in values):
        raise ValueError(f"{name}: expected {count} values of type {kind.__name__}, got {str(values)[:40]}")
    return tuple(values)


def match(boxes: Mapping[str, PromptBoxes], images: Sequence[Path], file: Path) -> dict[Path, PromptBoxes]:
    """Give each entry of a boxes file to the one image whose path, from the root, ends with its name.

    Names may have Windows' separators.

    Raises:
        ValueError: an entry belongs to none of the images, or to several, or two entries belong to one.
    """
    by_name: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}
    for image in images:
        by_name.setdefault(image.name, []).append((image, Path(os.path.normpath(image.absolute())).parts))
    matched: dict[Path, PromptBoxes] = {}
    owner: dict[Path, str] = {}
    unmatched = []
    for name, entry in boxes.items():
        fits = _ending_with(name, by_name) or _ending_with(name.replace("\\", "/"), by_name)
        if not fits:
            unmatched.append(name)
        elif len(fits) > 1:
            raise ValueError(f"--boxes {file}: {name} fits {fits[0]} and {fits[1]}; name it with its folder")
        elif fits[0] in matched:
            raise ValueError(
                f"--boxes {file}: {owner[fits[0]]} and {name} are both {fits[0]}; give all boxes of an image together"
            )
        else:
            matched[fits[0]], owner[fits[0]] = entry, name
    if unmatched:
        raise ValueError(
            f"--boxes {file}: {len(unmatched)} of its {len(boxes)} images are not among the {len(images)} given "
            f"(first: {unmatched[0]}); give the images that the boxes were drawn on"
        )
    return matched


def _ending_with(name: str, by_name: Mapping[str, Sequence[tuple[Path, tuple[str, ...]]]]) -> list[Path]:
    wanted = Path(os.path.normpath(name)).parts
    return [image for image, parts in by_name.get("".join(wanted[-1:]), ()) if parts[-len(wanted) :] == wanted]
