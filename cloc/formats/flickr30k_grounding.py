"""Flickr30k Entities as `flickr30k_grounding` asks for it: phrases with the boxes of their ids, a whole split at once.

Numbers of boxes are taken as they stand in the files; `cloc.formats.flickr30k_entities`, which reads them for training,
takes 1 off.

Layout (Plummer et al. 2015, github.com/BryanPlummer/flickr30k_entities): `Annotations/ID.xml` (VOC style: objects with
one or more names, each an id, and a box), `Sentences/ID.txt` (`[/EN#id/type a phrase] ...`, one sentence a line), and
`val.txt`, `test.txt` with image ids.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cloc.formats.annotated import check_box
from cloc.formats.frames import XYXY, FrameWatch
from cloc.structures import Box

_PHRASE = re.compile(r"\[/EN#(?P<id>[^/\]\s]+)(?P<types>(?:/[^\s\]]+)*)\s+(?P<text>[^\]]*)\]")


@dataclass(frozen=True)
class Entity:
    """One phrase of one sentence.

    Attributes:
        number: its place in the whole split, from 0.
        text: as it stands in the sentence.
        boxes_xyxy: all boxes of its id, pixels.
    """

    number: int
    text: str
    boxes_xyxy: tuple[Box, ...]


@dataclass(frozen=True)
class EntityImage:
    """One image with the phrases of all its sentences that have a box."""

    image_id: int
    path: Path
    size: tuple[int, int]
    entities: tuple[Entity, ...]


@dataclass(frozen=True)
class EntitySet:
    """One split. `dropped`: phrases and boxes left out, by reason."""

    name: str
    images: tuple[EntityImage, ...]
    dropped: Counter[str]


def read_entities(folder: Path, photos: Path, split: str) -> EntitySet:
    """Read one split.

    Raises:
        ValueError: a file is missing or of another layout.
    """
    ids = _text(folder / f"{split}.txt").split()
    images, dropped, number = [], Counter[str](), 0
    watch = FrameWatch(folder / "Annotations", XYXY)
    for photo_id in ids:
        size, boxes = _boxes(folder / "Annotations" / f"{photo_id}.xml", dropped, watch)
        entities = []
        for line in _text(folder / "Sentences" / f"{photo_id}.txt").splitlines():
            for match in _PHRASE.finditer(line):
                if match["id"] not in boxes:
                    dropped["phrase_without_box"] += 1
                    continue
                entities.append(Entity(number, match["text"].strip(), tuple(boxes[match["id"]])))
                number += 1
        images.append(EntityImage(int(photo_id), photos / f"{photo_id}.jpg", size, tuple(entities)))
    watch.refuse(dropped)
    if not number:
        raise ValueError(
            f"{folder}: expected phrases like [/EN#1/people a man] with boxes in the split {split}, got none"
        )
    return EntitySet("flickr30k_grounding", tuple(images), dropped)


def _boxes(file: Path, dropped: Counter[str], watch: FrameWatch) -> tuple[tuple[int, int], dict[str, list[Box]]]:
    try:
        root = ElementTree.fromstring(_text(file))
        size = int(root.findtext("size/width", "")), int(root.findtext("size/height", ""))
        found: dict[str, list[Box]] = defaultdict(list)
        for thing in root.iter("object"):
            place = thing.find("bndbox")
            if place is None:
                continue  # a scene, or a thing that cannot be seen
            raw = [float(place.findtext(side, "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            watch.see(tuple(raw), *size)
            box, reason = check_box(raw, *size, xywh=False)
            if box is None:
                dropped[str(reason)] += 1
                continue
            for name in thing.iter("name"):
                found[(name.text or "").strip()].append(box)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(
            f"{file}: expected an annotation of Flickr30k Entities, got another layout ({error})"
        ) from error
    return size, dict(found)


def _text(file: Path) -> str:
    if not file.is_file():
        raise ValueError(f"{file}: expected a file of Flickr30k Entities, found none; download it again")
    return file.read_text(encoding="utf-8")
