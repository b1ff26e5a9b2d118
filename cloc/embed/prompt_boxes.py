"""Service room: boxes that somebody wants vectors of, matched to the images that they belong to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloc.boxes import FloatArray, as_boxes
from cloc.data.formats.coco import read_coco


@dataclass(frozen=True, slots=True)
class PromptBoxes:
    """Boxes of one image.

    Attributes:
        boxes_xyxy: (M, 4) in pixels of the original image.
        size: (width, height) in pixels where the file tells it; the image must have it.
    """

    boxes_xyxy: FloatArray
    size: tuple[int, int] | None = None

    def check(self, image: str, width: int, height: int) -> None:
        """Refuse boxes of another image.

        Raises:
            ValueError: the file tells another size, or a box leaves the image by more than a pixel or has no area.
        """
        if self.size not in (None, (width, height)):
            told = f"{self.size[0]} x {self.size[1]}" if self.size else ""
            raise ValueError(f"boxes of {image}: for an image of {told}, this one has {width} x {height} pixels")
        boxes, limits = self.boxes_xyxy, np.array([width, height, width, height], dtype=np.float64) + 1
        fits = ((boxes >= -1) & (boxes <= limits)).all(axis=1) & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        if not fits.all():  # what is no number fits nowhere
            place = int(fits.argmin())
            box = [round(float(value), 1) for value in boxes[place]]
            raise ValueError(
                f"boxes of {image}: box {place} {box} lies outside its {width} x {height} pixels or has no area; "
                "expected x0, y0, x1, y1 in pixels of this image, x0 < x1 and y0 < y1"
            )


def read_prompt_boxes(file: Path) -> tuple[dict[str, PromptBoxes], Counter[str]]:
    """Boxes by image name, and how many a COCO file's reader left out or cut, by reason.

    Args:
        file: JSON lines `{"image": "a.jpg", "boxes": [[x0, y0, x1, y1], ...]}` in pixels, with `width` and `height` if
            known; or a COCO instances file (`.json`).

    Raises:
        ValueError: it is neither; the line is named.
    """
    if not file.is_file():
        raise ValueError(f"--boxes {file}: no such file")
    if file.suffix == ".json":
        told = read_coco(file, Path())
        return {str(i.path): PromptBoxes(i.boxes_xyxy, (i.width, i.height)) for i in told.images}, told.dropped
    found: dict[str, PromptBoxes] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--boxes {file}: expected JSON lines in UTF-8 or COCO's .json ({error})") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name, boxes = _read_line(line, f"{file}:{number}")
            if name in found:
                raise ValueError(f"{file}:{number}: {name} has a line already; give all boxes of an image in one line")
            found[name] = boxes
    return found, Counter()


def _read_line(line: str, where: str) -> tuple[str, PromptBoxes]:
    try:
        entry = json.loads(line)
        size = (int(entry["width"]), int(entry["height"])) if "width" in entry and "height" in entry else None
        return str(entry["image"]), PromptBoxes(as_boxes(entry["boxes"]), size)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{where}: expected {{"image": "a.jpg", "boxes": [[x0, y0, x1, y1], ...]}}, got {line[:80]!r} '
            f"({type(error).__name__}: {error})"
        ) from error


def match(boxes: Mapping[str, PromptBoxes], images: Sequence[Path], file: Path) -> dict[Path, PromptBoxes]:
    """Give each entry of a boxes file to the one image whose path ends with its name.

    Raises:
        ValueError: an entry belongs to none of the images, or to several.
    """
    by_name: dict[str, list[Path]] = {}
    for image in images:
        by_name.setdefault(image.name, []).append(image)
    matched: dict[Path, PromptBoxes] = {}
    strangers = []
    for name, entry in boxes.items():
        parts = Path(name).parts
        fits = [i for i in by_name.get(Path(name).name, ()) if i.parts[-len(parts) :] == parts]
        if not fits:
            strangers.append(name)
        elif len(fits) > 1:
            raise ValueError(f"--boxes {file}: {name} fits {fits[0]} and {fits[1]}; name it with its folder")
        else:
            matched[fits[0]] = entry
    if strangers:
        raise ValueError(
            f"--boxes {file}: {len(strangers)} of its {len(boxes)} images are not among the {len(images)} given "
            f"(first: {strangers[0]}); give the images that the boxes were drawn on"
        )
    return matched
