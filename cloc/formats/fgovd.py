"""FG-OVD's region captions as FG-CLIP publishes them: a box, one right caption, and up to ten wrong ones.

Layout, JSON lines: `img_path` (relative to the folder of COCO's photos), `bbox` (xywh pixels), `pos_expression` (one),
`neg_expression`, `width`, `height`, `image_id`, `sent_id`. Source: github.com/360CVGroup/FG-CLIP, after FG-OVD
(Bianchi et al. 2024, arXiv 2311.17518).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cloc.formats.annotated import check_box
from cloc.formats.frames import FrameWatch
from cloc.formats.numbers import parse_four
from cloc.formats.rows import read_lines
from cloc.formats.sources import PhotoFolders
from cloc.structures import Box

FIELDS = {
    "img_path": str,
    "bbox": list,
    "pos_expression": list,
    "neg_expression": list,
    "width": int,
    "height": int,
    "image_id": int,
    "sent_id": int,
}


@dataclass(frozen=True)
class Choice:
    """One box with its captions.

    Attributes:
        image_id, sent_id: as in the file; `sent_id` is its own.
        path: of the photo.
        size: width and height as annotated.
        box_xyxy: pixels.
        captions: the right one first.
    """

    image_id: int
    sent_id: int
    path: Path
    size: tuple[int, int]
    box_xyxy: Box
    captions: tuple[str, ...]


@dataclass(frozen=True)
class ChoiceSet:
    """One file. `dropped`: lines left out, by reason."""

    name: str
    choices: tuple[Choice, ...]
    dropped: Counter[str]


def read_fgovd(file: Path, photos: Path) -> ChoiceSet:
    """Read one file.

    Args:
        file: one of `h_attributes.jsonl` and its like.
        photos: the folder that `img_path` starts from, `coco/`.

    Raises:
        ValueError: the file is missing, a line is no such line, or the boxes are in another frame.
    """
    choices, dropped, folders = [], Counter[str](), PhotoFolders([photos])
    watch = FrameWatch(file)
    for entry in read_lines(file, "FG-OVD's captions", FIELDS):
        numbers = parse_four(entry["bbox"])
        if numbers is not None:
            watch.see(numbers, entry["width"], entry["height"])
        box, reason = check_box(numbers, entry["width"], entry["height"])
        if box is None or not entry["pos_expression"] or not entry["neg_expression"]:
            dropped[reason or "no_caption"] += 1
            continue
        captions = (str(entry["pos_expression"][0]), *map(str, entry["neg_expression"]))
        place = folders.path(entry["img_path"], where=str(file))
        size = (entry["width"], entry["height"])
        choices.append(Choice(entry["image_id"], entry["sent_id"], place, size, box, captions))
    watch.refuse(dropped)
    return ChoiceSet(file.stem, tuple(choices), dropped)
