"""Ref-LVIS, the file that Ferret's evaluation reads: which of two classes is the object at a place?

Layout, JSON lines: `id`, `image_path`, `width`, `height`, `name`, `synonyms`, `neg_class`, `bbox_norm` (xyxy in
[0, 1]), `sample_point` (pixels), `free_shape_bbox_raw` (xyxy pixels). Source: ferret/eval/model_lvis.py of
github.com/apple/ml-ferret (arXiv 2310.07704); the file itself is not published there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.formats.annotated import check_box
from cloc.formats.frames import UNIT, FrameWatch
from cloc.formats.numbers import parse_four, parse_real
from cloc.formats.photos import strip_root
from cloc.formats.rows import read_lines
from cloc.formats.sources import PhotoFolders
from cloc.structures import Box

FORMS = ("box", "point", "free-form")
POINT_REACH = 5
"""Pixels on each side of a point: Ferret's sampler reads an 11 x 11 window."""

FIELDS = {
    "image_path": str,
    "width": int,
    "height": int,
    "name": str,
    "synonyms": list,
    "neg_class": str,
    "bbox_norm": list,
    "sample_point": list,
}


@dataclass(frozen=True)
class Either:
    """One question.

    Attributes:
        number: its line, from 0: the right class stands first where it is even.
        path: of the photo.
        size: width and height.
        boxes_xyxy: by form, pixels; a form the file does not give is left out.
        name, other: the right class and the wrong one, underscores as blanks.
        words: names that count as right in an answer.
    """

    number: int
    path: Path
    size: tuple[int, int]
    boxes_xyxy: dict[str, Box]
    name: str
    other: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class EitherSet:
    """The file's questions. `dropped`: forms left out, by reason."""

    name: str
    questions: tuple[Either, ...]
    dropped: Counter[str]


def read_reflvis(file: Path, photos: Path) -> EitherSet:
    """Read the file; photos are looked for by the rule of `Photos`, whatever folder their names begin in.

    Raises:
        ValueError: the file is missing, a line is no such line, or the boxes are in another frame.
    """
    questions, dropped, folders = [], Counter[str](), PhotoFolders([photos])
    watch = FrameWatch(file, UNIT)
    for number, entry in enumerate(read_lines(file, "Ref-LVIS's questions", FIELDS)):
        width, height = entry["width"], entry["height"]
        boxes = {}
        unit, point = parse_four(entry["bbox_norm"]), [parse_real(value) for value in entry["sample_point"][:2]]
        if unit is None or len(point) < 2 or None in point:
            got = f"{entry['bbox_norm']!r:.80} and {entry['sample_point']!r:.80}"
            raise ValueError(
                f"{file}: question {number}: expected bbox_norm of four numbers, sample_point of two: {got}"
            )
        watch.see(unit, width, height)
        for form, raw in _raw_boxes(entry, unit, point).items():
            box, reason = check_box(raw, width, height, xywh=False)
            if box is None:
                dropped[f"{form}: {reason}"] += 1
            else:
                boxes[form] = box
        name, other = (entry[field].replace("_", " ").strip() for field in ("name", "neg_class"))
        place = folders.path(strip_root(entry["image_path"]), where=f"{file}: question {number}")
        questions.append(Either(number, place, (width, height), boxes, name, other, words_of(entry)))
    watch.refuse(dropped)
    return EitherSet("reflvis", tuple(questions), dropped)


def _raw_boxes(entry: dict, unit: Sequence[float], point: Sequence[float]) -> dict[str, list]:
    width, height = entry["width"], entry["height"]
    scale = (width, height, width, height)
    x, y = point
    found = {
        "box": [value * side for value, side in zip(unit, scale, strict=True)],
        "point": [x - POINT_REACH, y - POINT_REACH, x + POINT_REACH + 1, y + POINT_REACH + 1],
    }
    if "free_shape_bbox_raw" in entry:
        found["free-form"] = entry["free_shape_bbox_raw"]
    return found


def split_synonym(synonym: str) -> list[str]:
    """`bow_(weapon)` as the two words `bow` and `weapon`, underscores as blanks."""
    parts = synonym.replace(")", "").split("(")
    return [part.replace("_", " ").strip() for part in parts if part.strip(" _")]


def words_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The name and the synonyms of a line of Ref-LVIS, each once."""
    name = str(entry["name"]).replace("_", " ").strip()
    return tuple(
        dict.fromkeys((name, *(part for synonym in entry["synonyms"] for part in split_synonym(str(synonym)))))
    )
